"""Random values of the patch algebra, without a model: increments, stacks, embeddings like CLIP's, whole patches."""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st
from support.models.tiny import TinySpec, tiny_model

from rasura.patches._io.tensor_bytes import digest_tensor, dtype_name
from rasura.patches.algebra.increment import DETECTOR_STEP, RESPONSE_STEP, Increment
from rasura.patches.algebra.protected_subspace import Moment, ProtectedBasis, build_guarded_basis, build_protected_basis
from rasura.patches.algebra.rank_rule import RankRule
from rasura.patches.algebra.strength import Strength
from rasura.patches.erasers.closed_form.null_space import NullSpace, compute_gram_of, erase
from rasura.patches.erasers.columns import Columns
from rasura.patches.erasers.interface import Erasure
from rasura.patches.erasers.request import EraseRequest
from rasura.patches.format.manifest import Manifest
from rasura.patches.format.manifest_parts import BaseSpec, ConceptSpec, EraserSpec, TensorIdentity
from rasura.patches.format.patch import Patch
from rasura.patches.format.patch_tensors import PatchTensors
from rasura.patches.format.protected_spec import BasisSpec, ProtectedSpec, RetainSpec
from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.patches.models.base_identity import BaseIdentity, identify
from rasura.patches.models.text_encoders.text_encoder import TextEncoder
from rasura.patches.prompts.concept_prompts import Target
from rasura.patches.prompts.retain_set import RetainSet
from rasura.patches.solving.measure import Measurer, Reference
from rasura.patches.solving.solve import build_patches
from rasura.patches.types import Digest, ParamName, PatchId

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
WIDTH = 96
K = ParamName("unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight")
V = ParamName("unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_v.weight")


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(seed: int, *shape: int) -> torch.Tensor:
    """Float64 N(0, 1)."""
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def increment(seed: int, d_out: int, d_in: int, rank: int, scale: float = 0.05) -> Increment:
    """A random ΔW of about that size an entry."""
    return Increment.quantised(
        normal(2 * seed, rank, d_in), normal(2 * seed + 1, d_out, rank) * scale / math.sqrt(d_in)
    )


def exact_increment(a: Sequence[Sequence[int]], b: Sequence[Sequence[int]]) -> Increment:
    """The increment of these grid steps: A = a·2⁻²² [rank, d_in], B = b·2⁻¹⁸ [d_out, rank]."""
    A = torch.tensor(a, dtype=torch.float64) * DETECTOR_STEP
    return Increment(A.float(), (torch.tensor(b, dtype=torch.float64) * RESPONSE_STEP).float())


def weights(seed: int, d_out: int, d_in: int, dtype: torch.dtype) -> torch.Tensor:
    """Weights as of a projection, zeros of either sign among them."""
    found = normal(seed, d_out, d_in) / math.sqrt(d_in)
    found.view(-1)[:: d_in + 1] = 0.0
    found.view(-1)[1 :: d_in + 1] = -0.0
    return found.to(dtype)


