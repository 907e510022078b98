"""Judges: a real CLIP model of random weights, a classifier of random weights, and labels that they do not know."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.judges import tiny_classifier, tiny_clip
from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

from rasura.evaluation.images.painter import Shot
from rasura.evaluation.images.questions import Question
from rasura.evaluation.judges.classifier import load_judge
from rasura.evaluation.judges.open_judge import open_judge
from rasura.patches.errors import ConceptError, FormatError, InputError, NotFoundError


def question(**wanted: str) -> Question:
    return Question("retain", Shot("a prompt", 0), wanted)


def pictures(n: int) -> list[Image.Image]:
    chance = np.random.default_rng(3)
    return [Image.fromarray(chance.integers(0, 256, (40, 48, 3), dtype=np.uint8)) for _ in range(n)]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_clip(tmp_path_factory.mktemp("clip") / "tiny clip")


ASKED = [question(object="dog", style="painting"), question(object="cat"), question(style="photo", object="van gogh")]


def test_clip_names_what_transformers_own_forward_pass_finds_most_likely(clip: Path) -> None:
    judge = open_judge(f"clip:{clip}", ASKED, "a photo of a {}")
    assert judge.labels == {"object": ("dog", "cat", "van gogh"), "style": ("painting", "photo")}
    shown = pictures(35)
    seen = judge.look(shown)
    model, tokenizer = CLIPModel.from_pretrained(clip), CLIPTokenizer.from_pretrained(clip)
    pixels = CLIPImageProcessor.from_pretrained(clip)(images=shown, return_tensors="pt")
    for axis, labels in judge.labels.items():
        texts = tokenizer([f"a photo of a {label}" for label in labels], padding=True, return_tensors="pt")
        with torch.no_grad():
            likely = model(**texts, **pixels).logits_per_image.argmax(1)
        assert [answer[axis] for answer in seen.answers] == [labels[i] for i in likely]
    assert seen.features.shape == (35, 32)
    assert seen.features.dtype == np.float64
    assert judge.title.startswith("tiny clip (CLIP ")


def test_another_template_is_another_question(clip: Path) -> None:
    one, other = (open_judge(f"clip:{clip}", ASKED, template) for template in ("a photo of a {}", "{} dog cat"))
    shown = pictures(60)
    assert one.look(shown).answers != other.look(shown).answers
    with pytest.raises(ConceptError):
        open_judge(f"clip:{clip}", ASKED, "no slot")


def test_clip_needs_something_to_choose_from(clip: Path) -> None:
    with pytest.raises(InputError, match="'dog' alone"):
        open_judge(f"clip:{clip}", [question(object="dog")])


def test_no_clip_model(tmp_path: Path, clip: Path) -> None:
    with pytest.raises(NotFoundError, match="no CLIP model"):
        open_judge(f"clip:{tmp_path}", ASKED)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FormatError):
        open_judge(f"clip:{tmp_path}", ASKED)


def test_a_classifier_looks_at_both_axes(tmp_path: Path) -> None:
    folder = tiny_classifier(tmp_path / "c", ("dog", "cat", "bus"), ("ink", "neon"))
    judge = load_judge(folder)
    shown = pictures(300)
    seen = judge.look(shown)
    assert judge.name(shown) == [(answer["object"], answer["style"]) for answer in seen.answers]
    assert {label for answer in seen.answers for label in answer.values()} <= {"dog", "cat", "bus", "ink", "neon"}
    assert seen.features.shape == (300, 16)
    np.testing.assert_allclose(judge.look(shown[256:]).features, seen.features[256:], rtol=1e-5, atol=1e-5)
    assert judge.look([]).features.shape == (0, 16)
    assert judge.title.startswith("c (classifier ")


def test_a_label_or_an_axis_that_the_classifier_does_not_know(tmp_path: Path) -> None:
    folder = str(tiny_classifier(tmp_path / "c"))
    assert open_judge(folder, [question(object="dog", style="ink")]).labels["object"] == ("dog", "cat")
    with pytest.raises(InputError, match="got 'zebra'"):
        open_judge(folder, [question(object="dog"), question(object="zebra")])
    with pytest.raises(InputError, match="got a question for label 'dog'"):
        open_judge(folder, [question(label="dog")])


def test_no_classifier(tmp_path: Path) -> None:
    for folder in (tmp_path / "none", tmp_path):
        with pytest.raises(NotFoundError, match=r"classifier\.json"):
            open_judge(str(folder), [])
    (tmp_path / "classifier.json").write_text("{}")
    with pytest.raises(FormatError):
        open_judge(str(tmp_path), [])
