"""Text of people, made harmless for a page."""

import re
import unicodedata

MAX_TEXT = 200  # characters of a name in the card
_RISKY = re.compile(
    r"[!-+./:-@\[-`{-~]|(?<![^\W_])-|-(?![^\W_])"
)  # all ASCII punctuation but a comma and inner hyphens


def plain(text: str) -> str:
    """Visible text on one line: control, bidirectional and other invisible characters as `[U+202E]`, length bounded."""
    shown = (" " if c.isspace() else c if unicodedata.category(c)[0] != "C" else f"[U+{ord(c):04X}]" for c in text)
    joined = " ".join(unicodedata.normalize("NFC", "".join(shown)).split())
    return joined if len(joined) <= MAX_TEXT else joined[: MAX_TEXT - 1] + "…"


def escape_inline(text: str) -> str:
    """`plain` text that Markdown and HTML show as it is: risky punctuation becomes a character reference."""
    return _RISKY.sub(lambda match: f"&#{ord(match[0])};", plain(text))
