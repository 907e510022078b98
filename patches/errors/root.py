"""The root of all errors."""

from typing import ClassVar


class RasuraError(Exception):
    """Root of all errors: a sentence with expected and got, and a hint that is the next command to type.

    Attributes:
        code: registered name for machines; unique in the tree.
        exit_code: what the process ends with.
        hint: the next command to type, or "".
        details: what a machine may want to know (JSON-compatible values).
        others: what else stands in the way; none of them carries others (`rasura.patches.obstacles`).
    """

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "", **details: object) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = details
        self.others: tuple[RasuraError, ...] = ()

    def say_of(self, what: str) -> None:
        """Begin the sentence with what it is about, if that does not stand in it."""
        if what not in self.message:
            self.message = f"{what}: {self.message}"
            self.args = (self.message,)
