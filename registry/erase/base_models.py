"""Base models: registering one, finding one again, and making sure that it is still the same."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from rasura.patches.errors import DriftError, ExistsError, NotFoundError
from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.patches.hosts.disk.layouts.compvis_layout import is_single_name
from rasura.patches.models.base_identity import TEXT_LAYERS, BaseIdentity, find_casts, find_cross_attention, identify
from rasura.patches.models.probe.agreement import explain_separable
from rasura.patches.models.text_encoders.hidden_states import find_fc2_layers
from rasura.patches.models.text_encoders.text_encoder import TextEncoder
from rasura.patches.models.text_encoders.tokenizer_reading import say_reading
from rasura.registry._storage.records.base_records import BaseParameter, BaseRecord
from rasura.registry._storage.records.records import Draft
from rasura.registry.erase.known_copies import refuse_patched_copy
from rasura.registry.registry import Registry
from rasura.registry.trust.tokenizer_check import remember_tokenizer

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class OpenBase:
    """A registered base with its model open: identity, weights and text encoder."""

    record: BaseRecord
    identity: BaseIdentity
    host: CheckpointHost
    encoder: TextEncoder


def add_base(
    registry: Registry, folder: Path, name: str | None, draft: Draft, progress: Progress, *, dry_run: bool = False
) -> tuple[OpenBase, bool]:
    """Hash every patchable parameter of a model folder and register it. With `dry_run`, nothing is written.

    Returns:
        The base, and whether it is new here.

    Raises:
        NotFoundError: no such folder.
        UnsupportedHostError: no cross-attention, no CLIP text encoder, a single file, which has no tokenizer, or a copy
            of a model that this registry patched.
        ExistsError: the name belongs to another base.
    """
    identity, host, encoder = _identified(folder, progress)
    remember_tokenizer(registry, host, identity.tokenizer)
    known = next((base for base in registry.bases() if base.digest == identity.digest), None)
    if known is not None and name in (None, known.name):
        return OpenBase(registry.base(known.digest), identity, host, encoder), False
    refuse_patched_copy(registry, identity, host.location)
    infos = host.parameters()
    touched = host.originals([*find_cross_attention(infos, TEXT_LAYERS), *find_fc2_layers(infos).values()])
    record = BaseRecord(
        digest=identity.digest,
        name=name or host.folder.name,
        source=str(host.folder),
        text_encoder=identity.text_encoder,
        tokenizer=identity.tokenizer,
        parameters=tuple(
            BaseParameter(p.name, p.dtype, p.shape, p.sha256, find_casts(touched[p.name]) if p.name in touched else {})
            for p in identity.parameters
        ),
        added_at=registry.now(),
    )
    opened = OpenBase(record, identity, host, encoder)
    if dry_run:
        if known is not None:
            raise ExistsError(f"these weights are base {known.name!r} already", hint="rasura base list")
        if any(base.name == record.name for base in registry.bases()):
            raise ExistsError(f"another base is called {record.name!r} already", hint="rasura base list")
        return opened, True
    return opened, registry.add_base(record, replace(draft, details={**draft.details, **_told(identity)}))


def _told(identity: BaseIdentity) -> dict[str, str]:
    """What the log says of the trace, beside the base's digest: `rasura probe MODEL` makes the whole of it again."""
    trace = identity.trace
    return {} if trace is None else {"trace": trace.sha256, "class": trace.kind, "config": trace.config}


def check_base_there(registry: Registry, reference: str) -> BaseRecord | None:
    """The base with this name or digest, whose folder is still there; None of a folder.

    Raises:
        NotFoundError: neither a registered base nor a folder, or its folder is gone.
    """
    folder = Path(reference)
    if folder.is_dir() or (folder.is_file() and is_single_name(folder)):
        return None
    try:
        record = registry.base(reference)
    except NotFoundError as error:
        raise NotFoundError(f"no base and no folder is called {reference!r}", hint="rasura base add MODEL") from error
    if not Path(record.source).exists():
        raise NotFoundError(
            f"base {record.name!r} was added from {record.source}, where nothing is any more: expected its model",
            hint="rasura base add MODEL",
            moved_from=record.source,
        )
    return record


def open_base(
    registry: Registry, reference: str, draft: Draft, progress: Progress, *, dry_run: bool = False
) -> OpenBase:
    """The base with this name, digest or folder, opened and compared with what was registered; a new folder is added.

    With `dry_run`, nothing is written.

    Raises:
        NotFoundError: neither a registered base nor a folder.
        UnsupportedHostError: a single file, which has no tokenizer.
        DriftError: the folder no longer holds the weights that were registered under this name.
    """
    if (record := check_base_there(registry, reference)) is None:
        return add_base(registry, Path(reference), None, draft, progress, dry_run=dry_run)[0]
    identity, host, encoder = _identified(Path(record.source), progress)
    remember_tokenizer(registry, host, identity.tokenizer)
    if identity.digest != record.digest:
        if identity.text_encoder == record.text_encoder and identity.tokenizer != record.tokenizer:
            raise _read_otherwise(record, encoder)
        raise DriftError(
            f"{record.source} no longer holds base {record.name!r}: expected {record.digest[:12]}, got "
            f"{identity.digest[:12]}",
            hint=f"rasura base add {shlex.quote(record.source)} --name NEW",
        )
    return OpenBase(record, identity, host, encoder)


def _read_otherwise(record: BaseRecord, encoder: TextEncoder) -> DriftError:
    """Another tokenizer; or the same, registered when added tokens and the like were not part of an identity."""
    odd = "; ".join(f"{t.kind.tokenizer}: {say_reading(reading)}" for t in encoder.towers if (reading := t.reading()))
    return DriftError(
        f"{record.source} reads text otherwise than base {record.name!r} is registered: its tokenizer is another"
        f"{odd and f' ({odd}), or is told by more than it was at the time'}",
        hint=f"rasura base add {shlex.quote(record.source)} --name NEW",
    )


def identify_folder(record: BaseRecord, folder: Path, progress: Progress) -> OpenBase:
    """A folder opened in a base's name; whether it holds that base is the caller's to compare.

    Raises:
        NotFoundError: no such folder.
        UnsupportedHostError: see `add_base`.
    """
    identity, host, encoder = _identified(folder, progress)
    return OpenBase(record, identity, host, encoder)


def _identified(folder: Path, progress: Progress) -> tuple[BaseIdentity, CheckpointHost, TextEncoder]:
    progress("hashing the base", 0, 1)
    host = CheckpointHost.open(folder)
    find_cross_attention(host.parameters(), TEXT_LAYERS)
    encoder = TextEncoder.pristine(host)
    identity = identify(host, encoder.tokenizer_state())
    progress("hashing the base", 1, 1)
    return replace(identity, trace=explain_separable(host.folder, host.parameters())), host, encoder
