"""What an ONNX classifier's numbers mean: its labels, and how it wants pictures.

A text file holds a label a line, in the order of the model's outputs. A JSON file says more:

    {"labels": ["safe", "nsfw"], "axis": "label", "threshold": {"label": "nsfw", "least": 0.2},
     "resize": 256, "size": 224, "channels": "bgr", "mean": [104, 117, 123], "std": [1, 1, 1], "jpeg": true}

A detector of boxes says so, and what a picture shows in which it finds none of its labels:

    {"labels": ["face", "hand"], "boxes": {"none": "nothing", "least": 0.25}}

Only `labels` is needed. A picture is stretched to `resize` x `resize` (default: `size`), sent through JPEG where `jpeg`
says so, cut to the middle `size` x `size` (default: what the model's input says), put into the order of `channels`, and
each channel becomes (level - mean) / std of levels from 0 to 255. Without `mean` and `std` that is level / 255.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from rasura.patches._io import canonical_json
from rasura.patches._io.files import read_regular
from rasura.patches._io.json_fields import Fields, JsonValue, show
from rasura.patches._io.sha256 import digest_of
from rasura.patches.errors import FormatError, NotFoundError
from rasura.patches.types import Digest

AXES: Final = ("label", "object", "style")
_FILE_LIMIT: Final = 4 * 2**20
_MOST_LABELS: Final = 100_000
_LONGEST_LABEL: Final = 512
_MOST_PIXELS: Final = 4096  # a side
_MOST_LEVEL: Final = 1e6
_CHANNELS: Final = 3


@dataclass(frozen=True, slots=True)
class Threshold:
    """From which score on the answer is this label, whatever the others score; below it, it is not."""

    label: str
    least: float


@dataclass(frozen=True, slots=True)
class Boxes:
    """The model's output is boxes; a picture in which no label reaches this score shows `none`."""

    none: str
    least: float


@dataclass(frozen=True, slots=True)
class Description:
    """Labels and the way to the model's input.

    Attributes:
        labels: in the order of the outputs.
        axis: which questions they answer: label, object or style.
        threshold: of one label; None takes the label with the highest score.
        resize: side that pictures are stretched to; None is `size`.
        size: side of the middle that the model sees; None is what its input says.
        channels: rgb or bgr.
        mean: of each channel, in levels from 0 to 255, in the order of `channels`.
        std: likewise, over 0.
        jpeg: whether the picture goes through JPEG, as Pillow writes it.
        boxes: of a detector; None where the output is a score a label.
    """

    labels: tuple[str, ...]
    axis: str = AXES[0]
    threshold: Threshold | None = None
    resize: int | None = None
    size: int | None = None
    channels: str = "rgb"
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (255.0, 255.0, 255.0)
    jpeg: bool = False
    boxes: Boxes | None = None

    @property
    def answers(self) -> tuple[str, ...]:
        """Everything that may be said of a picture."""
        return self.labels if self.boxes is None else (*self.labels, self.boxes.none)

    @property
    def digest(self) -> Digest:
        """Over everything that it says."""
        said = asdict(self)
        if self.boxes is None:  # as it was before there were boxes, so that titles in old reports stay
            del said["boxes"]
        return digest_of(repr(sorted(said.items())).encode())


def read_description(path: Path) -> Description:
    """Labels of a text file, or a JSON file's description.

    Raises:
        NotFoundError: no such file.
        FormatError: not UTF-8, too large, no label, one twice, or a field that is not what it should be.
    """
    try:
        data = read_regular(path, _FILE_LIMIT, follow=True)
        text = data.decode("utf-8-sig")
    except NotFoundError:
        raise NotFoundError(
            f"expected labels at {path}, got no such file", hint="rasura evaluate --judge onnx:FILE:LABELS"
        ) from None
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: expected UTF-8, got byte 0x{data[error.start]:02x} at {error.start}") from None
    if path.suffix.lower() == ".json":
        return _parse_json(text, str(path))
    return Description(_check_labels([line.strip() for line in text.split("\n") if line.strip()], str(path)))


def _parse_json(text: str, what: str) -> Description:
    value = canonical_json.parse(text.encode(), what=what, limit=_FILE_LIMIT, floats=True)
    fields = Fields.of(value, what)
    labels = _check_labels(fields.texts("labels", _MOST_LABELS, _LONGEST_LABEL), what)
    found = Description(
        labels,
        axis=fields.choice("axis", AXES) if fields.has("axis") else AXES[0],
        threshold=_parse_threshold(fields.fields("threshold"), labels, what) if fields.has("threshold") else None,
        resize=fields.integer("resize", 1, _MOST_PIXELS) if fields.has("resize") else None,
        size=fields.integer("size", 1, _MOST_PIXELS) if fields.has("size") else None,
        channels=fields.choice("channels", ("rgb", "bgr")) if fields.has("channels") else "rgb",
        mean=_parse_levels(fields, "mean", -_MOST_LEVEL, what) if fields.has("mean") else (0.0,) * _CHANNELS,
        std=_parse_levels(fields, "std", 1e-6, what) if fields.has("std") else (255.0,) * _CHANNELS,
        jpeg=fields.flag("jpeg") if fields.has("jpeg") else False,
        boxes=_parse_boxes(fields.fields("boxes"), labels, what) if fields.has("boxes") else None,
    )
    if found.boxes is not None and found.threshold is not None:
        raise FormatError(f"{what}: expected one of boxes and threshold, got both")
    fields.done()
    return found


def _check_labels(labels: list[str] | tuple[str, ...], what: str) -> tuple[str, ...]:
    if not labels or len(labels) > _MOST_LABELS:
        raise FormatError(f"{what}: expected 1 to {_MOST_LABELS} labels, got {len(labels)}")
    for label in labels:
        if not 0 < len(label) <= _LONGEST_LABEL:
            raise FormatError(f"{what}: expected labels of 1 to {_LONGEST_LABEL} characters, got {show(label)}")
    if len(set(labels)) < len(labels):
        twice = next(label for i, label in enumerate(labels) if label in labels[:i])
        raise FormatError(f"{what}: expected each label once, got {show(twice)} twice")
    return tuple(labels)


def _parse_threshold(fields: Fields, labels: tuple[str, ...], what: str) -> Threshold:
    label, least = fields.choice("label", labels), _parse_number(fields.value("least"), -_MOST_LEVEL, what)
    fields.done()
    if len(labels) == 1:
        raise FormatError(f"{what}: threshold: expected a second label for what lies below it, got one label")
    return Threshold(label, least)


def _parse_boxes(fields: Fields, labels: tuple[str, ...], what: str) -> Boxes:
    none, least = fields.text("none", limit=_LONGEST_LABEL), _parse_number(fields.value("least"), 0, what)
    fields.done()
    if not none or none in labels:
        raise FormatError(f"{what}: boxes: expected a word of its own for a picture without boxes, got {show(none)}")
    return Boxes(none, least)


def _parse_levels(fields: Fields, name: str, low: float, what: str) -> tuple[float, ...]:
    values = fields.items(name, _CHANNELS)
    if len(values) != _CHANNELS:
        raise FormatError(f"{what}: {name}: expected {_CHANNELS} numbers, got {len(values)}")
    return tuple(_parse_number(value, low, f"{what}: {name}") for value in values)


def _parse_number(value: JsonValue, low: float, what: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= _MOST_LEVEL:
        raise FormatError(f"{what}: expected a number from {low:g} to {_MOST_LEVEL:g}, got {show(value)}")
    return float(value)
