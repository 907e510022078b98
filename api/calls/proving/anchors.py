"""The calls about evidence of the log that lies elsewhere: anchors and witnesses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rasura.api.calls._calls import Calls
from rasura.api.hints import in_python
from rasura.patches._io.files import read_regular
from rasura.patches.errors import ExistsError, InputError
from rasura.registry._storage.files.durable_files import write_atomic
from rasura.registry.evidence.anchoring.anchor import Anchor
from rasura.registry.evidence.anchoring.timestamp_token import read_roots
from rasura.registry.evidence.anchoring.witness import WITNESS, witness
from rasura.registry.evidence.proofs.take_out import export_checkpoint
from rasura.registry.log.notes.cosignature import WitnessKey
from rasura.registry.log.notes.signed_note import VerifyKey

if TYPE_CHECKING:
    from rasura.registry._storage.records.records import EntryRecord
    from rasura.registry.evidence.anchoring.anchors import CheckedAnchor

__all__ = ["AnchorCalls"]

_LIMIT = 65_536  # bytes of a checkpoint, a token, a certificate
_BUNDLE_LIMIT = 1024**3


class AnchorCalls(Calls):
    """Where else it stands what the log of a registry was."""

    @in_python
    def add_anchor(
        self,
        *,
        file: str | Path | None = None,
        token: str | Path | None = None,
        cosigned: str | Path | None = None,
        hub: str | None = None,
        private: bool = False,
        endpoint: str | None = None,
        checkpoint: str | Path | None = None,
        reason: str = "",
    ) -> EntryRecord:
        """Put the newest checkpoint out of reach, or keep what others signed about one (`rasura audit anchor add`).

        Args:
            file: a new file to write the checkpoint to; or
            token: an RFC 3161 response over it; or
            cosigned: the checkpoint that a witness cosigned; or
            hub: a Hub repository, `org/name`, into which it goes as a commit; one of the four.
            private: make that repository private if it is new.
            endpoint: which Hub; None: the one that huggingface_hub is set to.
            checkpoint: what the token is over; None: the newest.
            reason: why, for the log.

        Raises:
            InputError: none or several of them, or a checkpoint without a token.
            AuditError: the evidence is about another log or tree.
            ExistsError: the file is there.
            HubError: the Hub failed, refused or was not reached.
        """
        from rasura.registry.evidence.anchoring.anchors import ANCHOR, add_anchor, commit_checkpoint
        from rasura.registry.hub.remote import Remote

        if sum(each is not None for each in (file, token, cosigned, hub)) != 1 or (checkpoint and not token):
            raise InputError(
                "expected one of file, token, cosigned and hub, a checkpoint beside a token only",
                hint="rasura audit anchor list",
            )
        if hub is not None:
            draft = self._draft(ANCHOR, reason)
            return commit_checkpoint(self.store, hub, Remote(endpoint), draft, private=private).entry
        note = read_regular(Path(checkpoint), _LIMIT) if checkpoint else export_checkpoint(self.store)
        if file is not None:
            if Path(file).exists():
                raise ExistsError(f"{file} exists already")
            write_atomic(Path(file), note)
            made = Anchor("file", note.decode(), b"", str(Path(file).absolute()))
        elif token is not None:
            made = Anchor(
                "rfc3161", note.decode("utf-8", "replace"), read_regular(Path(token), _LIMIT), Path(token).name
            )
        else:
            data = read_regular(Path(str(cosigned)), _LIMIT)
            made = Anchor("witness", data.decode("utf-8", "replace"), data, Path(str(cosigned)).name)
        return add_anchor(self.store, made, self._draft(ANCHOR, reason))

    @in_python
    def anchors(self) -> tuple[tuple[EntryRecord, Anchor], ...]:
        """The anchors, each with the entry that says so; nothing is verified (`rasura audit anchor list`)."""
        from rasura.registry.evidence.anchoring.anchors import list_anchors

        return list_anchors(self.store)

    @in_python
    def verify_anchors(
        self, *, tsa_ca: Sequence[str | Path] = (), witness_key: Sequence[str] = (), endpoint: str | None = None
    ) -> tuple[CheckedAnchor, ...]:
        """Verify the log, and that it continues the tree of every anchor (`rasura audit anchor verify`).

        Args:
            tsa_ca: PEM files of time-stamping authorities that count.
            witness_key: public keys of witnesses that count.
            endpoint: the Hub that commits are fetched from; None: the one that huggingface_hub is set to.

        Raises:
            AuditError: the log is not what was signed, or has another past than an anchor.
        """
        from rasura.registry.evidence.anchoring.anchors import verify_anchors
        from rasura.registry.hub.remote import Remote

        roots = [root for path in tsa_ca for root in read_roots(read_regular(Path(path), _LIMIT))]
        keys = [WitnessKey.parse(text) for text in witness_key]
        return verify_anchors(self.store, roots=roots, witnesses=keys, remote=Remote(endpoint))

    @in_python
    def witness(self, checkpoint: str | Path, *, vkey: str, bundle: str | Path | None = None, reason: str = "") -> str:
        """Cosign the checkpoint of another registry's log; gives the cosigned note (`rasura audit witness`).

        Args:
            checkpoint: file of it.
            vkey: public key of that log.
            bundle: file that proves that it continues what was seen last; needed where it has grown.
            reason: why, for the log.

        Raises:
            AuditError: it is not signed by that key, or that log has two pasts.
            ConflictError: a proof is needed, or a later tree was seen already.
        """
        proof = None if bundle is None else read_regular(Path(bundle), _BUNDLE_LIMIT)
        note, key = read_regular(Path(checkpoint), _LIMIT), VerifyKey.parse(vkey)
        return witness(self.store, note, key, self._draft(WITNESS, reason), bundle=proof)
