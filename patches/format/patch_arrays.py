"""The numbers of a patch, and the three tensor files that hold them, each in its one encoding; without torch.

`rasura.patches.format.patch_tensors` has the same numbers as tensors.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final, Self

import numpy as np

from rasura.patches._io.arrays import Array, as_array, as_raw
from rasura.patches._io.safetensors_file import PATCH_LIMITS, decode_raw, encode, encode_header
from rasura.patches._io.tensor_bytes import RawValue, digest_tensor
from rasura.patches.algebra.increment import Increment
from rasura.patches.errors import FormatError
from rasura.patches.format.file_names import BASIS, TARGETS, WEIGHTS
from rasura.patches.format.manifest_parts import TensorIdentity, TensorSpec
from rasura.patches.types import Digest, ParamName

_SUFFIX: Final = ".weight"
_METADATA: Final = {"format": "pt"}
_ORTHONORMAL: Final = 1e-6
"""Most that a row may be off; what the erasers write is off by 1e-14."""
_FACTORS: Final = (".lora_A.weight", ".lora_B.weight")
# PEFT's spelling of feed-forward layers alone makes diffusers refuse the file; it reads its own older one everywhere.
_ENCODER_FACTORS: Final = (".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight")


@dataclass(frozen=True, slots=True, eq=False)
class SpanArrays:
    """What a parameter promises not to touch: orthonormal `rows` [k, d], and the prompts' `energy` [k]; float64."""

    rows: Array
    energy: Array


@dataclass(frozen=True, slots=True, eq=False)
class PairArrays:
    """Rows that stand for a concept's columns, and what they become: `targets` and `anchors` [m, d] float64."""

    targets: Array
    anchors: Array


@dataclass(frozen=True, slots=True, eq=False)
class PatchArrays:
    """The numbers of a patch.

    Attributes:
        increments: ΔW = B·A a parameter.
        protected: [k, d] float64 orthonormal rows that no detector may see.
        energy: [k] float64, mean squared component of protected prompts along each row.
        targets: [m, d] float64, rows that stand for the concept's columns.
        anchors: [m, d] float64, what they become.
        spans: what a parameter protects, where that is not `protected`.
        pairs: targets and anchors in a parameter's own input space, where that is not the text embedding.
        spaces: what the states are called that a parameter reads beside others: spans and pairs have them by that name.
    """

    increments: Mapping[ParamName, Increment]
    protected: Array
    energy: Array
    targets: Array
    anchors: Array
    spans: Mapping[ParamName, SpanArrays] = field(default_factory=dict)
    pairs: Mapping[ParamName, PairArrays] = field(default_factory=dict)
    spaces: Mapping[ParamName, str] = field(default_factory=dict)

    def space_of(self, name: ParamName) -> ParamName:
        """Under which name the columns stand that a parameter reads, if they are not the shared ones."""
        return ParamName(self.spaces.get(name, name))

    def span_of(self, name: ParamName) -> SpanArrays:
        """What a parameter promises not to touch."""
        owner = self.span_owner(name)
        return SpanArrays(self.protected, self.energy) if owner is None else self.spans[owner]

    def span_owner(self, name: ParamName) -> ParamName | None:
        """Whose rows are what a parameter promises: its own, its space's, or None for the shared ones."""
        return next((owner for owner in (name, self.space_of(name)) if owner in self.spans), None)

    def pairs_of(self, name: ParamName) -> PairArrays:
        """The concept's columns as a parameter reads them."""
        return self.pairs.get(self.space_of(name)) or PairArrays(self.targets, self.anchors)

    def files(self) -> dict[str, bytes]:
        """The three tensor files, in their one encoding."""
        return {name: encode(values, _METADATA) for name, values in self.by_file().items()}

    def by_file(self) -> dict[str, dict[str, RawValue]]:
        """Tensor name to value, for each file."""
        factors: dict[str, Array] = {}
        for name, increment in self.increments.items():
            down, up = _factor_keys(name.removesuffix(_SUFFIX))
            factors |= {down: increment.detector, up: increment.response}
        basis, targets = (
            {"rows": self.protected, "energy": self.energy},
            {"targets": self.targets, "anchors": self.anchors},
        )
        for name, span in self.spans.items():
            basis |= {_own(name, "rows"): span.rows, _own(name, "energy"): span.energy}
        for name, pairs in self.pairs.items():
            targets |= {_own(name, "targets"): pairs.targets, _own(name, "anchors"): pairs.anchors}
        named = {WEIGHTS: factors, BASIS: basis, TARGETS: targets}
        return {file: {name: as_raw(array) for name, array in arrays.items()} for file, arrays in named.items()}

    def specs(self) -> tuple[TensorSpec, ...]:
        """The manifest's list of every tensor, sorted by file and name."""
        return tuple(
            TensorSpec(file, TensorIdentity(ParamName(name), raw.dtype, raw.shape, digest_tensor(raw)))
            for file, values in sorted(self.by_file().items())
            for name, raw in sorted(values.items(), key=lambda pair: pair[0])
        )

    @classmethod
    def from_files(cls, files: Mapping[str, bytes], spaces: Mapping[ParamName, str] | None = None) -> Self:
        """Read the three tensor files strictly.

        Args:
            files: their bytes by name.
            spaces: which parameters read the same states, as the manifest says it.

        Raises:
            FormatError: anything but the one encoding of the expected tensors, in shapes that fit each other.
            AlgebraError: factors off the grid or out of range.
        """
        increments = _increments(_decode(files, WEIGHTS, frozenset({"F32"})))
        widths = {name: increment.shape[1] for name, increment in increments.items()}
        widths |= {ParamName(space): widths[name] for name, space in (spaces or {}).items() if name in increments}
        basis = _doubles(_decode(files, BASIS, frozenset({"F64"})), BASIS, ("rows", "energy"), widths)
        targets = _doubles(_decode(files, TARGETS, frozenset({"F64"})), TARGETS, ("targets", "anchors"), widths)
        (rows, energy), (goals, anchors) = basis.pop(None), targets.pop(None)
        spans = {name: SpanArrays(*own) for name, own in basis.items() if name}
        pairs = {name: PairArrays(*own) for name, own in targets.items() if name}
        found = cls(increments, rows, energy, goals, anchors, spans, pairs, spaces or {})
        width = int(rows.shape[-1])
        _check_span(SpanArrays(rows, energy), width)
        _check_pairs(PairArrays(goals, anchors), width)
        for name, span in spans.items():
            _check_span(span, widths[name])
        for name, own in pairs.items():
            _check_pairs(own, widths[name])
        return found


