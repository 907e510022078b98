"""Small files that somebody gives to a command: keys, checkpoints, tokens."""

from pathlib import Path
from typing import Final

from rasura.patches._io.files import read_regular
from rasura.patches.errors import NotFoundError
from rasura.registry.log.notes.signed_note import VerifyKey

_LIMIT: Final = 65_536
"""Most bytes of a key or a checkpoint."""
_SIGNS: Final = 2
"""Plus signs of a log's key."""


def read_vkey(text: str) -> "VerifyKey":
    """The key in a text or in the file that it names.

    Raises:
        AuditError: it is none.
        NotFoundError: it is the name of a file that is not there.
    """
    path = Path(text)
    if text.count("+") < _SIGNS and not path.is_file():
        raise NotFoundError(
            f"log key {text}: expected a file that holds it, or the key itself, such as log.example/a+01234567+Aa…; "
            "there is no such file",
            hint="rasura key list",
        )
    # A key has two plus signs and base64 behind them; a file may be called anything, and lies there.
    return VerifyKey.parse(read_given(path, "key").decode("utf-8", "replace").strip() if path.is_file() else text)


def read_given(path: Path, what: str) -> bytes:
    """The bytes of such a file; `what` it should be is for the message.

    Raises:
        NotFoundError: there is none.
    """
    try:
        return read_regular(path, _LIMIT)
    except NotFoundError:
        raise NotFoundError(f"{what} file {path} does not exist", hint="rasura audit checkpoint -o FILE") from None
