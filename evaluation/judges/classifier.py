"""An independent judge: a small convolutional classifier that names the object and the style of a 64 x 64 picture.

A folder holds `classifier.json` (architecture and labels) and `classifier.safetensors`. The judge of the reference
model was trained on drawings only and has never seen a generated picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from rasura.evaluation.images.questions import AXES, Answer
from rasura.evaluation.judges.interface import Sight
from rasura.patches._io.files import read_config, read_regular
from rasura.patches._io.safetensors_file import CHECKPOINT_LIMITS
from rasura.patches._io.sha256 import digest_of
from rasura.patches.errors import FormatError, NotFoundError
from rasura.patches.types import SHORT, Digest

if TYPE_CHECKING:
    from PIL.Image import Image


FACTS: Final = "classifier.json"
WEIGHTS: Final = "classifier.safetensors"
_BATCH: Final = 256


class Network(nn.Module):
    """Six convolutions, one hidden layer, an object head and a style head. Input: 3 x 64 x 64 in [-1, 1]."""

    def __init__(
        self, *, objects: int, styles: int, channels: Sequence[int], strides: Sequence[int], hidden: int
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after, stride in zip((3, *channels), channels, strides, strict=False):
            layers += [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        layers += [nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Dropout(0.2)]
        layers += [nn.Linear(channels[-1] * 16, hidden), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.object_head = nn.Linear(hidden, objects)
        self.style_head = nn.Linear(hidden, styles)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Object logits [n, objects] and style logits [n, styles]."""
        features = self.features(pictures)
        return self.object_head(features), self.style_head(features)


@dataclass(frozen=True, slots=True, eq=False)
class Classifier:
    """A trained network with its label names; a `rasura.evaluation.judges.interface.Judge`."""

    network: Network
    objects: tuple[str, ...]
    styles: tuple[str, ...]
    title: str
    digest: Digest
    device: str = "cpu"

    @property
    def labels(self) -> Mapping[str, tuple[str, ...]]:
        """Objects and styles."""
        return dict(zip(AXES, (self.objects, self.styles), strict=True))

    def look(self, pictures: Sequence[Image]) -> Sight:
        """Object and style of each picture, and the hidden layer [n, hidden]."""
        if not pictures:
            return Sight([], np.zeros((0, self.network.object_head.in_features)))
        parts = [self._seen(pictures[start : start + _BATCH]) for start in range(0, len(pictures), _BATCH)]
        return Sight([answer for part in parts for answer in part.answers], np.concatenate([p.features for p in parts]))

    def name(self, pictures: Sequence[Image]) -> list[tuple[str, str]]:
        """(object, style) of each picture."""
        return [(answer["object"], answer["style"]) for answer in self.look(pictures).answers]

    def _seen(self, pictures: Sequence[Image]) -> Sight:
        with torch.no_grad():
            features = self.network.features(torch.stack([_tensor(picture) for picture in pictures]).to(self.device))
            objects, styles = self.network.object_head(features), self.network.style_head(features)
        pairs = zip(objects.argmax(1).tolist(), styles.argmax(1).tolist(), strict=True)
        answers: list[Answer] = [{"object": self.objects[thing], "style": self.styles[style]} for thing, style in pairs]
        return Sight(answers, features.double().cpu().numpy())


def load_judge(folder: Path, device: str = "cpu") -> Classifier:
    """Read `classifier.json` and `classifier.safetensors` from a folder.

    Raises:
        NotFoundError: a file is missing.
        FormatError: the files do not fit each other.
    """
    try:
        facts = read_config(folder / FACTS)
        shape = facts["architecture"]
        network = Network(
            objects=len(facts["objects"]),
            styles=len(facts["styles"]),
            channels=shape["channels"],
            strides=shape["strides"],
            hidden=shape["hidden"],
        )
        weights = read_regular(folder / WEIGHTS, CHECKPOINT_LIMITS.file_bytes, follow=True)
        network.load_state_dict(load(weights))
        digest = digest_of(weights)
    except NotFoundError as error:
        raise NotFoundError(
            f"{folder} holds no classifier: expected {FACTS} and {WEIGHTS}, {error.details['path']} is missing",
            hint="rasura evaluate --judge DIR, or --judge clip:DIR",
        ) from None
    except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise FormatError(f"{folder}: its classifier cannot be read: {error}") from error
    network.train(mode=False)
    title = f"{folder.resolve().name} (classifier {digest[:SHORT]})"
    return Classifier(network.to(device), tuple(facts["objects"]), tuple(facts["styles"]), title, digest, device)


def _tensor(picture: Image) -> Tensor:
    resized = picture.convert("RGB").resize((64, 64))
    flat = torch.frombuffer(bytearray(resized.tobytes()), dtype=torch.uint8)
    return flat.reshape(64, 64, 3).permute(2, 0, 1).float() / 127.5 - 1.0
