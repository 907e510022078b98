"""Prompts and tokens: which positions stand for a concept, and what no prompt can name."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.models.tiny import TinySpec, tiny_components, tiny_model
from support.values import factories

from rasura.patches.errors import ConceptError, NotFiniteError, NotFoundError, RasuraError, UnsupportedHostError
from rasura.patches.models.text_encoders.plain_text import normal
from rasura.patches.models.text_encoders.text_encoder import BATCH, TextEncoder
from rasura.patches.prompts.concept_prompts import (
    GENERIC_TEMPLATES,
    HELD_OUT,
    Target,
    align_columns,
    check_concept,
    check_template,
    prompts_of,
)

CONTROL = ["a\x00b", "a\nb", "a\tb", "\x1b[31m", "a\x7f", "a\x85b", "a\u2028b", "a\u2029b", "\ud800", "a\udcffb"]


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    parts = tiny_components()
    return TextEncoder.of_clip(parts["tokenizer"], parts["text_encoder"])


# --- Words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", " ", "\u00a0", "\u3000 ", *CONTROL])
def test_concepts_that_no_prompt_can_name_are_refused(text: str) -> None:
    for make in (check_concept, lambda t: Target(t, "cat")):
        with pytest.raises(ConceptError) as caught:
            make(text)
        assert caught.value.hint == "--concept TEXT"
        caught.value.message.encode()  # printable, whatever was typed


@pytest.mark.parametrize("text", ["Van Gogh", "犬", "naïve art", "R2-D2", "it's", "a" * 500, "👩\u200d🎨"])
def test_concepts_of_any_script_are_accepted(text: str) -> None:
    check_concept(text)


EQUAL = [("dog", "dog"), ("Dog", "dOG"), ("dog", " dog  "), ("van gogh", "Van\u00a0 Gogh"), ("café", "cafe\u0301")]


@pytest.mark.parametrize(("concept", "anchor"), [*EQUAL, ("STRASSE", "straße")])
def test_a_concept_that_equals_its_anchor_is_refused(concept: str, anchor: str) -> None:
    with pytest.raises(ConceptError, match="equals its anchor") as caught:
        Target(concept, anchor)
    assert caught.value.hint == "--anchor TEXT"


def test_one_text_in_place_of_names_is_refused_before_its_letters_are_names() -> None:
    with pytest.raises(ConceptError, match=r"are one text: expected a tuple such as \('puppy',\)"):
        Target("dog", "cat", names="puppy")  # type: ignore[arg-type]


def test_an_empty_anchor_is_the_words_around() -> None:
    assert Target("dog", "").anchor == ""
    assert prompts_of("", ("a photo of a {}", "{} style", "{}")) == ("a photo of a", "style", "")


@pytest.mark.parametrize("anchor", CONTROL)
def test_an_anchor_of_control_characters_is_refused(anchor: str) -> None:
    with pytest.raises(ConceptError):
        Target("dog", anchor)


@pytest.mark.parametrize("template", ["", "a photo", "{} and {}", "{}{}", "{ }", "{0}", "{}\n", "a {}\x00"])
def test_templates_hold_one_slot(template: str) -> None:
    with pytest.raises(ConceptError):
        check_template(template)
    for good in (*GENERIC_TEMPLATES, "{{}", "{} 100 %"):
        check_template(good)


def test_our_own_words_are_good() -> None:
    for word in HELD_OUT:
        check_concept(word)
    assert len({normal(word) for word in HELD_OUT}) == len(HELD_OUT)


# --- Tokens -----------------------------------------------------------------------------------------------------------

PLACES = [
    ("a photo of a dog", "dog", [5]),
    ("van gogh", "van gogh", [1, 2]),
    ("painting of van gogh", "Van Gogh", [3, 4]),
    ("dog dog dog", "dog", [3]),  # the last one
    ("photo of", "", [3]),  # end of text
    ("", "", [1]),
]


@pytest.mark.parametrize(("prompt", "phrase", "expected"), PLACES)
def test_subjects_are_found(encoder: TextEncoder, prompt: str, phrase: str, expected: list[int]) -> None:
    words = {"a": 1, "photo": 1, "of": 1}
    assert len(encoder.ids(prompt)) == 2 + sum(words.get(word, 1) for word in prompt.split())
    assert list(encoder.subject(prompt, phrase)) == expected


@pytest.mark.parametrize(
    ("prompt", "phrase"), [("dogx", "dog"), ("dogs", "dog"), ("cat", "dog"), ("van x gogh", "van gogh")]
)
def test_a_subject_that_the_prompt_hides_is_refused(encoder: TextEncoder, prompt: str, phrase: str) -> None:
    with pytest.raises(ConceptError, match="as tokens of its own") as caught:
        encoder.subject(prompt, phrase)
    assert caught.value.hint == "--template '{}'"


def test_77_tokens_are_read_and_78_refused(encoder: TextEncoder) -> None:
    most = " ".join(["dog"] * 75)
    assert encoder.length == 77
    assert len(encoder.ids(most)) == 77
    assert encoder.encode_all([most]).shape == (1, 77, 64)
    for act in (encoder.ids, lambda prompt: encoder.encode_all(["cat", prompt])):
        with pytest.raises(ConceptError, match="has 78 tokens: expected at most 77") as caught:
            act(most + " dog")
        assert len(caught.value.message) < 200


def test_a_megabyte_of_words_is_refused_with_a_short_message(encoder: TextEncoder) -> None:
    with pytest.raises(ConceptError) as caught:
        encoder.ids("dog " * 250_000)
    assert len(caught.value.message) < 200


@pytest.mark.parametrize("prompt", CONTROL)
def test_prompts_of_control_characters_never_reach_the_tokenizer(encoder: TextEncoder, prompt: str) -> None:
    with pytest.raises(ConceptError):
        encoder.encode_all([prompt])


# --- Embeddings -------------------------------------------------------------------------------------------------------


def test_embeddings_are_those_of_the_pipeline(encoder: TextEncoder) -> None:
    """Float32 model, float64 result, padded to 77, no attention mask, after the final layer norm."""
    parts = tiny_components()
    ids = parts["tokenizer"](["a dog", ""], padding="max_length", max_length=77, return_tensors="pt").input_ids
    with torch.no_grad():
        expected = parts["text_encoder"](ids)[0]
    found = encoder.encode_all(["a dog", ""])
    assert found.dtype == torch.float64
    assert torch.equal(found, expected.double())


def test_batches_are_fixed_and_prompts_are_taken_as_they_are_needed(encoder: TextEncoder) -> None:
    taken: list[int] = []

    def counted() -> Iterator[str]:
        for i in range(BATCH + 3):
            taken.append(i)
            yield "dog"

    batches = encoder.encode(counted())
    assert next(batches).shape == (BATCH, 77, 64)
    assert len(taken) == BATCH
    assert [hidden.shape for hidden in batches] == [(3, 77, 64)]


def test_embeddings_that_are_not_finite_are_refused() -> None:
    parts = tiny_components()
    with torch.no_grad():
        parts["text_encoder"].final_layer_norm.weight[3] = float("nan")
    with pytest.raises(NotFiniteError, match="text encoder gives NaN"):
        TextEncoder.of_clip(parts["tokenizer"], parts["text_encoder"]).encode_all(["dog"])


COLUMNS = {
    # tokens, concept, anchor → position of the target, position of the anchor
    ("last", "van gogh", "dog"): [(2, 1)],
    ("subject", "van gogh", "dog"): [(1, 1), (2, 1)],
    ("subject", "dog", "van gogh"): [(1, 2)],
    ("subject", "van gogh", "photo of"): [(1, 1), (2, 2)],
    ("subject", "van gogh", "photo of dog"): [(1, 2), (2, 3)],
    ("subject", "photo of dog", "van gogh"): [(1, 1), (2, 1), (3, 2)],
    ("last", "dog", ""): [(1, 1)],
    ("tail", "dog", "cat"): [(1, 1)] + [(1 + j, 1 + j) for j in range(1, 76)],
    ("tail", "van gogh", "dog"): [(1, 1), (2, 1)] + [(2 + j, 1 + j) for j in range(1, 75)],
    ("tail", "dog", "van gogh"): [(1, 2)] + [(1 + j, 2 + j) for j in range(1, 75)],
}


@pytest.mark.parametrize(("tokens", "concept", "anchor"), COLUMNS)
def test_tokens_are_paired(encoder: TextEncoder, tokens: str, concept: str, anchor: str) -> None:
    """By distance from the last subject token; an anchor's first token stands in for those that it lacks."""
    C1, C_star = align_columns(encoder, Target(concept, anchor), ("{}",), tokens)
    source, goal = encoder.encode_all([concept, anchor])
    pairs = COLUMNS[tokens, concept, anchor]
    assert torch.equal(C1, source[[a for a, _ in pairs]].T)
    assert torch.equal(C_star, goal[[b for _, b in pairs]].T)


