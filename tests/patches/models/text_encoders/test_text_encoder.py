"""SDXL reads two text encoders side by side: embeddings as diffusers makes them, tokens that both agree on, identity."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.models.tiny_xl import WIDTHS, tiny_xl, tiny_xl_pipeline, xl_tokenizers
from support.values.factories import TinyBase, tiny_request

from rasura.patches.erasers.catalogue import eraser
from rasura.patches.errors import ConceptError, NotFoundError, UnsupportedHostError
from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.patches.models.base_identity import identify
from rasura.patches.models.text_encoders.text_encoder import TextEncoder
from rasura.patches.prompts.concept_prompts import Target, align_columns, find_token_positions
from rasura.patches.solving.solve import build_patches
from rasura.patches.types import ParamName

PROMPTS = ["a photo of a dog", "", "van gogh", "a dog!", "photo " * 40]
FIRST, SECOND = WIDTHS


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_xl(tmp_path_factory.mktemp("xl") / "model")


@pytest.fixture(scope="module")
def base(folder: Path) -> TinyBase:
    return TinyBase.open(folder)


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> Any:
    return tiny_xl_pipeline(folder)


# --- Embeddings -------------------------------------------------------------------------------------------------------


def test_embeddings_are_those_of_the_pipeline_to_the_bit(base: TinyBase, pipeline: Any) -> None:
    with torch.no_grad():
        theirs = pipeline.encode_prompt(PROMPTS, device="cpu", do_classifier_free_guidance=False)[0]
    mine = base.encoder.encode_all(PROMPTS)
    assert mine.shape == (len(PROMPTS), 77, FIRST + SECOND) == (*theirs.shape[:2], base.encoder.width)
    assert torch.equal(mine, theirs.to(torch.float64))


def test_the_last_state_and_other_pads_would_be_other_embeddings(base: TinyBase, pipeline: Any) -> None:
    """What is easily got wrong gives finite numbers of the right shape, and a detector of nothing."""
    first, _ = xl_tokenizers()
    true = base.encoder.encode_all(["dog"])[0]
    for columns, encoder, tokenizer, state in (
        (slice(FIRST), pipeline.text_encoder, first, -1),  # the block that SDXL does not read
        (slice(FIRST, None), pipeline.text_encoder_2, first, -2),  # padded as for the first encoder
    ):
        ids = tokenizer(["dog"], padding="max_length", max_length=77, return_tensors="pt").input_ids
        with torch.no_grad():
            found = encoder(ids, output_hidden_states=True).hidden_states[state][0]
        assert found.shape == true[:, columns].shape
        assert float((found - true[:, columns]).norm() / true[:, columns].norm()) > 0.01


def test_the_null_prompt_has_begin_of_text_and_pads_of_both(base: TinyBase) -> None:
    null, prompt = base.encoder.encode_all(["", "a dog"])
    assert torch.equal(null[0], prompt[0])  # begin of text, in both halves
    first, second = null[1:, :FIRST], null[1:, FIRST:]
    assert torch.linalg.matrix_rank(torch.cat([first, second], dim=1)) <= 76
    assert not torch.equal(null[5], prompt[5])  # causal: pads know the prompt, in each half
    assert not torch.equal(null[5, :FIRST], prompt[5, :FIRST])
    assert not torch.equal(null[5, FIRST:], prompt[5, FIRST:])


# --- Tokens -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokens", "expected"), [("last", [6]), ("subject", [5, 6]), ("end", [*range(6, 77)]), ("tail", [*range(5, 77)])]
)
def test_positions_are_those_of_both_tokenizers(base: TinyBase, tokens: str, expected: list[int]) -> None:
    assert find_token_positions(base.encoder, "a photo of a van gogh", "van gogh", tokens) == expected


def test_the_end_of_text_stands_before_the_pads_of_either_kind(base: TinyBase) -> None:
    """The second tokenizer pads with "!", a token that a prompt may hold: an end found by the pad would be another."""
    _, second = xl_tokenizers()
    assert second.pad_token_id == 0 != second.eos_token_id
    assert second("dog !")["input_ids"][2] == 0
    assert find_token_positions(base.encoder, "dog !", "", "last") == [3]
    assert find_token_positions(base.encoder, "dog !", "dog", "end") == [*range(1, 77)]


def test_a_phrase_that_the_tokenizers_split_differently_is_refused(base: TinyBase) -> None:
    first, second = xl_tokenizers()
    assert len(first("dog!!")["input_ids"]) + 1 == len(second("dog!!")["input_ids"])
    for prompt, phrase in (("dog!!", "dog!!"), ("photo!! of dog", "dog"), ("dog!!", "")):
        with pytest.raises(ConceptError, match=r"for text_encoder and .* for text_encoder_2: expected the same"):
            base.encoder.places(prompt, phrase)
    assert base.encoder.subject("dog!!", "dog") == range(1, 2)  # where they part behind it, it stands in one place


def test_columns_are_pairs_of_whole_rows(base: TinyBase) -> None:
    C1, C_star = align_columns(base.encoder, Target("van gogh", "cat"), ["a {}"], "last")
    assert torch.equal(C1[:, 0], base.encoder.encode_all(["a van gogh"])[0, 3])
    assert torch.equal(C_star[:, 0], base.encoder.encode_all(["a cat"])[0, 2])


def test_a_prompt_is_as_long_as_both_read(base: TinyBase) -> None:
    assert len(base.encoder.ids("dog " * 75)) == 77
    with pytest.raises(ConceptError, match="has 78 tokens: expected at most 77"):
        base.encoder.ids("dog " * 76)
    with pytest.raises(ConceptError, match="has 78 tokens"):  # 76 for the first tokenizer, for which "!!" is one
        base.encoder.ids("dog " * 71 + "!! !! !")


# --- Identity ---------------------------------------------------------------------------------------------------------


def identified(folder: Path) -> Any:
    return TinyBase.open(folder).identity


def test_identity_names_both_encoders(base: TinyBase, tmp_path: Path) -> None:
    other = tiny_xl(tmp_path / "model")
    file = other / "text_encoder_2" / "model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if "layers.0.mlp.fc1.weight" in name)
    save_file({**tensors, name: tensors[name] + 1}, file, {"format": "pt"})
    found = identified(other)
    assert found.text_encoder != base.identity.text_encoder
    assert found.tokenizer == base.identity.tokenizer
    assert found.digest != base.identity.digest


@pytest.mark.parametrize("which", ["tokenizer", "tokenizer_2"])
def test_identity_names_both_tokenizers(base: TinyBase, tmp_path: Path, which: str) -> None:
    other = tiny_xl(tmp_path / "model")
    config = other / which / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"model_max_length": 60}))
    encoder = TextEncoder.pristine(CheckpointHost.open(other))
    found = identify(CheckpointHost.open(other), encoder.tokenizer_state())
    assert found.text_encoder == base.identity.text_encoder
    assert found.tokenizer != base.identity.tokenizer
    assert set(base.encoder.tokenizer_state()) == {"tokenizer", "tokenizer_2"}


def test_swapped_tokenizers_are_another_base(base: TinyBase, tmp_path: Path) -> None:
    other = tiny_xl(tmp_path / "model")
    (other / "tokenizer").rename(other / "t")
    (other / "tokenizer_2").rename(other / "tokenizer")
    (other / "t").rename(other / "tokenizer_2")
    assert identified(other).tokenizer != base.identity.tokenizer


@pytest.mark.parametrize("part", ["text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"])
def test_a_folder_without_one_of_them_is_refused(tmp_path: Path, part: str) -> None:
    other = tiny_xl(tmp_path / "model")
    host = CheckpointHost.open(other)
    shutil.rmtree(other / part)
    with pytest.raises(NotFoundError, match=f"has no {part}/ folder"):
        TextEncoder.pristine(host)


def test_encoders_are_read_as_they_were_before_a_patch(base: TinyBase, tmp_path: Path) -> None:
    other = tiny_xl(tmp_path / "model")
    host = CheckpointHost.open(other)
    name = ParamName("text_encoder_2.text_model.encoder.layers.0.mlp.fc2.weight")
    host.write({name: host.originals([name])[name] + 1})
    patched = CheckpointHost.open(other)
    assert identified(other) == base.identity
    assert torch.equal(TextEncoder.pristine(patched).encode_all(["dog"]), base.encoder.encode_all(["dog"]))
    assert not torch.equal(
        TextEncoder.load(other).encode_all(["dog"])[..., :FIRST], base.encoder.encode_all(["dog"])[..., :FIRST]
    )  # without the family, one encoder and its last state: a width that no layer here reads


# --- Erasing ----------------------------------------------------------------------------------------------------------

METHODS = {
    "null-space": ({"ridge": "0", "energy": "1", "rank_limit": "64"}, 1e-3),
    "speed": ({"ridge": "1e-6"}, 1e-2),
    "uce": ({"ridge": "1e-3", "preserve": "1e-3"}, 0.1),
    "rece": (
        {"first_ridge": "1e-3", "gamma": "1e-3"},
        1.2,
    ),  # noise has no concept that could come back: the second round swamps it
}


@pytest.mark.parametrize("method", METHODS)
def test_methods_that_work_on_embeddings_erase(base: TinyBase, method: str) -> None:
    settings, residual = METHODS[method]
    request = replace(tiny_request("dog"), eraser=eraser(method, settings))
    (patch,) = base.build(request)
    assert set(patch.tensors.increments) == {
        name for name in base.host.parameters() if name.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))
    }
    moved = asked = 0.0
    C1, C_star = align_columns(base.encoder, request.targets[0], request.templates, request.tokens)
    for name, increment in patch.tensors.increments.items():
        W = base.host.originals([name])[name].to(torch.float64)
        patched = W + increment.B.to(torch.float64) @ increment.A.to(torch.float64)
        moved += float((patched @ C1 - W @ C_star).square().sum())
        asked += float((W @ (C1 - C_star)).square().sum())
    assert (moved / asked) ** 0.5 < residual
    assert float(patch.manifest.measured["residual"]) == pytest.approx((moved / asked) ** 0.5, rel=0.01, abs=1e-5)


def test_what_is_protected_stays(base: TinyBase) -> None:
    request = replace(tiny_request("dog"), eraser=eraser("null-space", {"ridge": "0"}))
    (patch,) = base.build(request)
    null = base.encoder.encode_all([""])[0].T
    for name, increment in patch.tensors.increments.items():
        W = base.host.originals([name])[name].to(torch.float64)
        delta = increment.B.to(torch.float64) @ increment.A.to(torch.float64)
        assert float((delta @ null).norm() / (W @ null).norm()) < 1e-5
    assert float(patch.manifest.measured["leak_null"]) < 1e-5
    assert patch.manifest.base.text_encoder == base.identity.text_encoder
    assert patch.manifest.base.tokenizer == base.identity.tokenizer


def test_the_same_request_gives_the_same_patch(base: TinyBase, folder: Path) -> None:
    (one,), (two,) = base.build(tiny_request("dog")), TinyBase.open(folder).build(tiny_request("dog"))
    assert one.patch_id == two.patch_id


@pytest.mark.parametrize(
    ("method", "layers"), [("sepme", "kv"), ("all-but-one", "kv"), ("all-but-one", "out"), ("clip-null-space", "auto")]
)
def test_methods_that_draw_or_edit_the_encoder_are_refused(base: TinyBase, method: str, layers: str) -> None:
    request = replace(tiny_request("dog"), eraser=eraser(method, {}), layers=layers)
    with pytest.raises(UnsupportedHostError, match=f"method {method}: expected .* one CLIP") as caught:
        build_patches(base.host, base.encoder, base.identity, request, lambda *_: None)
    assert caught.value.details["encoders"] == ("text_encoder", "text_encoder_2")


def test_the_inside_of_one_encoder_is_not_that_of_two(base: TinyBase) -> None:
    for ask in (lambda: base.encoder.module, lambda: base.encoder.batch(["dog"])):
        with pytest.raises(UnsupportedHostError, match="one text encoder, got text_encoder, text_encoder_2"):
            ask()
