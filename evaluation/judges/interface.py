"""Judges: whoever names what a picture shows, by label on each of its axes, and describes it in numbers.

Classifier   a small network of our own: object and style      rasura.evaluation.judges.classifier
ClipJudge    any CLIP model, asked which label fits best        rasura.evaluation.judges.clip
OnnxJudge    any ONNX classifier or detector, with its labels   rasura.evaluation.judges.onnx
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
import numpy.typing as npt

from rasura.evaluation.images.questions import Answer, Question
from rasura.patches.errors import InputError
from rasura.patches.types import Digest

if TYPE_CHECKING:
    from PIL.Image import Image

CLIP: Final = "clip:"
ONNX: Final = "onnx:"
TEMPLATE: Final = "a picture of a {}"
"""What a CLIP judge puts a label into."""


@dataclass(frozen=True, slots=True, eq=False)
class Sight:
    """What a judge sees in pictures.

    Attributes:
        answers: one a picture: the best label on each axis.
        features: [n, d] float64, the last layer before the labels are decided.
    """

    answers: list[Answer]
    features: npt.NDArray[np.float64]


class Judge(Protocol):
    """Something that looks at pictures and knows nothing of the model that drew them."""

    @property
    def title(self) -> str:
        """What a report calls it: its folder's name, its kind, and the first digits of its weights' digest."""
        ...

    @property
    def digest(self) -> Digest:
        """SHA-256 of what decides its answers: its weights, and of an ONNX model its labels."""
        ...

    @property
    def labels(self) -> Mapping[str, tuple[str, ...]]:
        """The labels that it knows, by axis."""
        ...

    def look(self, pictures: Sequence[Image]) -> Sight:
        """Its opinion of each picture."""
        ...


def list_named_labels(asked: Iterable[Question]) -> dict[str, tuple[str, ...]]:
    """Every label that is asked for, by axis, in the order of first mention."""
    found: dict[str, dict[str, None]] = {}
    for question in asked:
        for axis, label in question.wanted.items():
            found.setdefault(axis, {})[label] = None
    return {axis: tuple(labels) for axis, labels in found.items()}


def check_labels(judge: Judge, asked: Iterable[Question]) -> None:
    """Refuse questions that the judge cannot answer right.

    Raises:
        InputError: naming the first label, or axis, that it does not know.
    """
    for axis, labels in list_named_labels(asked).items():
        if axis not in judge.labels:
            raise InputError(
                f"{judge.title} names {' and '.join(judge.labels)}: expected that, got a question for {axis} "
                f"{labels[0]!r}",
                hint="rasura evaluate --judge clip:DIR",
            )
        for label in labels:
            if label not in judge.labels[axis]:
                raise InputError(
                    f"{judge.title} knows {len(judge.labels[axis])} labels for {axis}: expected one of them, got "
                    f"{label!r}",
                    hint="rasura evaluate --judge clip:DIR",
                )