def test_templates_add_columns(encoder: TextEncoder) -> None:
    C1, C_star = align_columns(encoder, Target("dog", "cat"), ("{}", "photo of {}"), "last")
    assert C1.shape == C_star.shape == (64, 2)
    assert torch.equal(C1[:, 1], encoder.encode_all(["photo of dog"])[0, 3])


# --- Loading ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("concepts") / "model")


def _without_a_tensor(model: Path) -> None:
    file = model / "text_encoder" / "model.safetensors"
    tensors = load_file(file)
    del tensors[min(tensors)]
    save_file(tensors, file, {"format": "pt"})


def _narrower(model: Path) -> None:
    file = model / "text_encoder" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"hidden_size": 32}))


def _tokenizers(text: str) -> Callable[[Path], None]:
    def write(model: Path) -> None:
        for path in (model / "tokenizer").iterdir():
            path.write_text(text)

    return write


def _put(name: str, data: bytes) -> Callable[[Path], None]:
    def write(model: Path) -> None:
        (model / name).write_bytes(data)

    return write


def _untokenized(model: Path) -> None:
    shutil.rmtree(model / "tokenizer")
    (model / "tokenizer").mkdir()


def _unweighted(model: Path) -> None:
    (model / "text_encoder" / "model.safetensors").unlink()


