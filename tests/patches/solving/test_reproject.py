"""A trained patch kept off further targets: exactly, without training, and with numbers that say what it costs."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from support.models.trainable import base, patches, quick, request, silent

from rasura.patches.checks.kernels.disturbance import measure_disturbance, measure_own_leak
from rasura.patches.erasers.interface import Reference
from rasura.patches.erasers.trained.all_but_one import AllButOne
from rasura.patches.erasers.trained.sepme import SepMe
from rasura.patches.errors import ErasureRefusedError
from rasura.patches.format.manifest import Manifest
from rasura.patches.format.patch import Patch
from rasura.patches.solving.from_manifest import request_prompts
from rasura.patches.solving.reproject import find_own_basis, reproject
from rasura.patches.solving.solve import references_of
from rasura.patches.types import ParamName, PatchId

OTHER = PatchId("a" * 64)


METHODS = {"sepme": SepMe, "all-but-one": AllButOne}


@cache
def trained(concept: str = "dog", method: str = "sepme", layers: str = "kv") -> Patch:
    (found,) = patches(request(quick(METHODS[method]), concept, tokens="last", layers=layers))
    return found


def weights(patch: Patch) -> dict[ParamName, torch.Tensor]:
    return base().host.originals(patch.tensors.increments)


@cache
def reference() -> Reference:
    asked = request_prompts([trained().manifest], None, ("photo",))
    return references_of(base().encoder, asked, trained().tensors.increments, silent)[""]


def beside(patch: Patch, *others: Patch) -> Patch:
    guarded = {other.patch_id: other.tensors.targets for other in others}
    return reproject(patch, guarded, weights(patch), reference())


@pytest.mark.parametrize("method", METHODS)
def test_the_other_targets_are_no_longer_seen(method: str) -> None:
    dog, of = trained("dog", method), trained("of")
    found = beside(dog, of)
    before, after = measure_disturbance(dog, of), measure_disturbance(found, of)
    assert before is not None
    assert after is not None
    assert before > 0.05
    assert after < 1e-4
    assert measure_own_leak(found) < 1e-5
    for name, increment in found.tensors.increments.items():
        old = dog.tensors.increments[name]
        assert increment.rank == old.rank
        # The same responses, behind what is left of each detector.
        V = found.tensors.protected[dog.tensors.protected.shape[0] :]
        expected = old.dense() - old.dense() @ V.T @ V
        assert float((increment.dense() - expected).norm() / old.dense().norm()) < 1e-4


def test_what_the_patch_says_of_itself() -> None:
    dog, of = trained("dog"), trained("of")
    found = beside(dog, of)
    manifest, old = found.manifest, dog.manifest
    assert manifest.supersedes == (dog.patch_id,)
    assert manifest.protected.patches == (of.patch_id,)
    assert manifest.eraser.options["derived"] == "projected"
    assert manifest.eraser.options["derived_from"] == dog.patch_id
    assert manifest.protected.basis.rank == old.protected.basis.rank + 1
    assert int(manifest.measured["guarded"]) == int(old.measured["guarded"]) + 1
    assert float(manifest.measured["free"]) < float(old.measured["free"])
    assert not {"change_l1", "dimensions_used"} & set(manifest.measured)  # these were of the training
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest
    assert Patch.from_files(found.files()).patch_id == found.patch_id


def test_a_second_time_it_holds_both() -> None:
    dog, of, photo = trained("dog"), trained("of"), trained("photo")
    twice = beside(beside(dog, of), photo)
    assert find_own_basis(twice).guards == 2
    assert twice.manifest.protected.patches == tuple(sorted((of.patch_id, photo.patch_id)))
    for other in (of, photo):
        assert (measure_disturbance(twice, other) or 1) < 1e-4


def test_what_is_held_already_costs_nothing() -> None:
    dog, of = trained("dog"), trained("of")
    once = beside(dog, of)
    again = beside(once, of)
    assert torch.equal(again.tensors.protected, once.tensors.protected)
    name = next(iter(once.tensors.increments))
    difference = (again.tensors.increments[name].dense() - once.tensors.increments[name].dense()).abs().max()
    assert float(difference) < 1e-6


def test_refusals() -> None:
    dog = trained("dog")
    with pytest.raises(ErasureRefusedError, match="lies inside the targets that are to be left alone"):
        beside(dog, replace_targets(trained("of"), dog.tensors.targets))
    everything = torch.eye(128, dtype=torch.float64)
    with pytest.raises(ErasureRefusedError, match="takes all 128 dimensions"):
        reproject(dog, {OTHER: everything}, weights(dog), reference())
    pictures = trained("dog", "all-but-one", "out")
    with pytest.raises(ErasureRefusedError, match="reads picture features"):
        beside(pictures, trained("of"))


def replace_targets(patch: Patch, targets: torch.Tensor) -> Patch:
    return replace(patch, arrays=replace(patch.tensors, targets=targets, anchors=targets).arrays)
