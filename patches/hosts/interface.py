"""Hosts: the models that a stack of patches is applied to.

A host answers four questions about its patchable parameters (which, what is there now, what was there before us,
which bytes are that) and does one thing: write some of them, all or nothing. It knows nothing of patches.

    CheckpointHost  a diffusers folder or single file on disk    rasura.patches.hosts.disk.checkpoint_host
    TorchHost       modules in memory, on any device             rasura.patches.hosts.live.torch_host
    ShardedHost     modules in the memory of several processes   rasura.patches.hosts.sharded.sharded_host

All answer `digests` with the SHA-256 of the same raw bytes, so a live model can be compared with one on disk.
"""

import re
from collections.abc import Collection, Hashable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

from rasura.patches._io.tensor_bytes import RawValue, Storable, as_tensor
from rasura.patches.format.manifest_parts import TensorIdentity
from rasura.patches.types import Digest, ParamName

if TYPE_CHECKING:
    import torch

    from rasura.patches.algebra.factors import BranchFactors
    from rasura.patches.algebra.light.layers import Layer
__all__ = [
    "COMPONENTS",
    "Host",
    "MadeOf",
    "ParameterInfo",
    "QuantisedFrom",
    "QuantisedPart",
    "RawComposed",
    "Reading",
    "Value",
    "name_parameter",
]

COMPONENTS = ("unet", "transformer", "transformer_2", "text_encoder", "text_encoder_2", "text_encoder_3")
"""The parts of a pipeline that a patch may touch; a VAE, a tokenizer or a scheduler is never opened."""

_CLIP_ROOT = "text_model."
# The children of that root; other text encoders (T5) have none of these at the top and keep their names.
_CLIP_CHILDREN = ("embeddings.", "encoder.layers.", "final_layer_norm.")
# Language models that also see pictures lie one deeper in memory than in their files, and either way round.
_LANGUAGE_ROOTS = re.compile(r"^(?:(?:model|language_model)\.)+")

_OUTER = "module."
_WRAPPERS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
_WRAPPED = re.compile("|".join(sorted(_WRAPPERS)))


@dataclass(frozen=True, slots=True)
class ParameterInfo:
    """One patchable parameter: what it is called, how its numbers are stored, its shape."""

    name: ParamName
    dtype: str
    """In safetensors' spelling: `F16`, `BF16`, `F32`, `F64`."""
    shape: tuple[int, ...]


MadeOf: TypeAlias = Hashable
"""What a value is a function of: the digest of its original, and the patches with their strengths."""


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """A parameter's value; the tensor is never written to."""

    tensor: "torch.Tensor"
    digest: Digest
    """SHA-256 of its raw bytes."""


@dataclass(frozen=True, slots=True, eq=False)
class RawComposed:
    """As `Value`, of a host that composes bytes."""

    tensor: RawValue
    digest: Digest


@dataclass(frozen=True, slots=True)
class QuantisedFrom:
    """The base that somebody says was quantised; its codes cannot tell."""

    base: Digest
    parameters: "Mapping[ParamName, TensorIdentity]"


class QuantisedPart(Protocol):
    """The quantised layers of a host: their codes are never written, increments run beside them."""

    quantised_from: QuantisedFrom | None
    """Without it, branches are only taken away."""

    def layers(self) -> Mapping[ParamName, ParameterInfo]:
        """The quantised linear layers, in name order; their `dtype` is the kind of their codes."""
        ...

    def attached(self) -> frozenset[ParamName]:
        """Beside which layers something runs now, whoever attached it."""
        ...

    def predicted(self, wanted: "Mapping[ParamName, BranchFactors | None]") -> dict[ParamName, Digest]:
        """What `Host.digests` will say of these layers with these factors attached."""
        ...

    def exchanging(self, wanted: "Mapping[ParamName, BranchFactors | None]") -> AbstractContextManager[None]:
        """Attach these for good if the block succeeds; if not, everything is as before."""
        ...


class Reading(Protocol):
    """What a host says of its parameters without their numbers; a host does, or whoever remembers what it said."""

    @property
    def location(self) -> str:
        """What a person calls this host: a path or a label."""
        ...

    @property
    def lasting(self) -> bool:
        """Whether this host is still there when the process has ended."""
        ...

    def kept(self) -> frozenset[ParamName]:
        """The parameters whose originals are kept, which are those that something is applied to."""
        ...

    def parameters(self) -> Mapping[ParamName, ParameterInfo]:
        """Every patchable parameter, in name order; no tensor is read."""
        ...

    def digests(self, names: Iterable[ParamName]) -> dict[ParamName, Digest]:
        """SHA-256 of the present values' raw little-endian bytes, in row-major order."""
        ...

    def original_digests(self, names: Iterable[ParamName]) -> dict[ParamName, Digest]:
        """As `digests`, of the values before anything was written."""
        ...


