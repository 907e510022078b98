"""Hosts: the models that a stack of patches is applied to.

A host answers four questions about its patchable parameters (which, what is there now, what was there before us,
which bytes are that) and does one thing: write some of them, all or nothing. It knows nothing of patches.

    CheckpointHost  a diffusers folder or single file on disk    rasura.patches.hosts.disk.checkpoint_host
    TorchHost       modules in memory, on any device             rasura.patches.hosts.live.torch_host
    ShardedHost     modules in the memory of several processes   rasura.patches.hosts.sharded.sharded_host

All answer `digests` with the SHA-256 of the same raw bytes, so a live model can be compared with one on disk.
"""

from collections.abc import Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from rasura.patches.types import Digest, ParamName

if TYPE_CHECKING:
    import torch

__all__ = ["COMPONENTS", "Host", "ParameterInfo", "parameter_name"]

COMPONENTS = ("unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3")
"""The parts of a pipeline that a patch may touch; a VAE, a tokenizer or a scheduler is never opened."""

_CLIP_ROOT = "text_model."
# The children of that root; other text encoders (T5) have none of these at the top and keep their names.
_CLIP_CHILDREN = ("embeddings.", "encoder.layers.", "final_layer_norm.")


@dataclass(frozen=True, slots=True)
class ParameterInfo:
    """One patchable parameter: what it is called, how its numbers are stored, its shape."""

    name: ParamName
    dtype: str
    """In safetensors' spelling: `F16`, `BF16`, `F32`, `F64`."""
    shape: tuple[int, ...]


class Host(Protocol):
    """A model whose parameters can be read, and written all or nothing.

    A name that the host does not have raises `UnsupportedHostError`, whichever method was asked.
    """

    @property
    def location(self) -> str:
        """What a person calls this host: a path or a label."""
        ...

    @property
    def host_id(self) -> str:
        """32 hexadecimal digits that name this host for as long as something is applied to it."""
        ...

    @property
    def lasting(self) -> bool:
        """Whether this host is still there when the process has ended."""
        ...

    def known_as(self, host_id: str) -> None:
        """Take this identity in place of a fresh one; without effect while something is applied."""
        ...

    def alone(self) -> AbstractContextManager[object]:
        """Keep everybody else from moving this host for the length of the block; readers are let through.

        Raises:
            BusyError: somebody else is moving it.
        """
        ...

    def kept(self) -> frozenset[ParamName]:
        """The parameters whose originals are kept, which are those that something is applied to."""
        ...

    def parameters(self) -> Mapping[ParamName, ParameterInfo]:
        """Every patchable parameter, in name order; no tensor is read."""
        ...

    def read(self, names: Iterable[ParamName]) -> "dict[ParamName, torch.Tensor]":
        """The present values: copies on the CPU, in the host's dtype."""
        ...

    def originals(self, names: Iterable[ParamName]) -> "dict[ParamName, torch.Tensor]":
        """The values before anything was written: the kept originals where touched, else the present values."""
        ...

    def digests(self, names: Iterable[ParamName]) -> dict[ParamName, Digest]:
        """SHA-256 of the present values' raw little-endian bytes, in row-major order."""
        ...

    def original_digests(self, names: Iterable[ParamName]) -> dict[ParamName, Digest]:
        """As `digests`, of the values before anything was written."""
        ...

    def ensure_writable(self, names: Iterable[ParamName]) -> None:
        """Refuse now what `write` would have to refuse because of the host itself; nothing is changed.

        Raises:
            UnsupportedHostError: one of these cannot be written through; the hint says what to do instead.
        """
        ...

    def write(self, tensors: "Mapping[ParamName, torch.Tensor]", *, forget: Collection[ParamName] = ()) -> None:
        """Write all of these values or none of them.

        The first time a parameter is written its original is kept, durably, before it is touched. Afterwards the
        values are read back and compared.

        Args:
            tensors: values of exactly the host's dtype and shape.
            forget: parameters that hold their originals again after this write; their kept originals may be dropped
                once the write is durable. Names that are not kept are ignored.

        Raises:
            UnsupportedHostError: a name, dtype or shape that this host does not have, or a host that cannot be
                written through; nothing was changed.
            NotFiniteError: a value is NaN or infinite; nothing was changed.
            HostWriteError: writing failed or read back something else; everything is as it was.
            BusyError: another process is writing.
        """
        ...


def parameter_name(component: str, key: str) -> ParamName:
    """The one name of a module's parameter, whichever of CLIP's two spellings the file or the module uses.

    transformers has saved the same text encoder with and without `text_model.`; the longer spelling is the name.
    """
    if component.startswith("text_encoder") and key.startswith(_CLIP_CHILDREN):
        key = _CLIP_ROOT + key
    return ParamName(f"{component}.{key}")
