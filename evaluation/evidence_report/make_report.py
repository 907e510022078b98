"""Making a report: gathered, written as a page, signed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rasura.evaluation.evidence_report.gather import About, gather
from rasura.evaluation.evidence_report.page import write_page
from rasura.evaluation.evidence_report.signed_report import sign_report
from rasura.registry.trust.keys.key_files import signer

if TYPE_CHECKING:
    from rasura.registry.registry import Registry

__all__ = ["MadeReport", "make_report"]


@dataclass(frozen=True, slots=True)
class MadeReport:
    """A report: the page, its twin for machines, and how many entries, evaluations and models it tells of."""

    page: bytes
    twin: bytes
    entries: int
    evaluations: int
    places: int


def make_report(
    registry: Registry,
    about: About,
    *,
    version: str,
    names: tuple[str, str],
    key: str | None = None,
    withhold: bool = False,
) -> MadeReport:
    """Make a report of a case, a stack or a model, signed with the log's key.

    Args:
        registry: where.
        about: of what.
        version: of rasura.
        names: what the page and its twin are called.
        key: name of a key that signs, too; None: the log's alone.
        withhold: leave out who asked, what they wrote, and all pictures.

    Raises:
        NotFoundError: there is no such case, stack, model or key.
        InputError: the log has nothing about it.
        AuditError, DigestMismatchError: something was tampered with.
    """
    private = None if key is None else signer(registry, key)
    own = None if private is None else private.public
    files = {"page": names[0], "twin": names[1]}
    found = gather(registry, about, version=version, signer=own, withhold=withhold, names=files)
    twin, page = sign_report(found.document, write_page(found), registry.log_key, private)
    counts = (len(found.document[name]) for name in ("events", "evaluations", "places"))  # type: ignore[arg-type]
    return MadeReport(page, twin, *counts)