class Host(Reading, Protocol):
    """A model whose parameters can be read, and written all or nothing.

    Hosts inherit from it: what only some of them can do has a default here, so that nobody asks which kind a host is.

    A name that the host does not have raises `UnsupportedHostError`, whichever method was asked.
    """

    @property
    def host_id(self) -> str:
        """32 hexadecimal digits that name this host for as long as something is applied to it."""
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

    def read(self, names: Iterable[ParamName]) -> "dict[ParamName, torch.Tensor]":
        """The present values: copies on the CPU, in the host's dtype."""
        ...

    def originals(self, names: Iterable[ParamName]) -> "dict[ParamName, torch.Tensor]":
        """The values before anything was written: the kept originals where touched, else the present values."""
        ...

    def ensure_writable(self, names: Iterable[ParamName]) -> None:
        """Refuse now what `write` would have to refuse because of the host itself; nothing is changed.

        Raises:
            UnsupportedHostError: one of these cannot be written through; the hint says what to do instead.
        """
        ...

    def write(self, tensors: Mapping[ParamName, Storable], *, forget: Collection[ParamName] = ()) -> None:
        """Write all of these values or none of them.

        The first time a parameter is written its original is kept, durably, before it is touched. Afterwards the
        values are read back and compared.

        Args:
            tensors: values of exactly the host's dtype and shape, as tensors or as bytes.
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

    def hold_to(self, digests: "Mapping[ParamName, Digest]") -> None:
        """Have the next write find these parameters with these digests, as they were when they were checked.

        A host that others can write to behind our back keeps an original at the first write: without this it would keep
        what came there after the check. Hosts that nobody else can reach need not care.
        """
        del digests

    def model_folder(self) -> "Path | None":
        """The diffusers folder that this model is, with tokenizer and text encoder; None of every other host."""
        return None

    def pipeline_parts(self) -> "Mapping[str, object]":
        """What a live pipeline has, by the names that diffusers gives them, tokenizers too; empty of other hosts."""
        return {}

    def uncovered(self) -> tuple[str, ...]:
        """Sentences about parts of the pipeline that read text or pictures and that no patch touches."""
        return ()

    def quantised_part(self) -> QuantisedPart | None:
        """The quantised layers, if this host can have some."""
        return None

    def lent(self, names: Iterable[ParamName]) -> "dict[ParamName, torch.Tensor]":
        """As `originals`, not copied where the host can lend them: to be read before the next write, never written."""
        return self.originals(names)

    def untouched(self, names: Iterable[ParamName]) -> Mapping[ParamName, Storable]:
        """As `lent`, for whoever only writes them back: a host that has bytes gives bytes."""
        return self.lent(names)

    def examine(self, names: Iterable[ParamName]) -> tuple[Mapping[ParamName, Storable], Mapping[ParamName, Digest]]:
        """As `untouched`, with the SHA-256 of those values that were hashed on the way."""
        return self.untouched(names), {}

    def compose(
        self,
        layers: "Mapping[ParamName, Layer]",
        originals: Mapping[ParamName, Storable],
        made_of: Mapping[ParamName, MadeOf],
    ) -> "Mapping[ParamName, Value | RawComposed]":
        """What parameters are under a set of patches, with digests; nothing is written.

        Args:
            layers: what the set adds to each parameter.
            originals: their values without patches, as `untouched` gives them.
            made_of: what determines each result; a host that remembers values knows them by it.

        Raises:
            AlgebraError, BoundExceededError, NotFiniteError: see `rasura.patches.algebra.compose.compose`.
        """
        from rasura.patches.algebra.compose import compose_digested  # needs torch; looking at a host does not

        del made_of  # nothing is remembered here
        values = compose_digested({name: as_tensor(value) for name, value in originals.items()}, layers.values())
        return {name: Value(value, digest) for name, (value, digest) in values.items()}


def name_parameter(component: str, key: str) -> ParamName:
    """The one name of a module's parameter, whichever of its spellings the file or the module uses.

    transformers has saved the same text encoder with and without `text_model.`; the longer spelling is the name. What
    wrappers put around a module (torch.compile, FSDP, DataParallel) is no part of it, in a file as little as live.
    """
    while key.startswith(_OUTER):
        key = key.removeprefix(_OUTER)
    if _WRAPPED.search(key):
        key = ".".join(part for part in key.split(".") if part not in _WRAPPERS)
    if component.startswith("text_encoder"):
        key = _LANGUAGE_ROOTS.sub("", key)
        key = _CLIP_ROOT + key if key.startswith(_CLIP_CHILDREN) else key
    return ParamName(f"{component}.{key}")
