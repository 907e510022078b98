"""The judge: names object and style of a picture; trained on drawings only, it never sees a generated picture.

The category is the one of the named object. Small, blurred copies are among its training pictures, because objects
side by side are judged one by one, cut out and enlarged.
"""

# mypy: disable-error-code="no-untyped-call"
# (many of torch's own methods carry no types)

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import torch
from examples.reference_model.training.common import to_unit
from examples.reference_model.training.train_classifier import augment
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from rasura.evaluation.judges.classifier import Network

from .concepts import CATEGORIES, STYLES, THINGS
from .course import Dice
from .render import Pictures

_CHANNELS, _STRIDES, _HIDDEN = (32, 64, 96, 128, 160, 224), (2, 1, 2, 1, 2, 1), 256
CATEGORY_OF: Final = tuple(CATEGORIES.index(thing.category) for thing in THINGS)


def build_judge() -> Network:
    """The untrained network."""
    return Network(objects=len(THINGS), styles=len(STYLES), channels=_CHANNELS, strides=_STRIDES, hidden=_HIDDEN)


class JudgeTeacher:
    """Draws augmented pictures of single objects and computes the loss."""

    def __init__(self, network: Network, pictures: Pictures, weights: Tensor, batch: int, device: torch.device) -> None:
        self._network, self._pictures, self._weights = network, pictures, weights
        self._batch, self._device = batch, device

    def loss(self, dice: Dice) -> Tensor:
        """What the object head and the style head say, with smoothed labels."""
        chosen = torch.multinomial(self._weights, self._batch, replacement=True, generator=dice.noise).tolist()
        pictures = augment(to_unit(self._pictures.pixels[chosen]), dice.noise)
        small = len(pictures) // 4
        pictures[:small] = functional.interpolate(
            functional.avg_pool2d(pictures[:small], 2), scale_factor=2, mode="bilinear"
        )
        things, styles = self._network(pictures.to(self._device))
        scenes = [self._pictures.scenes[index] for index in chosen]
        thing = torch.tensor([scene.things[0] for scene in scenes], device=self._device)
        style = torch.tensor([scene.style for scene in scenes], device=self._device)
        loss = functional.cross_entropy(things, thing, label_smoothing=0.05)
        return loss + 0.5 * functional.cross_entropy(styles, style, label_smoothing=0.05)


@torch.no_grad()
def judge_accuracy(network: Network, pictures: Pictures) -> dict[str, float]:
    """Shares of single objects whose object, category and style are named rightly, and their number."""
    device = next(network.parameters()).device
    network.train(mode=False)
    answers = [network(part.to(device)) for part in to_unit(pictures.pixels).split(128)]
    things = torch.cat([thing for thing, _ in answers]).argmax(1).tolist()
    styles = torch.cat([style for _, style in answers]).argmax(1).tolist()
    total = len(things)
    pairs = list(zip(things, pictures.scenes, strict=True))
    return {
        "object": sum(thing == scene.things[0] for thing, scene in pairs) / total,
        "category": sum(CATEGORY_OF[thing] == CATEGORY_OF[scene.things[0]] for thing, scene in pairs) / total,
        "style": sum(style == scene.style for style, scene in zip(styles, pictures.scenes, strict=True)) / total,
        "n": total,
    }


def save_judge(network: Network, folder: Path) -> None:
    """Write fp16 weights and the facts that load_judge needs."""
    folder.mkdir(parents=True, exist_ok=True)
    half = {k: v.cpu().half() if v.is_floating_point() else v.cpu() for k, v in network.state_dict().items()}
    save_file(half, folder / "classifier.safetensors")
    facts = {
        "input": "3x64x64 in [-1, 1]",
        "architecture": {"channels": _CHANNELS, "strides": _STRIDES, "hidden": _HIDDEN},
        "objects": [thing.name for thing in THINGS],
        "styles": [style.name for style in STYLES],
    }
    (folder / "classifier.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
