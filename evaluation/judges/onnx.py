"""Any ONNX image classifier or detector as a judge, run by onnxruntime on the CPU: `pip install 'rasura[onnx]'`.

The model takes float32 pictures, [n, 3, h, w] or [n, h, w, 3] with h = w. The first output of a classifier is
[n, labels], a score each. That of a detector, which its description calls so, is [n, 4 + labels, boxes] or
[n, boxes, 4 + labels]: four numbers of place and a score a label, for every box before any are left out, as the exports
of YOLOv8 and of what is built on it have it. A label's score is that of its best box; the places are not looked at.
Anything else is refused.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL.Image import Image

from rasura.evaluation.judges.interface import ONNX, Sight
from rasura.evaluation.judges.onnx_file import read_model
from rasura.evaluation.judges.onnx_labels import Description, read_description
from rasura.patches._io.sha256 import digest_of
from rasura.patches.errors import FormatError, InputError, NotFoundError
from rasura.patches.types import SHORT, Digest

_INSTALL: Final = "pip install 'rasura[onnx]'"
_HINT: Final = f"rasura evaluate --judge {ONNX}FILE:LABELS"
_BATCH: Final = 16
_RANK: Final = 4
_COLOURS: Final = 3
_BOXES_RANK: Final = 3
_PLACE: Final = 4  # numbers of a box before its scores
_SILENT: Final = 4  # onnxruntime's severity "fatal"


@dataclass(frozen=True, slots=True)
class Input:
    """How the model takes pictures.

    Attributes:
        name: of the input.
        first: whether channels come before height and width.
        side: pixels.
        batch: pictures at once.
    """

    name: str
    first: bool
    side: int
    batch: int


@dataclass(frozen=True, slots=True, eq=False)
class OnnxJudge:
    """An ONNX model with its labels; a `rasura.evaluation.judges.interface.Judge`.

    Attributes:
        title: file, kind, digest of model and labels.
        digest: of both.
        session: onnxruntime's.
        input: how the model takes pictures.
        description: labels, and the way from a picture to the input.
    """

    title: str
    digest: Digest
    session: Any  # onnxruntime ships no types
    input: Input
    description: Description

    @property
    def labels(self) -> Mapping[str, tuple[str, ...]]:
        """The labels, on their one axis; of a detector also the word for none of them."""
        return {self.description.axis: self.description.answers}

    def look(self, pictures: Sequence[Image]) -> Sight:
        """The label of each picture; the features are the scores [n, labels]."""
        step = self.input.batch
        parts = [self._score(pictures[start : start + step]) for start in range(0, len(pictures), step)]
        scores = np.concatenate([np.zeros((0, len(self.description.labels))), *parts])
        return Sight([{self.description.axis: self._choose(row)} for row in scores], scores)

    def _choose(self, scores: npt.NDArray[np.float64]) -> str:
        labels, threshold = self.description.labels, self.description.threshold
        order: list[str] = [labels[i] for i in np.argsort(-scores, kind="stable").tolist()]
        if (boxes := self.description.boxes) is not None:
            return order[0] if scores.max() >= boxes.least else boxes.none
        if threshold is None:
            return order[0]
        if scores[labels.index(threshold.label)] >= threshold.least:
            return threshold.label
        return next(label for label in order if label != threshold.label)

    def _score(self, pictures: Sequence[Image]) -> npt.NDArray[np.float64]:
        """Scores [n, labels] of up to a batch.

        Raises:
            FormatError: the model fails, or gives something else.
        """
        batch = np.stack([prepare(picture, self.input, self.description) for picture in pictures])
        try:
            found = self.session.run(None, {self.input.name: batch})[0]
        except Exception as error:
            raise FormatError(
                f"{self.title}: the model fails on {batch.shape} numbers: {_first_line(error)}"
            ) from error
        if self.description.boxes is not None:
            return self._take_best(found, len(pictures))
        wanted = (len(pictures), len(self.description.labels))
        if not isinstance(found, np.ndarray) or found.shape != wanted or found.dtype.kind != "f":
            got = f"{found.dtype} {list(found.shape)}" if isinstance(found, np.ndarray) else type(found).__name__
            said = f"{self.title}: expected scores {list(wanted)}, one a label, got {got}"
            if isinstance(found, np.ndarray) and found.ndim == _BOXES_RANK:
                said += "; of a detector, LABELS.json says how a picture without boxes is called"
                raise FormatError(said, hint='"boxes": {"none": "nothing", "least": 0.25} in LABELS.json')
            raise FormatError(said, hint=_HINT)
        return self._finite(found)

    def _take_best(self, found: Any, pictures: int) -> npt.NDArray[np.float64]:
        """Of boxes, each label's best score in each picture, [n, labels].

        Raises:
            FormatError: no boxes, or boxes that can be read in two ways.
        """
        count = len(self.description.labels)
        width = _PLACE + count
        shape: tuple[int, ...] = found.shape if isinstance(found, np.ndarray) and found.dtype.kind == "f" else ()
        if len(shape) != _BOXES_RANK or shape[0] != pictures or list(shape[1:]).count(width) != 1:
            got = f"{found.dtype} {list(found.shape)}" if isinstance(found, np.ndarray) else type(found).__name__
            raise FormatError(
                f"{self.title}: expected boxes [{pictures}, {width}, any] or [{pictures}, any, {width}], four numbers "
                f"of place and a score for each of {count} labels, got {got}",
                hint=_HINT,
            )
        boxes = self._finite(found if shape[1] == width else found.transpose(0, 2, 1))
        best: npt.NDArray[np.float64] = boxes[:, _PLACE:].max(axis=2, initial=0.0)
        return best

    def _finite(self, found: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
        if not np.isfinite(found).all():
            raise FormatError(f"{self.title}: expected finite scores, got NaN or infinity")
        return found.astype(np.float64)


def load_onnx_judge(spec: str) -> OnnxJudge:
    """Open `FILE`, or `FILE:LABELS`; without labels, FILE with the ending .json or .txt holds them. No network.

    Raises:
        InputError: onnxruntime is not installed.
        NotFoundError: a file is missing.
        FormatError: no ONNX model, one with other files, or one whose input or output no classifier of pictures has.
    """
    path, labels = _split(spec)
    data, description = read_model(path), read_description(labels)
    session = _start(data, path)
    digest = digest_of(f"{digest_of(data)} {description.digest}".encode())
    title = f"{path.name} (ONNX {digest[:SHORT]})"
    judge = OnnxJudge(title, digest, session, _read_input(session, description, path), description)
    from PIL import Image

    judge.look([Image.new("RGB", (64, 64), (127, 127, 127))])  # wrong outputs are found before anything is drawn
    return judge


def prepare(picture: Image, wanted: Input, description: Description) -> npt.NDArray[np.float32]:
    """One picture as the model takes it, float32, without the batch's axis; `onnx_labels` says by which steps."""
    from PIL import Image

    side = description.resize or wanted.side
    resized = picture.convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
    if description.jpeg:
        buffer = io.BytesIO()
        resized.save(buffer, format="JPEG")
        resized = Image.open(buffer).convert("RGB")
    edge = (side - wanted.side) // 2
    levels = np.asarray(resized, dtype=np.float32)[edge : edge + wanted.side, edge : edge + wanted.side]
    if description.channels == "bgr":
        levels = levels[:, :, ::-1]
    shifted = (levels - np.array(description.mean, np.float32)) / np.array(description.std, np.float32)
    return np.ascontiguousarray(shifted.transpose(2, 0, 1) if wanted.first else shifted, dtype=np.float32)


