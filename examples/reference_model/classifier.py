"""The reference model's independent judge: names the object and the style of a 64x64 picture.

It was trained on rendered drawings only and has never seen a generated picture.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

HERE = Path(__file__).resolve().parent


class Classifier(nn.Module):
    """Six convolutions, one hidden layer, two heads. Input: 3x64x64 in [-1, 1]."""

    def __init__(
        self, *, objects: int, styles: int, channels: tuple[int, ...], strides: tuple[int, ...], hidden: int
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
        """Object logits and style logits."""
        features = self.features(pictures)
        return self.object_head(features), self.style_head(features)


@dataclass(frozen=True)
class Judge:
    """A trained classifier with its label names."""

    model: Classifier
    objects: tuple[str, ...]
    styles: tuple[str, ...]

    @torch.no_grad()
    def name(self, pictures: Tensor) -> list[tuple[str, str]]:
        """(object, style) of each picture; pictures are Nx3x64x64 in [-1, 1]."""
        things, styles = self.model(pictures.float())
        pairs = zip(things.argmax(1).tolist(), styles.argmax(1).tolist(), strict=True)
        return [(self.objects[thing], self.styles[style]) for thing, style in pairs]


def load_judge(folder: Path = HERE) -> Judge:
    """Read classifier.json and classifier.safetensors from a folder."""
    facts = json.loads((folder / "classifier.json").read_text(encoding="utf-8"))
    shape = facts["architecture"]
    model = Classifier(
        objects=len(facts["objects"]),
        styles=len(facts["styles"]),
        channels=tuple(shape["channels"]),
        strides=tuple(shape["strides"]),
        hidden=shape["hidden"],
    )
    model.load_state_dict(load_file(folder / "classifier.safetensors"))  # copies into the model's own precision
    return Judge(model.eval(), tuple(facts["objects"]), tuple(facts["styles"]))
