"""Judging erasures on the model whose pictures gave the limits: what is refused, what is said, what is offered."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.models.tiny import TinySpec, tiny_model

from rasura.patches.algebra.protected_subspace import Moment
from rasura.patches.algebra.rank_rule import RankRule
from rasura.patches.checks.erasing import DOUBTFUL, LEAST_SPREAD, Judgement, list_doubts
from rasura.patches.checks.policy import DEFAULT_POLICY, Policy
from rasura.patches.erasers.closed_form.joint.eraser import Joint
from rasura.patches.erasers.closed_form.rece import Rece
from rasura.patches.erasers.closed_form.uce import Uce
from rasura.patches.erasers.request import EraseRequest
from rasura.patches.errors import ErasureRefusedError
from rasura.patches.format.patch import Patch
from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.patches.models.base_identity import TEXT_LAYERS, find_cross_attention, identify
from rasura.patches.models.text_encoders.text_encoder import TextEncoder
from rasura.patches.prompts.concept_prompts import AUTO, Target
from rasura.patches.prompts.retain_set import RetainSet, load_retain_set
from rasura.patches.solving.judge_erasure import Judge, choose_anchors, judge_erasure
from rasura.patches.solving.solve import build_patches

REFERENCE = Path(__file__).parents[3] / "examples" / "reference_model"
TEMPLATES = ("{}", "a {}", "a picture of a {}")


@dataclass(frozen=True)
class Model:
    """A base, open, and what requests to it keep."""

    host: CheckpointHost
    encoder: TextEncoder
    retain: RetainSet
    moments: dict[str, Moment] = field(default_factory=dict)
    """What one test encodes, the next one need not."""

    @classmethod
    def load(cls, folder: Path, retain: RetainSet) -> "Model":
        return cls(CheckpointHost.open(folder), TextEncoder.load(folder), retain)

    def request(self, *targets: Target) -> EraseRequest:
        kept = self.retain.without([target.concept for target in targets])
        return EraseRequest(targets, kept, templates=TEMPLATES)

    def built(self, request: EraseRequest) -> tuple[Patch, ...]:
        identity = identify(self.host, self.encoder.tokenizer_state())
        return build_patches(self.host, self.encoder, identity, request, lambda *_: None, moments=self.moments)

    def judged(self, request: EraseRequest, policy: Policy = DEFAULT_POLICY) -> tuple[Judgement, ...]:
        return judge_erasure(self.host, self.encoder, request, self.built(request), policy)

    def chosen(self, request: EraseRequest, policy: Policy = DEFAULT_POLICY) -> list[str]:
        return [target.anchor for target in choose_anchors(self.host, self.encoder, request, policy).targets]


@pytest.fixture(scope="module")
def model() -> Model:
    if not (REFERENCE / "pipeline").is_dir():
        pytest.skip("needs examples/reference_model/pipeline, which the source distribution leaves out")
    return Model.load(REFERENCE / "pipeline", load_retain_set(REFERENCE / "retain.txt"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tiny_model(tmp_path_factory.mktemp("tiny") / "model", TinySpec(size="wide"))
    return Model.load(folder, RetainSet("retain.txt", ("painting", "a", "the")))


def test_what_draws_something_else_passes_without_a_word(model: Model) -> None:
    dog, car = model.judged(model.request(Target("dog", "frog"), Target("car", "airplane")))
    assert [(j.concept, j.anchor, j.known) for j in (dog, car)] == [("dog", "frog", True), ("car", "airplane", True)]
    assert max(dog.alike, car.alike) < DOUBTFUL
    # Mapped to the anchor, the target goes as far as the anchor is.
    assert dog.moved == pytest.approx(dog.apart, abs=0.05)
    assert list_doubts([dog, car]) == []


@pytest.mark.parametrize("anchor", ["animal", "big dog"])
def test_an_anchor_that_draws_the_target_is_refused_with_better_ones(model: Model, anchor: str) -> None:
    with pytest.raises(ErasureRefusedError, match=f"erasing 'dog' to '{anchor}' erases little or nothing") as caught:
        model.judged(model.request(Target("dog", anchor)))
    offered = caught.value.details["anchors"]
    assert isinstance(offered, list)
    assert 0 < len(offered) <= 3
    assert f"--concept dog --anchor {offered[0]} " in caught.value.hint
    (found,) = model.judged(model.request(Target("dog", offered[0])))
    assert list_doubts([found]) == []


def test_the_policy_says_how_like_an_anchor_may_be(model: Model) -> None:
    request = model.request(Target("dog", "frog"))
    with pytest.raises(ErasureRefusedError, match=r"limit 0\.1"):
        model.judged(request, Policy(alike=0.1))
    (near,) = model.judged(model.request(Target("dog", "animal")), Policy(alike=1.0))
    assert near.alike > DEFAULT_POLICY.alike
    assert any("pictures may show the target still" in doubt for doubt in list_doubts([near]))


def test_nothing_is_not_held_to_the_limit(model: Model) -> None:
    (found,) = model.judged(model.request(Target("apple", "")), Policy(alike=0.0))
    assert found.alike > 0
    assert list_doubts([found]) == []


def test_a_word_that_the_model_never_learnt_is_said_and_not_refused(model: Model) -> None:
    (found,) = model.judged(model.request(Target("neno", "cartoon")))
    assert not found.known
    assert found.alike > DEFAULT_POLICY.alike  # which says little of such a word
    (doubt, *_) = list_doubts([found])
    assert "hardly knows 'neno'" in doubt


def test_what_the_model_draws_is_known_and_slips_are_not(model: Model) -> None:
    """All 26 objects and 5 styles; of the slips of docs/gates.md, those that share no part with a learnt word."""
    known = json.loads((REFERENCE / "concepts.json").read_text())
    names = [n for n in find_cross_attention(model.host.parameters(), TEXT_LAYERS) if ".to_v." in n]
    judge = Judge.of(model.host, model.encoder, model.request(Target("dog", "cat")), names)
    scale = judge.scale
    assert scale is not None

    def spread(word: str) -> float:
        columns = judge.encode(word)
        assert columns is not None
        return scale.spread(columns)

    words = [*known["objects"], *known["styles"]]
    assert len(words) == 26 + 5
    assert {word: spread(word) for word in words if spread(word) < LEAST_SPREAD} == {}
    slips = ("dgo", "catt", "lionn", "pengiun", "roze", "cactis", "aple", "piza", "umbrela", "skul", "neno", "sketh")
    assert {word: spread(word) for word in (*slips, "bird", "horse") if spread(word) >= LEAST_SPREAD} == {}


def test_with_whole_prompts_to_keep_everyday_words_are_the_scale(model: Model) -> None:
    prompts = RetainSet("captions.csv", ("a picture of a cat", "a red car in a street", "two pigs"), whole=True)
    whole = replace(model, retain=prompts)
    with pytest.raises(ErasureRefusedError) as caught:
        whole.judged(whole.request(Target("dog", "big dog")))
    offered = caught.value.details["anchors"]
    assert isinstance(offered, list)
    assert not set(offered) & set(prompts.concepts)


def test_the_nearest_general_concept_that_draws_something_else(model: Model) -> None:
    request = model.request(Target("dog", AUTO), Target("car", "airplane"))
    assert model.chosen(replace(request, anchors=("animal", "frog", "airplane")))[1] == "airplane"
    assert model.chosen(replace(request, anchors=("animal", "frog")))[0] == "frog"
    assert model.chosen(replace(request, anchors=("animal", "frog")), Policy(alike=1.0))[0] == "frog"  # the safe one
    farther = replace(request, anchors=("animal", "frog"), eraser=Joint())  # which goes past its anchor
    assert model.chosen(farther, Policy(alike=1.0))[0] == "animal"
    assert model.chosen(farther)[0] == "frog"


def test_where_no_general_concept_will_do_the_retain_list_offers_some(model: Model) -> None:
    request = replace(model.request(Target("dog", AUTO)), anchors=("big dog", "black dog"))
    with pytest.raises(ErasureRefusedError, match="none of 2 general concepts draws something else"):
        model.chosen(request)


def test_named_anchors_stay(model: Model) -> None:
    request = model.request(Target("dog", "animal"))
    assert choose_anchors(model.host, model.encoder, request, DEFAULT_POLICY) is request


@pytest.mark.parametrize(("ridge", "passes"), [(0.5, True), (3e5, False), (1e6, False)])
def test_a_patch_that_leaves_its_target_where_it_was_is_refused(model: Model, ridge: float, passes: bool) -> None:
    request = replace(model.request(Target("dog", "frog")), eraser=Uce(ridge=ridge), layers="kv")
    if passes:
        (found,) = model.judged(request)
        assert found.moved is not None
        assert found.moved > DEFAULT_POLICY.moved
        return
    with pytest.raises(ErasureRefusedError, match=r"patch of 'dog' \(uce\) erases little") as caught:
        model.judged(request)
    assert caught.value.hint == "rasura erase --base MODEL --concept dog --anchor frog --retain FILE"
    (lenient,) = model.judged(request, Policy(moved=0.0))
    assert any("of the way to 'frog'" in doubt for doubt in list_doubts([lenient]))


def test_what_takes_the_tokens_that_were_asked_for_is_said_and_not_refused(tiny: Model) -> None:
    """Random weights read a word mostly behind it, where an erasure of its last token does nothing."""
    (found,) = tiny.judged(replace(tiny.request(Target("dog", "cat")), tokens="last", rule=RankRule.parse("count:4")))
    assert found.own == pytest.approx(1, abs=0.3)
    assert found.moved is not None
    assert found.short == any("of the way to 'cat'" in doubt for doubt in list_doubts([found]))


def test_a_patch_that_destroys_what_it_is_to_keep_is_refused(model: Model) -> None:
    """RECE that goes on for twenty epochs: no picture of the reference model shows what it was asked for then."""
    request = replace(model.request(Target("rose", "cactus")), eraser=Rece(epochs=20), layers="kv", tokens="last")
    with pytest.raises(ErasureRefusedError, match=r"patch of 'rose' \(rece\) destroys what it is to keep") as caught:
        model.judged(request)
    assert float(str(caught.value.details["leak"])) > DEFAULT_POLICY.leak
    (found,) = model.judged(request, Policy(leak=9.0))
    assert any("moves what it is to keep" in doubt for doubt in list_doubts([found]))


def test_a_default_that_does_too_little_is_told_a_coarser_rule(model: Model) -> None:
    request = model.request(Target("dog", "frog"))
    with pytest.raises(ErasureRefusedError, match=r"expected at least 0\.8") as caught:
        model.judged(request, Policy(moved=9.0))  # no patch goes farther than its anchor is
    assert f"--rank-rule {request.rule.coarser}" in caught.value.hint


def test_without_a_scale_only_the_way_is_judged_and_nothing_chosen(tiny: Model) -> None:
    request = replace(tiny.request(Target("dog", "cat")), rule=RankRule.parse("count:8"))
    (found,) = tiny.judged(request, Policy(alike=0.0))
    assert not found.scaled
    assert found.moved == pytest.approx(1, abs=0.2)
    (doubt,) = list_doubts([found])
    assert "fewer than 4 concepts are kept" in doubt
    with pytest.raises(ErasureRefusedError, match="erases little or nothing"):
        tiny.judged(replace(request, eraser=Uce(ridge=1e4), layers="kv"))
    assert tiny.chosen(replace(request, targets=(Target("dog", AUTO),))) == [AUTO]


@given(moved=st.floats(0, 3), apart=st.floats(0, 3), least=st.floats(0, 3))
def test_what_reaches_its_anchor_is_never_too_little(moved: float, apart: float, least: float) -> None:
    found = Judgement("dog", "car", apart, moved, 1.0)
    assert found.moves_at_least(least) == (moved >= least or moved >= apart)
    assert not (found.short and moved >= apart)
    assert replace(found, moved=None).moves_at_least(least)
    assert replace(found, own=least).moves_at_least(least)
    assert found.moves_at_least(least) <= replace(found, own=0.0).moves_at_least(least)


def test_doubts_are_said_of_what_is_doubtful_only() -> None:
    sure = Judgement("dog", "car", 1.0, 1.0, LEAST_SPREAD)
    near = replace(sure, apart=1 - DOUBTFUL - 0.01)
    assert list_doubts([sure]) == []
    assert [("near 'dog'" in doubt) for doubt in list_doubts([sure, near])] == [True]
    assert list_doubts([replace(near, anchor="")]) == []
    assert len(list_doubts([replace(near, spread=LEAST_SPREAD - 0.01)])) == 2