def _split(spec: str) -> tuple[Path, Path]:
    """Model and labels."""
    whole = Path(spec)
    head, colon, tail = spec.rpartition(":")
    if whole.is_file() or not colon:
        beside = [whole.with_suffix(ending) for ending in (".json", ".txt")]
        found = next((path for path in beside if path.is_file()), None)
        if found is None and whole.is_file():
            raise NotFoundError(
                f"no labels were named, and none lie beside {whole}: expected {beside[0].name} or {beside[1].name}",
                hint=_HINT,
            )
        return whole, found or beside[0]
    return Path(head), Path(tail)


def _start(data: bytes, path: Path) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise InputError("an ONNX judge: expected onnxruntime, which is not installed", hint=_INSTALL) from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _SILENT
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise FormatError(f"{path}: its ONNX model cannot be read: {_first_line(error)}") from error


def _read_input(session: Any, description: Description, path: Path) -> Input:
    inputs = session.get_inputs()
    if len(inputs) != 1 or inputs[0].type != "tensor(float)" or len(inputs[0].shape) != _RANK:
        got = ", ".join(f"{i.name} {i.type} {i.shape}" for i in inputs)
        raise FormatError(f"{path}: expected one input of float32 pictures, [n, 3, h, w] or [n, h, w, 3], got {got}")
    number, *shape = inputs[0].shape
    if _COLOURS not in {shape[0], shape[2]}:
        raise FormatError(f"{path}: expected an input [n, 3, h, w] or [n, h, w, 3], got {inputs[0].shape}")
    first = shape[0] == _COLOURS
    sides = {side for side in (shape[1:] if first else shape[:2]) if isinstance(side, int)}
    if description.size is not None:
        sides.add(description.size)
    if len(sides) != 1:
        got = "none" if not sides else " and ".join(map(str, sorted(sides)))
        raise FormatError(f"{path}: expected one side of square pictures, got {got}", hint='"size": 224 in LABELS.json')
    side = sides.pop()
    if description.resize is not None and description.resize < side:
        raise FormatError(f"{path}: resize: expected at least the input's side, {side}, got {description.resize}")
    if isinstance(number, int) and number != 1:
        raise FormatError(f"{path}: expected an input of one picture, or of any number, got {number} at once")
    return Input(inputs[0].name, first, side, 1 if isinstance(number, int) else _BATCH)


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0][:300]
