"""Where the originals of a live model's parameters are kept: a choice between memory and the time of going back.

    cpu       a copy in the CPU's memory: nothing on the device, one transfer to go back
    pinned    the same in page-locked memory: faster transfers, and memory that the system cannot use otherwise
    device    a copy beside the weights: fastest, and as much of the device's memory as is touched
    a folder  nothing at all: they are read again from the base's files, which must hold the very same bits

The originals are kept on the module itself (a plain attribute, in no state dict), so that a second host over the same
modules, or over a deep copy of them, finds them. A copy is another model, though: it gets an identity of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal, TypeAlias

import torch
from torch import nn

from rasura.patches._io.tensor_bytes import digest_tensor
from rasura.patches.errors import BaseMismatchError, HostWriteError
from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.patches.hosts.disk.state_folder import make_identity
from rasura.patches.types import SHORT, Digest, ParamName

__all__ = ["HOST_ID", "KeepOn", "Kept", "OnDisk", "copy_to_keep", "drop_original", "keep", "originals_of", "value_of"]

_KEPT: Final = "_rasura_originals"
HOST_ID: Final = "_rasura_host_id"

KeepOn: TypeAlias = Literal["cpu", "pinned", "device"] | Path
"""Where originals are kept; a folder: nowhere but in the base's own files."""


@dataclass(frozen=True, slots=True)
class OnDisk:
    """An original that lies in a base's folder alone, and the SHA-256 of its bytes."""

    folder: Path
    digest: Digest


Kept: TypeAlias = torch.Tensor | OnDisk


class _Identity(str):
    """An identity that is not copied: two models that answer to one name would be moved by each other's records."""

    __slots__ = ()

    def __deepcopy__(self, memo: object) -> _Identity:
        return _other()

    def __reduce__(self) -> tuple[object, ...]:
        return _other, ()


def _other() -> _Identity:
    return _Identity(make_identity())


def originals_of(module: nn.Module) -> dict[ParamName, Kept]:
    """What is kept on a component; read from its `__dict__`, as some classes answer unknown names from elsewhere."""
    kept = module.__dict__.get(_KEPT, {})
    assert isinstance(kept, dict)
    return kept


def keep(module: nn.Module, name: ParamName, original: Kept, identity: str) -> None:
    """Keep one original on a component."""
    # the first to keep something names the host for all that follow
    module.__dict__.setdefault(HOST_ID, _Identity(identity))
    module.__dict__.setdefault(_KEPT, {})[name] = original


def drop_original(module: nn.Module, name: ParamName) -> None:
    """Keep it no longer; with the last one, the module is as it was before anything was applied."""
    kept = originals_of(module)
    kept.pop(name, None)
    if not kept:
        module.__dict__.pop(_KEPT, None)
        module.__dict__.pop(HOST_ID, None)


def copy_to_keep(name: ParamName, tensor: torch.Tensor, where: KeepOn, known: torch.Tensor | None = None) -> Kept:
    """What to keep of a parameter before it is written for the first time.

    Args:
        name: the parameter.
        tensor: its values.
        where: the choice.
        known: a tensor with the very same bits that nobody writes to; kept in place of a copy if it lies where it must.

    Raises:
        BaseMismatchError: the folder has no such parameter, or it holds other bits there.
        HostError: the folder cannot be read.
    """
    if isinstance(where, Path):
        return _on_disk(name, tensor, where)
    device = tensor.device if where == "device" else torch.device("cpu")
    # Without an accelerator there is nothing to pin memory for.
    pinned = where == "pinned" and torch.accelerator.is_available()
    if known is not None and known.device == device and known.is_pinned() == pinned:
        return known
    # row by row, as digests read it
    copy = tensor.detach().to(device=device, copy=True, memory_format=torch.contiguous_format)
    return copy.pin_memory() if pinned else copy


def value_of(name: ParamName, kept: Kept) -> torch.Tensor:
    """The original's values; where they come from a file, verified against what was there when it was kept.

    Raises:
        HostWriteError: the file no longer holds them.
        HostError: the folder cannot be read any more.
    """
    if isinstance(kept, torch.Tensor):
        return kept
    found = _opened(kept.folder).originals([name])[name]
    if (got := digest_tensor(found)) != kept.digest:  # somebody may have written to the folder since
        raise HostWriteError(
            f"{kept.folder}: {name} is not the original any more: expected {kept.digest[:SHORT]}, got {got[:SHORT]}",
            hint="put the base's files back, or load the model anew",
            parameter=name,
        )
    return found


def _on_disk(name: ParamName, tensor: torch.Tensor, folder: Path) -> OnDisk:
    host, mine = _opened(folder), digest_tensor(tensor)
    # Compared now, not when it is needed: a folder that cannot give the bits back is refused before anything is
    # written.
    theirs = host.original_digests([name])[name] if name in host.parameters() else None
    if theirs != mine:
        raise BaseMismatchError(
            f"{folder}: expected {name} with the bits of the loaded model, {mine[:SHORT]}, to go back to; "
            f"got {theirs[:SHORT] if theirs else 'no such parameter'}",
            hint="keep_on='cpu'",
            parameter=name,
        )
    return OnDisk(folder, mine)


@lru_cache(maxsize=4)
def _opened(folder: Path) -> CheckpointHost:
    """Opened once for all parameters; what is read from it is compared with its digest anyway."""
    return CheckpointHost.open(folder)
