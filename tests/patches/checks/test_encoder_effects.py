"""A patch of SDXL's second text encoder moves what every layer reads: it is checked behind that encoder, too."""

from dataclasses import replace

import pytest
import torch
from support.models.tiny_xl import tiny_xl
from support.values.factories import TinyBase, tiny_request

from rasura.patches.algebra.compose import compose, layers_of
from rasura.patches.algebra.rank_rule import RankRule
from rasura.patches.algebra.strength import ONE
from rasura.patches.checks.across import reads_across_sites
from rasura.patches.checks.encoder_effects import Site, check_encoder_effects
from rasura.patches.checks.policy import Policy
from rasura.patches.erasers.text_encoder.clip_null_space import ClipNullSpace
from rasura.patches.format.member import Member
from rasura.patches.format.patch import Patch
from rasura.patches.hosts.live.torch_host import TorchHost
from rasura.patches.models.text_encoders.text_encoder import TextEncoder
from rasura.patches.prompts.concept_prompts import Target, align_columns
from rasura.patches.solving.solve import build_patches
from rasura.patches.types import ParamName

SECOND = "text_encoder_2."


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> TinyBase:
    return TinyBase.open(tiny_xl(tmp_path_factory.mktemp("xl") / "model"))


@pytest.fixture(scope="module")
def reader(base: TinyBase) -> Member:
    return Member(base.build(tiny_request("dog"))[0], ONE)


def renamed(name: str) -> ParamName:
    return ParamName(name.replace("text_encoder.", SECOND))


@pytest.fixture(scope="module")
def mover(base: TinyBase) -> Member:
    """Erases "painting" from the first layer of the second encoder, as a model with this one alone would have it."""
    tower = base.encoder.towers[1]
    host = TorchHost({"text_encoder": tower.module}, "one")
    request = replace(tiny_request("painting"), eraser=ClipNullSpace(), layers="0", rule=RankRule("count", 20))
    (patch,) = build_patches(
        host, TextEncoder.of_clip(tower.tokenizer, tower.module), base.identity, request, lambda *_: None
    )
    return Member(_of_second(patch), ONE)


def _of_second(patch: Patch) -> Patch:
    tensors, manifest = patch.tensors, patch.manifest
    tensors = replace(
        tensors,
        increments={renamed(name): own for name, own in tensors.increments.items()},
        spans={renamed(name): own for name, own in tensors.spans.items()},
        pairs={renamed(name): own for name, own in tensors.pairs.items()},
    )
    protected = replace(manifest.protected, reads={renamed(n): what for n, what in manifest.protected.reads.items()})
    parameters = tuple(replace(p, name=renamed(p.name)) for p in manifest.base.parameters)
    manifest = replace(
        manifest, base=replace(manifest.base, parameters=parameters), protected=protected, tensors=tensors.specs()
    )
    return Patch(manifest, tensors.arrays)


def test_what_the_second_encoder_does_to_a_reader_is_what_dense_arithmetic_gives(
    base: TinyBase, reader: Member, mover: Member
) -> None:
    stack = [reader, mover]
    assert all(name.startswith(SECOND) for name in mover.patch.tensors.increments)
    assert reads_across_sites(stack)
    names = [name for member in stack for name in member.patch.tensors.increments]
    originals = base.host.originals(names)
    site = Site(base.encoder, originals, lambda _: [""])
    found = check_encoder_effects(stack, Policy(pair=1e9, stack=1e9, own=1e9, site=1e9), site, lambda *_: None)
    (value,) = [r.value for r in found.relations if r.check == "site"]

    tower = base.encoder.towers[1]
    kept = {name: originals[name].clone() for name in mover.patch.tensors.increments}
    layers = layers_of([(mover.patch.tensors.increments, ONE)])
    concept = reader.patch.manifest.concept
    target = Target("dog", "cat")
    T, goal = align_columns(base.encoder, target, concept.templates, concept.tokens)
    live = TorchHost({"text_encoder_2": tower.module}, "two")
    live.write({layer.name: compose(kept[layer.name], layer.terms) for layer in layers})
    there, _ = align_columns(base.encoder, target, concept.templates, concept.tokens)
    live.write(kept)
    assert torch.equal(there[:64], T[:64])
    assert not torch.equal(there[64:], T[64:])
    left = []
    for X in (T, there):
        total = asked = 0.0
        for name, own in reader.patch.tensors.increments.items():
            W = originals[name].double()
            total += float(((W + own.dense()) @ X - W @ goal).square().sum())
            asked += float((W @ (goal - T)).square().sum())
        left.append((total / asked) ** 0.5)
    assert value == pytest.approx(max(0.0, left[1] - left[0]), rel=1e-4, abs=1e-6)
    assert value > 0