def same_bits(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Also the signs of zeros."""
    return left.dtype == right.dtype and left.shape == right.shape and digest_tensor(left) == digest_tensor(right)


strengths = st.builds(Strength, st.integers(-64, 64))


def clip_like(seed: int, count: int, width: int = 768) -> torch.Tensor:
    """Columns [width, count] like CLIP's token embeddings: one common mean, norm about 28, cosines about 0.8."""
    common = 0.9 * normal(424242, width, 1)
    columns: torch.Tensor = common + 0.45 * normal(seed, width, count)
    return columns


def projections(seed: int, width: int, *outs: int) -> dict[ParamName, torch.Tensor]:
    """Float64 cross-attention projections W_l [o_l, width]."""
    names = [ParamName(f"unet.down_blocks.{i // 2}.attn2.to_{'kv'[i % 2]}.weight") for i in range(len(outs))]
    pairs = enumerate(zip(names, outs, strict=True))
    return {name: normal(seed + i, out, width) / math.sqrt(width) for i, (name, out) in pairs}


def moment(columns: torch.Tensor) -> Moment:
    found = Moment(columns.shape[0])
    found.add(columns.T)
    return found


@dataclass(frozen=True)
class World:
    """A model without a model: projections, what every prompt shares, retained and held-out embeddings."""

    width: int = WIDTH
    retained: int = 20
    seed: int = 1
    rule: RankRule = field(default_factory=lambda: RankRule("relative", 1e-9))
    dtype: torch.dtype = torch.float32
    outs: tuple[int, ...] = (40, 40, 120, 120)

    @cached_property
    def weights(self) -> dict[ParamName, torch.Tensor]:
        found = projections(self.seed, self.width, *self.outs)
        return {name: weight.to(self.dtype) for name, weight in found.items()}

    @cached_property
    def gram(self) -> torch.Tensor:
        return compute_gram_of(self.weights)

    @cached_property
    def reference(self) -> Reference:
        null, kept, held = (clip_like(self.seed * 1000 + i, n, self.width) for i, n in enumerate((5, self.retained, 8)))
        return Reference(null.T.contiguous(), moment(kept), moment(held))

    @cached_property
    def retained_columns(self) -> torch.Tensor:
        return clip_like(self.seed * 1000 + 1, self.retained, self.width)

    def basis(self, guarded: Iterable[torch.Tensor] = ()) -> ProtectedBasis:
        plain = build_protected_basis(self.reference.invariants, self.reference.retained, self.rule)
        return build_guarded_basis(plain, guarded, 0.9999)

    def columns(self, name: str, seed: int, count: int = 1) -> Columns:
        """A concept and its anchor; equal seeds give the same embeddings."""
        return Columns(name, clip_like(seed, count, self.width), clip_like(seed + 500, count, self.width))

    def erase(
        self,
        *concepts: Columns,
        guarded: Mapping[PatchId, torch.Tensor] | None = None,
        options: NullSpace | None = None,
        requires: tuple[PatchId, ...] = (),
    ) -> list[Patch]:
        """What a request would make of these, one patch each."""
        basis = self.basis((guarded or {}).values())
        solutions = erase(self.weights, concepts, basis, options or NullSpace())
        return [
            self.patch(columns, solution, basis, tuple(guarded or ()), requires)
            for columns, solution in zip(concepts, solutions, strict=True)
        ]

    def patch(
        self,
        columns: Columns,
        solution: Erasure,
        basis: ProtectedBasis,
        guarded: tuple[PatchId, ...] = (),
        requires: tuple[PatchId, ...] = (),
    ) -> Patch:
        targets, anchors = columns.targets.T.contiguous(), columns.anchors.T.contiguous()
        tensors = PatchTensors(solution.increments, basis.rows, basis.energy, targets, anchors)
        measured = Measurer(self.weights, self.reference).measure(solution, columns, basis)
        manifest = Manifest(
            ConceptSpec(columns.name, "anchor", "last", ("{}",)),
            EraserSpec("null-space", {"layers": "kv"}),
            self.base,
            ProtectedSpec(
                BasisSpec(sha256(tensors.files()["basis.safetensors"]), self.width, 5, basis.rank, str(self.rule), {}),
                RetainSpec("retain.txt", self.retained, sha256(b"retain")),
                patches=guarded,
            ),
            tensors.specs(),
            measured.decimals(free=solution.free, guarded=solution.guarded),
            requires=requires,
        )
        return Patch(manifest, tensors.arrays)

    @cached_property
    def base(self) -> BaseSpec:
        parameters = tuple(
            TensorIdentity(name, dtype_name(w.dtype), tuple(w.shape), digest_tensor(w))
            for name, w in sorted(self.weights.items())
        )
        whole = BaseIdentity(parameters, sha256(b"text encoder"), sha256(b"tokenizer"))
        return BaseSpec(whole.digest, parameters, whole.text_encoder, whole.tokenizer)


def sha256(data: bytes) -> Digest:
    return Digest(hashlib.sha256(data).hexdigest())


@dataclass(frozen=True)
class TinyBase:
    """A registered tiny model: its host, text encoder and identity."""

    host: CheckpointHost
    encoder: TextEncoder
    identity: BaseIdentity

    @classmethod
    def at(cls, folder: Path, spec: TinySpec | None = None) -> "TinyBase":
        """A new model at `folder`, of width 128 unless the spec says otherwise."""
        return cls.open(tiny_model(folder, spec or TinySpec(size="wide")))

    @classmethod
    def open(cls, folder: Path) -> "TinyBase":
        host = CheckpointHost.open(folder)
        encoder = TextEncoder.pristine(host)
        return cls(host, encoder, identify(host, encoder.tokenizer_state()))

    def build(self, request: EraseRequest) -> tuple[Patch, ...]:
        return build_patches(self.host, self.encoder, self.identity, request, lambda *_: None)


def tiny_request(*concepts: str, **changes: Any) -> EraseRequest:
    """A request that a tiny model of width 128, of which the null prompt takes 77, has room for."""
    targets = tuple(Target(concept, "cat") for concept in concepts or ("dog",))
    retain = RetainSet("retain.txt", ("photo", "tree", "house"))
    request = EraseRequest(
        targets,
        retain,
        templates=("a photo of a {}", "{}"),
        tokens="last",
        layers="kv",
        rule=RankRule("relative", 1e-2),
        eraser=NullSpace(ridge=1e-3, energy=0.999),
    )
    return replace(request, **changes)