def _own(name: ParamName, part: str) -> str:
    return f"{name.removesuffix(_SUFFIX)}.{part}"


def _doubles(
    tensors: Mapping[str, Array], file: str, parts: tuple[str, str], owning: Collection[ParamName]
) -> dict[ParamName | None, tuple[Array, Array]]:
    """The shared pair of tensors under None, and those of single parameters and of spaces under their names."""
    named = {_own(name, part) for name in owning for part in parts}
    expected = {part for part in tensors if part in named} | set(parts)
    owners = [name for name in owning if _own(name, parts[0]) in tensors or _own(name, parts[1]) in tensors]
    expected |= {_own(name, part) for name in owners for part in parts}
    if set(tensors) != expected:
        raise FormatError(f"{file}: expected tensors {sorted(expected)[:6]}, got {sorted(tensors)[:6]}")
    found: dict[ParamName | None, tuple[Array, Array]] = {
        name: (tensors[_own(name, parts[0])], tensors[_own(name, parts[1])]) for name in owners
    }
    return {**found, None: (tensors[parts[0]], tensors[parts[1]])}


def _decode(files: Mapping[str, bytes], name: str, dtypes: frozenset[str]) -> dict[str, Array]:
    data = files[name]
    values = decode_raw(data, what=name, limits=PATCH_LIMITS, dtypes=dtypes)
    # The elements are all there is after it, without a hole: the header says where each is.
    if not data.startswith(encode_header(values, _METADATA)[0]):
        raise FormatError(f"{name}: expected the one deterministic encoding of its tensors, got other bytes")
    return {name: as_array(value) for name, value in values.items()}


def _increments(factors: Mapping[str, Array]) -> dict[ParamName, Increment]:
    downs = (_FACTORS[0], _ENCODER_FACTORS[0])
    stems = {key.removesuffix(down) for key in factors for down in downs if key.endswith(down)}
    expected = {key for stem in stems for key in _factor_keys(stem)}
    if not stems or set(factors) != expected:
        odd = sorted(set(factors) ^ expected)[:3]
        raise FormatError(f"{WEIGHTS}: expected pairs of factors and nothing else, got {odd}")
    pairs = {stem: _factor_keys(stem) for stem in sorted(stems)}
    return {ParamName(stem + _SUFFIX): Increment(factors[down], factors[up]) for stem, (down, up) in pairs.items()}


def _factor_keys(stem: str) -> tuple[str, str]:
    """What the detector and the response of a parameter STEM.weight are called in the file."""
    down, up = _ENCODER_FACTORS if stem.startswith("text_encoder") else _FACTORS
    return stem + down, stem + up


def _check_span(span: SpanArrays, width: int) -> None:
    rows = tuple(span.rows.shape)
    if len(rows) != 2 or rows[0] > rows[1] or tuple(span.energy.shape) != rows[:1]:  # noqa: PLR2004
        raise FormatError(f"{BASIS}: expected rows [k, d] and energy [k], got {rows} and {[*span.energy.shape]}")
    if bool((span.energy < 0).any()):
        raise FormatError(f"{BASIS}: expected energies of 0 or more, got a negative one")
    check_width(rows[1], width)


def _check_pairs(pairs: PairArrays, width: int) -> None:
    targets = tuple(pairs.targets.shape)
    if len(targets) != 2 or 0 in targets or pairs.anchors.shape != pairs.targets.shape:  # noqa: PLR2004
        raise FormatError(
            f"{TARGETS}: expected targets and anchors [m, d], got {targets} and {tuple(pairs.anchors.shape)}"
        )
    check_width(targets[1], width)


def check_rows(span: SpanArrays, seed: Digest) -> None:
    """Refuse protected rows that protect less than their number says: not orthonormal, or of no energy at all.

    U·Uᵀ = 1 is tested on two vectors that are drawn from the file's own digest, which nobody can choose, so that it
    costs O(k·d).

    Raises:
        FormatError: they do.
    """
    if span.rows.shape[0] == 0:
        return
    if not bool((span.energy > 0).any()):
        raise FormatError(f"{BASIS}: expected some energy of protected rows above 0, got none: nothing is promised")
    probe = np.random.default_rng(int(seed[:15], 16)).standard_normal((span.rows.shape[0], 2))  # [k, 2]
    if not bool(np.allclose(span.rows @ (span.rows.T @ probe), probe, rtol=0, atol=_ORTHONORMAL)):
        raise FormatError(f"{BASIS}: expected orthonormal rows, got others: they protect less than they say")


def check_width(found: int, expected: int) -> None:
    """Refuse embeddings of different widths in one patch.

    Raises:
        FormatError: they differ.
    """
    if found != expected:
        raise FormatError(f"the patch: expected one width of embeddings in all its files, got {found} and {expected}")
