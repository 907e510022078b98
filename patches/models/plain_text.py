"""Plain text: what a prompt may hold."""

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
