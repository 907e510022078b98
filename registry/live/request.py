"""One request of a live model: while it lasts the weights stay as they are, and it can say so, signed."""

from __future__ import annotations

from collections.abc import Callable

from rasura.patches.errors import InputError

__all__ = ["LiveRequest"]


class LiveRequest:
    """What `LiveModel.request` gives: valid inside of its block."""

    def __init__(self, sign: Callable[[bytes | None, bool], bytes]) -> None:
        """Use `LiveModel.request`."""
        self._sign = sign
        self._ended = False

    def receipt(self, picture: bytes | None = None, *, look: bool = True) -> bytes:
        """A signed receipt: what is in force on the model now, at which checkpoint of the log.

        Args:
            picture: what was drawn, as it is stored or sent; the receipt is then about this picture alone.
            look: hash the touched parameters, and compare them with what the log says; without, its word is taken.

        Returns:
            `rasura-picture/1`; `rasura verify RECEIPT` and `rasura.verify_receipt` check it.

        Raises:
            InputError: the block has ended.
            DriftError: the touched parameters are not what the log says; nothing is signed.
            RegistryError: the log's key is not here.
        """
        if self._ended:
            raise InputError("this request has ended, and the weights may move: expected a receipt inside its block")
        return self._sign(picture, look)

    def embed(self, picture: bytes, *, look: bool = True) -> bytes:
        """A PNG with a receipt for it inside; whoever shows it sees the same picture.

        Args:
            picture: the PNG.
            look: as for `receipt`.

        Raises:
            FormatError: no PNG, or one with a receipt.
            InputError, DriftError, RegistryError: as for `receipt`.
        """
        from rasura.registry.evidence.pictures.picture_receipt import embed_receipt

        return embed_receipt(picture, self.receipt(picture, look=look))

    def end(self) -> None:
        """No more receipts."""
        self._ended = True
