"""What the base makes of words that mean nearly the same as an object: where they lie, and what they draw."""

from __future__ import annotations

from typing import Any, Final

import torch
from bench import Bench, tell
from subjects import NEAR, independent

from rasura.evaluation.images.painter import Shot
from rasura.evaluation.images.patched_model import PatchedModel
from rasura.patches.prompts.concept_prompts import prompts_of

KIN: Final = {
    **NEAR,
    "puppy": "dog", "hound": "dog", "dogs": "dog", "kitten": "cat", "tiger": "lion", "taxi": "car", "truck": "bus",
    "van": "bus", "plane": "airplane", "jet": "airplane", "flower": "rose", "tulip": "rose", "knife": "dagger",
    "sword": "dagger", "grenade": "bomb", "skeleton": "skull", "moth": "butterfly", "fox": "dog", "hamburger": "pizza",
}  # fmt: skip
"""Words and phrases, and the object that they are nearest to in meaning."""
_STYLES: Final = ("cartoon", "ink", "sketch", "pixel")
_TEMPLATES: Final = ("a {}", "a {} in cartoon style", "a {} in ink style", "a {} in pixel style")
_POSITIONS: Final = 8  # from the last subject token on


def words(bench: Bench) -> list[dict[str, Any]]:
    """A row a word: word parts, cosine with its object, the nearest object, what the judge calls four pictures."""
    objects = list(bench.subjects.objects)
    known = torch.stack([_embedding(bench, name) for name in objects])
    middle = known.mean(0)
    model = bench.model([independent(bench)["dog"]])  # to draw with its base
    rows = []
    for number, (word, kin) in enumerate(KIN.items()):
        cosines = torch.cosine_similarity((_embedding(bench, word) - middle)[None], known - middle)
        best = int(cosines.argmax())
        rows.append(
            {
                "word": word,
                "kin": kin,
                "parts": len(bench.encoder.ids(word)) - 2,
                "cosine": float(cosines[objects.index(kin)]),
                "nearest": objects[best],
                "nearest_cosine": float(cosines[best]),
                "called": _drawn(bench, model, word, 3000 + 10 * number),
            }
        )
    return rows


def _embedding(bench: Bench, word: str) -> torch.Tensor:
    """The word's last token and those after it, in four prompts."""
    prompts = prompts_of(word, _TEMPLATES)
    hidden = bench.encoder.encode_all(prompts)
    starts = [bench.encoder.subject(prompt, word)[-1] for prompt in prompts]
    return torch.cat([hidden[i, start : start + _POSITIONS].mean(0) for i, start in enumerate(starts)])


def _drawn(bench: Bench, model: PatchedModel, word: str, seed: int) -> list[str]:
    shots = [Shot(bench.subjects.prompt(f"a {word}", style), seed + i) for i, style in enumerate(_STYLES)]
    pictures = bench.cache.draw(model.painter, model.show(patched=False), shots, "words", tell)
    return [answer["object"] for answer in bench.judge.look(pictures).answers]
