"""What `rasura patch list` and `show` print of patches."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from rasura.commands._shared.certified_views import list_certified
from rasura.commands._shared.output import clip, short, table
from rasura.commands._shared.views import format_evaluation, format_measured, format_place

if TYPE_CHECKING:
    from rasura.patches.format.manifest import Manifest
    from rasura.registry._storage.records.records import EvaluationRecord, KeyRecord, PatchRecord
    from rasura.registry.erase.certify import Certified
    from rasura.registry.standing.catalogue import Listed

_DIGEST: Final = 64
_MODELS: Final = 2  # that a cell of the list names
_TICKET: Final = 24
_NAMES: Final = 32
_HEADERS: Final = (
    "patch", "concept", "also called", "becomes", "method", "in force at", "superseded by", "ticket", "base", "added",
)  # fmt: skip
_EVALUATIONS = 5  # lines of `show`


def print_patches(found: "tuple[Listed, ...]") -> None:
    """A table; columns that would be empty are left out."""
    rows = [
        (
            short(p.record.patch_id),
            ", ".join(p.record.concepts),
            clip(", ".join(p.names), _NAMES),
            p.record.anchor or "(nothing)",
            p.record.method,
            _places(p.in_force),
            short(p.superseded_by or ""),
            clip(p.ticket, _TICKET),
            p.base if len(p.base) < _DIGEST else short(p.base),
            f"{p.record.added_at:%Y-%m-%d %H:%M}",
        )
        for p in found
    ]
    shown = [i for i in range(len(_HEADERS)) if any(row[i] for row in rows)]
    table([_HEADERS[i] for i in shown], [[row[i] for i in shown] for row in rows])


def _places(locations: "tuple[str, ...]") -> str:
    if len(locations) > _MODELS:
        return f"{len(locations)} models"
    return ", ".join(map(format_place, locations)) or "-"


def list_patch_properties(
    record: "PatchRecord",
    manifest: "Manifest",
    signers: "Sequence[KeyRecord]",
    approved: "Sequence[str]",
    evaluations: "Sequence[EvaluationRecord]",
    *,
    certified: "Certified | None",
) -> list[tuple[str, str]]:
    """The lines of `show`: what the patch says of itself, then what the registry knows of it."""
    basis, retain = manifest.protected.basis, manifest.protected.retain
    layers = manifest.eraser.options.get("layers", "?")
    told = evaluations[:_EVALUATIONS]
    pairs = [
        ("patch", record.patch_id),
        ("concept", manifest.concept.text),
        *([("also called", ", ".join(manifest.names))] if manifest.names else []),
        ("becomes", manifest.concept.anchor or "(nothing)"),
        (
            "method",
            f"{manifest.eraser.name}, tokens {manifest.concept.tokens}, layers {layers}",
        ),
        ("base", record.base),
        ("touches", f"{len(manifest.base.parameters)} parameters, rank {manifest.measured.get('rank', '?')}"),
        *(
            [("text read in", f"{manifest.base.read_as}: exact as this encoder gives it")]
            if manifest.base.read_as
            else []
        ),
        *(() if manifest.separable else [("separable", "no: what it does to other prompts is measured, not proved")]),
        ("protects", f"{basis.rank} of {basis.dimension} dimensions ({basis.invariants} exact, {basis.rule})"),
        ("retain set", f"{retain.source}, {retain.count} concepts, {short(retain.sha256)}" if retain else "none"),
        (
            "protects too",
            ", ".join([*manifest.protected.concepts, *map(short, manifest.protected.patches)]) or "nothing",
        ),
        *((name.replace("_", " "), format_measured(value)) for name, value in sorted(manifest.measured.items())),
        *(list_certified(certified) if certified else ()),
        *(("signed by", f"{key.name} ({short(key.key_id)}){_doubt(key)}") for key in signers),
        *([("approved by", ", ".join(approved))] if approved else []),
        ("size", f"{record.size} bytes in {len(record.files)} files"),
        ("source", record.source),
        ("added", f"{record.added_at:%Y-%m-%d %H:%M:%S} UTC"),
        *(("evaluated", format_evaluation(e)) for e in told),
    ]
    if more := len(evaluations) - len(told):
        pairs.append(("", f"… and {more} more: rasura evaluation list --patch {short(record.patch_id)}"))
    return pairs


def _doubt(key: "KeyRecord") -> str:
    if key.revoked_at is not None:
        return f", revoked {key.revoked_at:%Y-%m-%d}"
    return "" if key.trusted else ", not trusted"
