"""Version 3 of the patch format: parameters that read the same other states and share rows and targets of these.

`UPDATE_GOLDENS=1 pytest tests/patches/format/test_format3.py` writes the vectors again; a changed vector is a changed
format, and needs another number.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.values import factories
from support.values.goldens import golden as first

from rasura.patches.checks.kernels.disturbance import measure_disturbance
from rasura.patches.checks.kernels.footprint import Footprint, spaces_of
from rasura.patches.checks.one_space import check_one_space
from rasura.patches.errors import BaseMismatchError, FormatError
from rasura.patches.format.manifest import Manifest
from rasura.patches.format.manifest_parts import TEXT, BaseSpec, TensorIdentity
from rasura.patches.format.member import Member
from rasura.patches.format.patch import BASIS, CONTENT, MANIFEST, Patch, read_folder
from rasura.patches.format.patch_tensors import Pairs, PatchTensors, Span
from rasura.patches.types import ParamName

VECTORS = Path(__file__).parents[2] / "vectors" / "patch_v3"
SPACE = "text_encoder_4.layers.5"
MAPS = tuple(ParamName(f"transformer.caption_projection.{i}.linear.weight") for i in (5, 6))
LONE = ParamName("transformer.caption_projection.7.linear.weight")
SPACES = {MAPS[0]: SPACE, MAPS[1]: SPACE}
READS = dict.fromkeys((*MAPS, LONE), "hidden")


def double(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def tensors() -> PatchTensors:
    """Two maps of one layer's states, one of another's, and those of the first format that read text."""
    base = first().tensors
    increments = {
        **base.increments,
        MAPS[0]: factories.exact_increment([[0, 2**22, 0, 0], [0, 0, -(2**20), 0]], [[1, 2], [3, 4], [5, 6]]),
        MAPS[1]: factories.exact_increment([[0, 2**21, 0, 0], [0, 0, 2**20, 0]], [[7, 8], [9, 1], [2, 3]]),
        LONE: factories.exact_increment([[0, 2**22, 0], [0, 0, 2**20]], [[1, 2], [3, 4], [5, 6]]),
    }
    kept = double([0.5])[0]
    return replace(
        base,
        increments=increments,
        spans={
            ParamName(SPACE): Span(double([1.0, 0.0, 0.0, 0.0]), kept),
            LONE: Span(double([1.0, 0.0, 0.0]), kept),
        },
        pairs={
            ParamName(SPACE): Pairs(double([0.0, 2.0, 1.0, 0.0]), double([0.0, 0.0, 0.0, 1.0])),
            LONE: Pairs(double([0.0, 2.0, 1.0]), double([0.0, 0.0, 1.0])),
        },
        spaces=SPACES,
    )


def patch_of(
    made: PatchTensors, reads: Mapping[ParamName, str], spaces: Mapping[ParamName, str], concept: str = ""
) -> Patch:
    old = first().manifest
    parameters = tuple(
        TensorIdentity(name, "F16", increment.shape, factories.sha256(name.encode()))
        for name, increment in sorted(made.increments.items())
    )
    protected = replace(
        old.protected,
        basis=replace(old.protected.basis, sha256=factories.sha256(made.files()[BASIS])),
        reads=reads,
        spaces=spaces,
    )
    manifest = replace(
        old,
        concept=replace(old.concept, text=concept or old.concept.text),
        base=BaseSpec(old.base.sha256, parameters, old.base.text_encoder, old.base.tokenizer),
        protected=protected,
        tensors=made.specs(),
    )
    return Patch(manifest, made.arrays)


def golden() -> Patch:
    return patch_of(tensors(), READS, SPACES)


def test_the_golden_patch_has_its_bytes() -> None:
    patch = golden()
    if os.environ.get("UPDATE_GOLDENS"):
        VECTORS.mkdir(exist_ok=True)
        for name, data in patch.files().items():
            (VECTORS / name).write_bytes(data)
        (VECTORS / "patch_id").write_text(patch.patch_id + "\n")
    assert read_folder(VECTORS) == patch.files()
    assert (VECTORS / "patch_id").read_text().strip() == patch.patch_id


def test_the_golden_patch_reads_back() -> None:
    found = Patch.from_files({name: (VECTORS / name).read_bytes() for name in CONTENT})
    assert found.manifest == golden().manifest
    assert found.files() == golden().files()
    assert found.manifest.version == 3
    assert found.manifest.separable
    for name in MAPS:
        assert torch.equal(found.tensors.pairs_of(name).targets, double([0.0, 2.0, 1.0, 0.0]))
        assert torch.equal(found.tensors.span_of(name).rows, double([1.0, 0.0, 0.0, 0.0]))
    assert torch.equal(found.tensors.span_of(factories.K).rows, first().tensors.protected)


def test_what_version_2_can_say_is_said_in_version_2() -> None:
    data = golden().manifest.to_bytes()
    with pytest.raises(FormatError, match="spaces"):
        Manifest.from_bytes(data.replace(b'"rasura-patch/3"', b'"rasura-patch/2"'))
    without = replace(golden().manifest, protected=replace(golden().manifest.protected, spaces={}))
    assert without.version == 2
    text = without.to_bytes().replace(b'"rasura-patch/2"', b'"rasura-patch/3"')
    with pytest.raises(FormatError, match="spaces"):
        Manifest.from_bytes(text)


def _moved(spans: dict[str, str], pairs: dict[str, str]) -> PatchTensors:
    """The same tensors under other owners."""
    made = tensors()
    return replace(
        made,
        spans={ParamName(spans.get(name, name)): own for name, own in made.spans.items() if spans.get(name) != ""},
        pairs={ParamName(pairs.get(name, name)): own for name, own in made.pairs.items() if pairs.get(name) != ""},
    )


BROKEN: dict[str, tuple[PatchTensors, dict[ParamName, str], dict[ParamName, str]]] = {
    "a space of what is not touched": (tensors(), READS, {**SPACES, ParamName("unet.other.weight"): SPACE}),
    "a space of what reads text": (tensors(), READS, {**SPACES, factories.K: SPACE}),
    "columns twice": (tensors(), READS, {**SPACES, LONE: SPACE}),
    "no columns": (_moved({}, {SPACE: ""}), READS, SPACES),
    "no rows": (_moved({SPACE: ""}, {}), READS, SPACES),
    "the name of a touched parameter": (
        _moved({SPACE: LONE}, {SPACE: LONE}), READS, {MAPS[0]: str(LONE), MAPS[1]: str(LONE)},
    ),
    "a space that is called as a touched parameter": (
        _moved({SPACE: "transformer.caption_projection.7.linear"}, {SPACE: "transformer.caption_projection.7.linear"}),
        READS,
        dict.fromkeys(MAPS, "transformer.caption_projection.7.linear"),
    ),
    "another width": (_moved({LONE: ""}, {LONE: ""}), READS, {**SPACES, LONE: SPACE}),
}  # fmt: skip


@pytest.mark.parametrize("flaw", BROKEN)
def test_patches_are_refused_that_have(flaw: str) -> None:
    made, reads, spaces = BROKEN[flaw]
    patch = patch_of(replace(made, spaces=spaces), reads, spaces)
    with pytest.raises(FormatError):
        Patch.from_files(patch.files())


def test_maps_of_one_space_are_weighed_together_whichever_another_patch_touches() -> None:
    """One patch of the first map and one of the second: each map's states are the other's, so they are one space."""
    both = golden()
    assert {space: len(names) for space, names in spaces_of(both).items()} == {TEXT: 2, SPACE: 2, LONE: 1}
    ones = []
    for name in MAPS:
        made = tensors()
        increments = {n: i for n, i in made.increments.items() if n != next(m for m in MAPS if m != name)}
        one = replace(made, increments=increments, spaces={name: SPACE})
        ones.append(patch_of(one, dict.fromkeys((name, LONE), "hidden"), {name: SPACE}, f"a concept of {name}"))
    prints = [Footprint.of(one) for one in ones]
    assert prints[0].on(prints[1]) > 0
    assert SPACE in prints[0].kernels.keys() & prints[1].kernels.keys()
    assert measure_disturbance(ones[0], ones[1]) is not None


def test_patches_that_call_the_states_of_one_map_otherwise_do_not_go_together() -> None:
    """What is compared with what follows from these names: under another, a patch would disturb nobody."""
    made = tensors()
    names = {"text_encoder_4.layers.5": "text_encoder_4.layers.6"}
    other = replace(_moved(names, names), spaces=dict.fromkeys(MAPS, names[SPACE]))
    odd = patch_of(other, READS, dict.fromkeys(MAPS, names[SPACE]), "another concept")
    with pytest.raises(BaseMismatchError, match=r"reads text_encoder_4\.layers\.5 by one of them"):
        check_one_space([Member(patch_of(made, READS, SPACES)), Member(odd)])
    check_one_space([Member(golden()), Member(patch_of(made, READS, SPACES, "another concept"))])


@given(st.lists(st.sampled_from(["a", "b"]), min_size=2, max_size=2))
def test_whoever_shares_a_space_shares_what_is_stored(names: list[str]) -> None:
    """However maps are put together: what is written is read back, and a space is written once."""
    made = tensors()
    pairs, span = made.pairs_of(MAPS[0]), made.span_of(MAPS[0])
    spaces = dict(zip(MAPS, names, strict=True))
    own = {ParamName(name) for name in names}
    wanted = replace(
        made,
        spans={LONE: made.spans[LONE], **dict.fromkeys(own, span)},
        pairs={LONE: made.pairs[LONE], **dict.fromkeys(own, pairs)},
        spaces=spaces,
    )
    patch = patch_of(wanted, READS, spaces)
    again = Patch.from_files(patch.files())
    assert again.patch_id == patch.patch_id
    assert again.files() == patch.files()
    assert sum(1 for t in again.manifest.tensors if t.tensor.name.endswith(".targets")) == 1 + len(own)
    for name in MAPS:
        assert torch.equal(again.tensors.pairs_of(name).targets, pairs.targets)
    assert b"rasura-patch/3" in again.files()[MANIFEST]
