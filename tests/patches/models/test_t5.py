"""SD3, FLUX and PixArt read T5: embeddings as diffusers makes them, what knows a concept, and erasing."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from support.full import some
from support.models.tiny_t5 import NAMES, T5_WIDTH, t5_tokenizer, tiny_t5, tiny_t5_pipeline
from support.models.tiny_xl import WIDTHS
from support.values.factories import TinyBase, tiny_request

from rasura.patches.erasers.catalogue import eraser
from rasura.patches.errors import ConceptError, UnsupportedHostError
from rasura.patches.prompts.concept_prompts import Target, align_columns, find_token_positions

PROMPTS = ["a photo of a dog", "", "van gogh", "Dog", "a cat, a dog!"]
LENGTHS = {"SD3": 77 + 256, "FLUX": 512, "PixArt": 120}
READS = {
    "SD3": {"transformer.context_embedder.weight"},
    "FLUX": {"transformer.context_embedder.weight"},
    "PixArt": {"transformer.caption_projection.linear_1.weight"},
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TinyBase]:
    return {name: TinyBase.open(tiny_t5(tmp_path_factory.mktemp("t5") / name, name)) for name in NAMES}


def theirs(pipeline: Any, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """What diffusers gives the denoiser for the prompts, and which positions it lets it read [n, length]."""
    every = torch.ones(len(PROMPTS), LENGTHS[name], dtype=torch.int64)
    with torch.no_grad():
        if name == "SD3":
            found = pipeline.encode_prompt(PROMPTS, None, None, do_classifier_free_guidance=False)[0]
        elif name == "FLUX":
            found = pipeline.encode_prompt(PROMPTS, None)[0]
        else:
            found, every, *_ = pipeline.encode_prompt(PROMPTS, do_classifier_free_guidance=False)
    return found, every


# --- Embeddings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_embeddings_are_those_of_the_pipeline_to_the_bit(bases: dict[str, TinyBase], name: str) -> None:
    base = bases[name]
    found, read = theirs(tiny_t5_pipeline(base.host.folder, name), name)
    mine = base.encoder.encode_all(PROMPTS)
    assert mine.shape == (len(PROMPTS), LENGTHS[name], T5_WIDTH) == (*found.shape[:2], base.encoder.width)
    seen = read.bool()
    assert torch.equal(mine[seen], found[seen].to(torch.float64))
    assert not mine[~seen].any()
    assert bool((~seen).any()) == (name == "PixArt")


def test_the_clips_of_sd3_stand_before_t5_and_are_padded_with_zeros(bases: dict[str, TinyBase]) -> None:
    mine = bases["SD3"].encoder.encode_all(["a dog"])[0]
    assert not mine[:77, sum(WIDTHS) :].any()
    assert mine[77:, sum(WIDTHS) :].any()


def test_the_number_of_pads_decides_what_t5_gives(bases: dict[str, TinyBase]) -> None:
    """Without a mask, pads are read like words: 256 of them, as for SD3, would give FLUX other embeddings."""
    tower = bases["FLUX"].encoder.towers[0]
    ids = [
        t5_tokenizer()(["dog"], padding="max_length", max_length=n, return_tensors="pt").input_ids for n in (512, 256)
    ]
    with torch.no_grad():
        long, short = (tower.module(input_ids=some).last_hidden_state[0, 0] for some in ids)
    assert torch.equal(long.double(), bases["FLUX"].encoder.encode_all(["dog"])[0, 0])
    assert float((long - short).norm() / long.norm()) > 1e-3


# --- Tokens -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "tokens", "expected"),
    [
        ("FLUX", "last", [4]),
        ("FLUX", "subject", [3, 4]),
        ("FLUX", "end", [*range(4, 512)]),
        ("FLUX", "tail", [*range(512)]),
        ("PixArt", "subject", [3, 4]),
        ("PixArt", "end", [4, 5]),
        ("PixArt", "tail", [*range(6)]),
        ("SD3", "last", [5, 77 + 4]),
        ("SD3", "subject", [4, 5, 77 + 3, 77 + 4]),
        ("SD3", "tail", [*range(4, 77), *range(77, 77 + 256)]),
    ],
)
def test_positions(bases: dict[str, TinyBase], name: str, tokens: str, expected: list[int]) -> None:
    assert find_token_positions(bases[name].encoder, "a photo of van gogh", "van gogh", tokens) == expected


@pytest.mark.parametrize("name", NAMES)
def test_t5_looks_ahead_and_clip_does_not(bases: dict[str, TinyBase], name: str) -> None:
    """So `tail` begins at the prompt's start where a T5 reads it: the words before the subject know it, too."""
    dog, cat = bases[name].encoder.encode_all(["a photo of dog", "a photo of cat"])
    differs = (dog - cat).norm(dim=1) > 1e-5
    known = set(find_token_positions(bases[name].encoder, "a photo of dog", "dog", "tail"))
    assert {i for i, different in enumerate(differs.tolist()) if different} <= known
    assert bool(differs[77 if name == "SD3" else 0])