BROKEN: dict[str, Callable[[Path], object]] = {
    "lacks a tensor": _without_a_tensor,
    "has weights of another shape": _narrower,
    "has no weights": _unweighted,
    "has weights that are none": _put("text_encoder/model.safetensors", b"abc" * 99),
    "has half its weights": lambda model: _put(
        "text_encoder/model.safetensors", (model / "text_encoder" / "model.safetensors").read_bytes()[:-9]
    )(model),
    "has a pickle only": lambda model: (model / "text_encoder" / "model.safetensors").rename(
        model / "text_encoder" / "pytorch_model.bin"
    ),
    "has a configuration that is no JSON": _put("text_encoder/config.json", b"{"),
    "has a configuration that is a list": _put("text_encoder/config.json", b"[]"),
    "has an empty tokenizer folder": _untokenized,
    "has tokenizer files that are empty": _tokenizers(""),
    "has tokenizer files that are lists": _tokenizers("[]"),
    "has tokenizer files that say nothing": _tokenizers("{}"),
}


@pytest.mark.parametrize("flaw", BROKEN)
def test_a_model_is_refused_whose_text_encoder(flaw: str, folder: Path, tmp_path: Path) -> None:
    """Rather than one whose missing parts the library fills with noise."""
    model = shutil.copytree(folder, tmp_path / "model")
    BROKEN[flaw](model)
    with pytest.raises(UnsupportedHostError):
        TextEncoder.load(model)


@pytest.mark.parametrize("part", ["tokenizer", "text_encoder"])
def test_a_folder_without_a_part_is_refused(part: str, folder: Path, tmp_path: Path) -> None:
    model = shutil.copytree(folder, tmp_path / "model")
    shutil.rmtree(model / part)
    with pytest.raises(NotFoundError, match=f"no {part}/ folder") as caught:
        TextEncoder.load(model)
    assert caught.value.hint == "rasura base add DIR"
    with pytest.raises(RasuraError):
        TextEncoder.load(tmp_path / "nothing")


def test_half_precision_and_variants_are_read_in_float32(tmp_path: Path) -> None:
    plain, variant = (
        TextEncoder.load(tiny_model(tmp_path / str(name), TinySpec(dtype="float16", variant=name)))
        for name in (None, "fp16")
    )
    one, other = plain.encode_all(["dog"]), variant.encode_all(["dog"])
    assert torch.equal(one, other)
    assert not torch.equal(one, one.half().double())


def test_the_tokenizers_state_tells_tokenizers_apart(folder: Path, encoder: TextEncoder) -> None:
    loaded = TextEncoder.load(folder)
    assert loaded.tokenizer_state() == encoder.tokenizer_state()
    assert loaded.tokenizer_state()["length"] == 77
    assert factories.sha256(json.dumps(loaded.tokenizer_state()).encode())  # JSON without floats
