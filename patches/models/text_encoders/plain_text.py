"""Plain text: what a prompt may hold, and when two texts are one phrase."""

from __future__ import annotations

import unicodedata
from typing import Final

from rasura.patches._io.json_fields import show
from rasura.patches.errors import ConceptError

_NOT_PLAIN: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})  # Unicode's general categories


def check_plain(text: str) -> None:
    """Refuse control characters, line and paragraph separators, and lone surrogates.

    Raises:
        ConceptError: there are some.
    """
    if any(unicodedata.category(char) in _NOT_PLAIN for char in text):
        raise ConceptError(f"{show(text)} holds control characters: expected plain text", hint="--concept TEXT")


def normal(text: str) -> str:
    """One spelling of a phrase for comparing: composed, without case, single spaces; so CLIP's tokenizer sees it."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())