def test_columns_never_pair_what_is_hidden(bases: dict[str, TinyBase]) -> None:
    """A longer concept has more rows than its anchor; the anchor's hidden ones are no goal, they are zeros."""
    for target in (Target("van gogh", "cat"), Target("cat", "van gogh"), Target("cat", "")):
        for tokens in ("last", "subject", "end", "tail"):
            columns = align_columns(bases["PixArt"].encoder, target, ["a photo of {}", "{}"], tokens)
            assert all(bool((part.norm(dim=0) > 0).all()) for part in columns)


def test_pixart_reads_lower_case(bases: dict[str, TinyBase]) -> None:
    encoder = bases["PixArt"].encoder
    assert encoder.subject("A photo of DOG", "Dog") == encoder.subject("a photo of dog", "dog")
    with pytest.raises(ConceptError, match="does not stand in"):
        bases["FLUX"].encoder.subject("a photo of dog", "Dog")


# --- Erasing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "method"),
    some(
        [("SD3", "null-space"), ("PixArt", "null-space"), ("FLUX", "speed"), ("PixArt", "uce")],
        [(name, method) for name in NAMES for method in ("null-space", "speed", "uce")],
    ),
)
def test_a_concept_becomes_its_anchor(bases: dict[str, TinyBase], name: str, method: str) -> None:
    settings = {"null-space": {"ridge": "1e-6", "energy": "1", "rank_limit": "64"}, "uce": {"ridge": "1e-3"}}
    base = bases[name]
    request = replace(
        tiny_request("dog"), eraser=eraser(method, settings.get(method, {"ridge": "1e-6"})), layers="text"
    )
    (patch,) = base.build(request)
    assert set(patch.tensors.increments) == READS[name]
    C1, C_star = align_columns(base.encoder, request.targets[0], request.templates, "last")
    null = base.encoder.encode_all([""])[0].T
    for key, own in patch.tensors.increments.items():
        W, delta = base.host.originals([key])[key].double(), own.dense().double()
        assert float(((W + delta) @ C1 - W @ C_star).norm() / (W @ (C1 - C_star)).norm()) < 0.1
        if method == "null-space":
            assert float((delta @ null).norm() / (W @ null).norm()) < 1e-4
    assert patch.manifest.base.text_encoder == base.identity.text_encoder


@pytest.mark.parametrize("name", [name for name in NAMES if name != "PixArt"])  # whose keys and values read text alone
def test_keys_and_values_are_asked_for_by_another_name(bases: dict[str, TinyBase], name: str) -> None:
    with pytest.raises(UnsupportedHostError, match=r"whose text enters through") as caught:
        bases[name].build(replace(tiny_request("dog"), layers="v"))
    assert caught.value.hint == "rasura erase --base MODEL --concept TEXT --layers text"


def test_keys_and_values_behind_a_projection_are_erased(bases: dict[str, TinyBase]) -> None:
    (patch,) = bases["PixArt"].build(replace(tiny_request("dog"), layers="v"))
    assert all(name.endswith("attn2.to_v.weight") for name in (p.name for p in patch.manifest.base.parameters))
    assert patch.manifest.base.through


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method", ["sepme", "all-but-one", "clip-null-space"])
def test_methods_that_draw_or_edit_the_encoder_are_refused(bases: dict[str, TinyBase], name: str, method: str) -> None:
    layers = "auto" if method == "clip-null-space" else "text"
    with pytest.raises(UnsupportedHostError, match=f"method {method}: expected .* one CLIP"):
        bases[name].build(replace(tiny_request("dog"), eraser=eraser(method, {}), layers=layers))


def test_no_start_of_text_stands_for_nothing_where_encoders_follow_each_other(bases: dict[str, TinyBase]) -> None:
    """The first row of SD3's null prompt is CLIP's: as the goal of a T5 row it would be a vector of another space."""
    target = Target("dog", "")
    request = replace(tiny_request("dog"), targets=(target,), layers="text", tokens="last")
    start = replace(request, eraser=eraser("speed", {"mode": "code", "ridge": "1e-6"}))
    with pytest.raises(UnsupportedHostError, match="one start of text"):
        bases["SD3"].build(start)
    assert bases["FLUX"].build(start)
    assert bases["SD3"].build(replace(request, eraser=eraser("speed", {"ridge": "1e-6"})))


def test_identity_names_every_encoder_and_tokenizer(bases: dict[str, TinyBase]) -> None:
    assert set(bases["SD3"].encoder.tokenizer_state()) == {"tokenizer", "tokenizer_2", "tokenizer_3"}
    state = bases["FLUX"].encoder.tokenizer_state()
    assert (state["length"], state["special"]) == (512, [1, 0])
    assert all(isinstance(score, str) for _, score in state["vocab"])
