"""Texts as a page spells them: escaped, times, shares."""

import html

from rasura.registry._storage.records.validation import from_instant

__all__ = ["begin_sentence", "escape", "write_percent", "write_share", "write_time"]


def write_time(text: str) -> str:
    """An instant of the record, for people and for machines."""
    time = from_instant(text)
    return f'<time datetime="{text}">{time:%-d %B %Y, %H:%M} UTC</time>'


def begin_sentence(text: str) -> str:
    """A text as the beginning of a sentence."""
    return text[:1].upper() + text[1:]


def write_share(decimal: str) -> str:
    """A share with one digit after the point; one that would round to nothing is said to be small, not none."""
    share = float(decimal)
    return "less than 0.1%" if 0 <= share < 0.001 else f"{share:.1%}"  # noqa: PLR2004


def write_percent(decimal: str) -> str:
    """A share in whole percent."""
    return f"{float(decimal):.0%}"


def escape(text: object) -> str:
    """A text as HTML: markup is shown, and what turns the direction of reading is spelt out."""
    said = "".join(c if c.isprintable() or c in "\n\t" else f"\\u{ord(c):04x}" for c in str(text))
    return html.escape(said)
