"""From a file's bytes to text: regular, bounded, UTF-8, and really the list that was meant."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Final

from rasura.patches._io.files import read_regular
from rasura.patches.errors import FormatError, NotFoundError
from rasura.patches.lists.role import Role

__all__ = ["LIST_LIMIT", "read_list_text"]

LIST_LIMIT: Final = 256 * 1024 * 1024
"""Most bytes of a list: a million lines of 200 characters."""

_LFS: Final = "version https://git-lfs.github.com/spec/"
_PAGES: Final = ("<!doctype html", "<html", "<?xml")
_SIGNS: Final = {
    b"PK\x03\x04": "a zip archive (a workbook is one, too): expected text; save the sheet as CSV",
    b"\x1f\x8b": "compressed by gzip: expected text; unpack it first",
    b"PAR1": "a Parquet file: expected text; write it out as CSV or JSONL",
    b"ARROW1": "an Arrow file: expected text; write it out as CSV or JSONL",
    b"%PDF-": "a PDF: expected text",
    b"\x89PNG": "a picture: expected text; it is not UTF-8 text",
    codecs.BOM_UTF16_LE: "not UTF-8 text but UTF-16: save it as UTF-8",
    codecs.BOM_UTF16_BE: "not UTF-8 text but UTF-16: save it as UTF-8",
}


def read_list_text(path: Path, role: Role, limit: int = LIST_LIMIT) -> str:
    """The text of a list, without a byte order mark.

    Args:
        path: the file.
        role: what it is for.
        limit: most bytes it may have.

    Raises:
        NotFoundError: nothing is there.
        RasuraError: the role's: no regular file, too long, not UTF-8, or what stands in a list's place
            (a Git LFS pointer, a web page, a workbook).
    """
    try:
        data = read_regular(path, limit)
    except NotFoundError:
        raise NotFoundError(f"{role.what} {path} does not exist", hint=role.hint, file=str(path)) from None
    except FormatError as error:
        raise role.refuse(path, f"cannot be read: {error.message}") from None
    for sign, said in _SIGNS.items():
        if data.startswith(sign):
            raise role.refuse(path, f"is {said}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        said = f"is not UTF-8 text: byte 0x{data[error.start]:02x}, {error.reason}"
        raise role.refuse(path, said, line) from None
    start = text[:200].lstrip().casefold()
    if text.startswith(_LFS):
        raise role.refuse(
            path, "is a Git LFS pointer, not the file that it stands for: expected its text", hint="git lfs pull"
        )
    if start.startswith(_PAGES):
        raise role.refuse(
            path, "is a web page or XML, not a list: expected the file itself, as its download link gives"
        )
    return text
