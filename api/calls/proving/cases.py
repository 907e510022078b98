"""The calls about cases: requests with their clocks."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rasura import __version__
from rasura.api.calls._calls import Calls
from rasura.api.hints import in_python
from rasura.evaluation.evidence_report import signed_report
from rasura.evaluation.evidence_report.signed_report import MAX_REPORT_BYTES
from rasura.patches._io.files import read_regular
from rasura.patches.errors import InputError
from rasura.patches.format.signatures.signing_key import PublicKey
from rasura.registry._storage.files.durable_files import write_atomic
from rasura.registry.cases.clock import list_standings, parse_deadline, parse_received, read_standing
from rasura.registry.cases.handle_case import (
    close_case,
    forget_case,
    hold_case,
    keep_picture,
    open_case,
    read_text,
    reopen_case,
)
from rasura.registry.log.notes.signed_note import VerifyKey

if TYPE_CHECKING:
    from rasura.evaluation.evidence_report.make_report import MadeReport
    from rasura.evaluation.evidence_report.signed_report import VerifiedReport
    from rasura.registry._storage.records.case_record import CaseRecord
    from rasura.registry.cases.clock import CaseStanding
    from rasura.registry.cases.handle_case import Forgotten

__all__ = ["CaseCalls", "verify_report"]


class CaseCalls(Calls):
    """What a registry does with cases. `Registry` is one."""

    # Cases

    @in_python
    def open_case(
        self,
        case: str,
        *,
        received: datetime | str | None = None,
        deadline: datetime | str | None = None,
        requester: str = "",
        text: str | Path = "",
        retention: str = "",
        reason: str = "",
    ) -> CaseRecord:
        """Open the case of a request (`rasura case open`).

        Args:
            case: a ticket's number; it stands in the log for ever.
            received: when it came; a time, or a text such as "3h" (ago); None: now.
            deadline: until when something must be done; a time, or "48h" after it was received.
            requester: who asked; not in the log.
            text: what they wrote, or the file that holds it; not in the log.
            retention: how long that is kept: a class of the policy in force.
            reason: why, for the log.

        Raises:
            ExistsError: there is a case of this identifier.
            InputError: no identifier, or no time.
        """
        now = self.store.now()
        came = parse_received(received, now) if isinstance(received, str) else received or now
        due = parse_deadline(deadline, came) if isinstance(deadline, str) else deadline
        wrote = read_text(text) if isinstance(text, Path) else text.encode()
        return open_case(
            self.store,
            case,
            self._who(reason),
            received=came,
            due=due,
            requester=requester,
            text=wrote,
            retention=retention,
        )

    @in_python
    def cases(self, *, closed: bool = False) -> tuple[CaseStanding, ...]:
        """How the open cases stand, or all of them; what is due first in front (`rasura case list`)."""
        return list_standings(self.store, closed=closed)

    @in_python
    def case(self, case: str) -> CaseStanding:
        """How one case stands, with every entry that belongs to it (`rasura case show`).

        Raises:
            NotFoundError: there is no such case.
        """
        return read_standing(self.store, case)

    @in_python
    def of_case(self, case: str) -> AbstractContextManager[None]:
        """All that is done inside belongs to this case (`--case`).

        Raises:
            NotFoundError: there is no such case.
            ConflictError: it is closed.
        """
        return self.store.belonging(case)

    @in_python
    def add_to_case(self, case: str, picture: str | Path, *, reason: str = "") -> str:
        """Keep a picture with a case; gives what it is called there (`rasura case add`).

        Raises:
            InputError: neither PNG nor JPEG.
            ConflictError: the case is closed.
        """
        return keep_picture(self.store, case, read_text(Path(picture)), self._who(reason))

    @in_python
    def close_case(self, case: str, *, reason: str) -> CaseRecord:
        """Close a case (`rasura case close`).

        Raises:
            InputError: no reason: it says how the case ended.
            ConflictError: it is closed.
        """
        return close_case(self.store, case, self._who(reason))

    @in_python
    def reopen_case(self, case: str, *, reason: str = "") -> CaseRecord:
        """Open a closed case again (`rasura case reopen`).

        Raises:
            ConflictError: it is open.
        """
        return reopen_case(self.store, case, self._who(reason))

    @in_python
    def hold_case(self, case: str, *, reason: str) -> CaseRecord:
        """Put a legal hold on a case (`rasura case hold`).

        Raises:
            InputError: no reason: it says on whose order.
            ConflictError: its personal data was deleted already.
        """
        return hold_case(self.store, case, self._who(reason))[0]

    @in_python
    def release_case(self, case: str, *, reason: str) -> CaseRecord:
        """Take the legal hold off a case (`rasura case release`).

        Raises:
            InputError: no reason: it says on whose order.
        """
        return hold_case(self.store, case, self._who(reason), held=False)[0]

    @in_python
    def forget_case(self, case: str, *, reason: str = "") -> Forgotten:
        """Delete the personal data of a closed case; the log stays, and is verified (`rasura case forget`).

        Raises:
            ConflictError: the case is open, or under a legal hold.
        """
        return forget_case(self.store, case, self._who(reason))

    # The report

    @in_python
    def report(
        self,
        file: str | Path,
        *,
        case: str | None = None,
        stack: str | None = None,
        model: str | Path | None = None,
        key: str | None = None,
        withhold: bool = False,
    ) -> MadeReport:
        """Write the report of a case, a stack or a model: a page, and beside it its twin (`rasura report`).

        Args:
            file: the page; its name ends in `.html`. What is there is replaced.
            case: of a case; or
            stack: of a named stack; or
            model: of a model on disk; one of the three.
            key: name of a key that signs beside the log's.
            withhold: leave out who asked, what they wrote, and pictures.

        Raises:
            InputError: none or several of the three, or another name of the file.
            NotFoundError: there is no such case, stack or model.
            RegistryError: it cannot be written.
        """
        from rasura.evaluation.evidence_report.gather import About
        from rasura.evaluation.evidence_report.make_report import make_report

        page = Path(file)
        twin = page.with_suffix(".json")
        named = [
            *([About("case", case)] if case else []),
            *([About("stack", stack)] if stack else []),
            *([About("model", str(model))] if model else []),
        ]
        if len(named) != 1 or page.suffix.lower() not in {".html", ".htm"}:
            raise InputError(
                "expected one of case, stack and model, and a file that ends in .html", hint="rasura report"
            )
        names = page.name, twin.name
        made = make_report(self.store, named[0], version=__version__, names=names, key=key, withhold=withhold)
        write_atomic(page, made.page)
        write_atomic(twin, made.twin)
        return made


@in_python
def verify_report(file: str | Path, *, vkey: str | None = None, key: str | Sequence[str] = ()) -> VerifiedReport:
    """Check every byte of a report; no registry is needed (`rasura verify REPORT`).

    Args:
        file: the page or its twin.
        vkey: the log's public key, from somebody who kept it.
        key: PEM texts of public keys, one or several; with any, one of them must have signed, too.

    Raises:
        NotFoundError: there is no such file.
        AuditError, FormatError: the first thing found wrong.
        SignatureError, UntrustedKeyError: the second signature is bad, or by somebody else.
    """
    keys = [PublicKey.load(pem) for pem in ([key] if isinstance(key, str) else key)]
    data = read_regular(Path(file), MAX_REPORT_BYTES)
    return signed_report.verify_report(data, vkey=VerifyKey.parse(vkey) if vkey else None, keys=keys)
