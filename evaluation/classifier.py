"""An independent judge: a small convolutional classifier that names the object and the style of a 64 x 64 picture.

A folder holds `classifier.json` (architecture and labels) and `classifier.safetensors`. The judge of the reference
model was trained on drawings only and has never seen a generated picture.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rasura.patches.errors import FormatError, NotFoundError

if TYPE_CHECKING:
    from PIL.Image import Image


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
class Judge:
    """A trained classifier with its label names."""

    network: Network
    objects: tuple[str, ...]
    styles: tuple[str, ...]

    def name(self, pictures: Sequence[Image]) -> list[tuple[str, str]]:
        """(object, style) of each picture."""
        if not pictures:
            return []
        with torch.no_grad():
            objects, styles = self.network(torch.stack([_tensor(picture) for picture in pictures]))
        pairs = zip(objects.argmax(1).tolist(), styles.argmax(1).tolist(), strict=True)
        return [(self.objects[thing], self.styles[style]) for thing, style in pairs]


def load_judge(folder: Path) -> Judge:
    """Read `classifier.json` and `classifier.safetensors` from a folder.

    Raises:
        NotFoundError: a file is missing.
        FormatError: the files do not fit each other.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        facts = json.loads((folder / "classifier.json").read_text(encoding="utf-8"))
        shape = facts["architecture"]
        network = Network(
            objects=len(facts["objects"]),
            styles=len(facts["styles"]),
            channels=shape["channels"],
            strides=shape["strides"],
            hidden=shape["hidden"],
        )
        network.load_state_dict(load_file(folder / "classifier.safetensors"))
    except FileNotFoundError as error:
        raise NotFoundError(f"{folder} holds no classifier: {error.filename} is missing") from None
    except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise FormatError(f"{folder}: its classifier cannot be read: {error}") from error
    network.train(mode=False)
    return Judge(network, tuple(facts["objects"]), tuple(facts["styles"]))


def _tensor(picture: Image) -> Tensor:
    resized = picture.convert("RGB").resize((64, 64))
    flat = torch.frombuffer(bytearray(resized.tobytes()), dtype=torch.uint8)
    return flat.reshape(64, 64, 3).permute(2, 0, 1).float() / 127.5 - 1.0
