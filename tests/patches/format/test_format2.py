"""Version 2 of the patch format: parameters with rows, targets and inputs of their own.

`UPDATE_GOLDENS=1 pytest tests/patches/format/test_format2.py` writes the vectors again; a changed vector is a changed
format, and needs another number.
"""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.values import factories
from support.values.dense import energy
from support.values.goldens import golden as first

from rasura.patches._io.safetensors_file import encode
from rasura.patches.checks.check import check, find_measured_only
from rasura.patches.errors import FormatError
from rasura.patches.format.manifest import Manifest
from rasura.patches.format.manifest_parts import BaseSpec, TensorIdentity
from rasura.patches.format.member import Member
from rasura.patches.format.patch import BASIS, CONTENT, MANIFEST, TARGETS, Patch, read_folder
from rasura.patches.format.patch_tensors import Pairs, PatchTensors, Span
from rasura.patches.types import ParamName

VECTORS = Path(__file__).parents[2] / "vectors" / "patch_v2"
FC2 = ParamName("text_encoder.text_model.encoder.layers.1.mlp.fc2.weight")
OUT = ParamName("unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0.weight")
V = factories.V


def double(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def golden() -> Patch:
    """One parameter that reads text with a promise of its own, one that reads hidden states, one that reads pictures."""
    base = first()
    increments = {
        **base.tensors.increments,
        FC2: factories.exact_increment([[0, 2**22, 0, 0], [0, 0, -(2**20), 0]], [[1, 2], [3, 4], [5, 6]]),
        OUT: factories.exact_increment([[2**21, 2**21], [1, -1]], [[7, 8], [9, 10]]),
    }
    tensors = replace(
        base.tensors,
        increments=increments,
        spans={
            V: Span(torch.zeros(0, 3, dtype=torch.float64), torch.zeros(0, dtype=torch.float64)),
            FC2: Span(double([1.0, 0.0, 0.0, 0.0]), double([0.5])[0]),
        },
        pairs={FC2: Pairs(double([0.0, 2.0, 1.0, 0.0]), double([0.0, 0.0, 0.0, 1.0]))},
    )
    return patch_of(base, tensors, {FC2: "hidden", OUT: "image"})


def patch_of(base: Patch, tensors: PatchTensors, reads: dict[ParamName, str]) -> Patch:
    parameters = tuple(
        TensorIdentity(name, "F16", increment.shape, factories.sha256(name.encode()))
        for name, increment in sorted(tensors.increments.items())
    )
    old = base.manifest
    protected = replace(
        old.protected,
        basis=replace(old.protected.basis, sha256=factories.sha256(tensors.files()[BASIS])),
        reads=reads,
    )
    manifest = replace(
        old,
        base=BaseSpec(old.base.sha256, parameters, old.base.text_encoder, old.base.tokenizer),
        protected=protected,
        tensors=tensors.specs(),
    )
    return Patch(manifest, tensors.arrays)


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
    assert found.manifest.version == 2
    assert not found.manifest.separable
    assert set(found.tensors.spans) == {V, FC2}
    assert set(found.tensors.pairs) == {FC2}
    assert torch.equal(found.tensors.pairs_of(FC2).targets, double([0.0, 2.0, 1.0, 0.0]))
    assert torch.equal(found.tensors.span_of(factories.K).rows, first().tensors.protected)


def test_what_version_1_can_say_is_said_in_version_1() -> None:
    assert first().manifest.version == 1
    assert b"rasura-patch/1" in first().files()[MANIFEST]
    assert b'"reads"' not in first().files()[MANIFEST]
    text = first().manifest.to_bytes().replace(b'"rasura-patch/1"', b'"rasura-patch/2"')
    with pytest.raises(FormatError, match="reads"):
        Manifest.from_bytes(text)
    with pytest.raises(FormatError, match="expected format 'rasura-patch/1', the lowest that can say this"):
        Manifest.from_bytes(text.replace(b'"retain":', b'"reads":{},"retain":'))


def test_a_version_2_patch_is_not_taken_for_version_1() -> None:
    data = golden().manifest.to_bytes().replace(b'"rasura-patch/2"', b'"rasura-patch/1"')
    with pytest.raises(FormatError, match="reads"):
        Manifest.from_bytes(data)


BROKEN: dict[str, dict[ParamName, str]] = {
    "text that is no text": {OUT: "image"},
    "a picture reader with targets": {FC2: "image", OUT: "image"},
    "a hidden reader without targets": {FC2: "hidden", OUT: "hidden"},
    "a text reader of another width": {FC2: "hidden"},
    "a parameter that is not touched": {FC2: "hidden", OUT: "image", ParamName("unet.other.weight"): "image"},
}


@pytest.mark.parametrize("flaw", BROKEN)
def test_patches_are_refused_that_have(flaw: str) -> None:
    with pytest.raises(FormatError):
        Patch.from_files(patch_of(first(), golden().tensors, BROKEN[flaw]).files())


def test_a_word_that_no_parameter_reads_is_refused() -> None:
    data = golden().manifest.to_bytes().replace(b'"hidden"', b'"sound"')
    with pytest.raises(FormatError, match="sound"):
        Manifest.from_bytes(data)


def test_tensors_of_a_parameter_need_each_other() -> None:
    files = golden().files()
    own = golden().arrays.by_file()[TARGETS]
    own.pop(f"{FC2.removesuffix('.weight')}.anchors")
    with pytest.raises(FormatError, match="expected tensors"):
        Patch.from_files({**files, TARGETS: encode(own, {"format": "pt"})})


def test_checks_read_each_parameters_own_inputs_and_leave_pictures_out() -> None:
    """K sees the text targets, fc2 its keys, to_out nothing that text could tell."""
    patch = golden()
    member = Member(patch)
    found = energy([member], lambda name, _: patch.tensors.pairs_of(name).targets.T)
    expected = sum(
        float((patch.tensors.increments[name].dense() @ patch.tensors.pairs_of(name).targets.T).square().sum())
        for name in (factories.K, V, FC2)
    )
    assert found == pytest.approx(expected**0.5, rel=1e-12)
    assert find_measured_only(patch) == tuple(sorted((V, OUT)))


def test_what_a_patch_does_elsewhere_is_no_business_of_a_patch_that_is_not_there() -> None:
    """A text patch knows no keys of fc2: the pair is judged on what both read."""
    wide, narrow = alone(golden()), alone(first(), concept="another")
    shares = {(r.patch, r.other): r.value for r in check([wide, narrow]).relations if r.check == "pair"}
    assert set(shares) == {(wide.patch_id, narrow.patch_id), (narrow.patch_id, wide.patch_id)}
    text = first().tensors.targets.T
    moved, effect = (
        sum(float((member.patch.tensors.increments[n].dense() @ text).square().sum()) for n in names)
        for member, names in ((wide, (factories.K, V)), (narrow, (factories.K, V)))
    )
    assert shares[wide.patch_id, narrow.patch_id] == pytest.approx((moved / effect) ** 0.5, rel=1e-12)


def alone(patch: Patch, concept: str = "") -> Member:
    said = patch.manifest.concept
    erased = replace(said, text=concept or said.text)
    return Member(replace(patch, manifest=replace(patch.manifest, concept=erased, requires=(), supersedes=())))
