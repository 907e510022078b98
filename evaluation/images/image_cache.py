"""Pictures that were drawn before: one PNG each, under the digest of everything that decides it.

Two evaluations of one base draw the base's pictures once, and one that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import diffusers
import torch
from PIL import Image as Images
from PIL.Image import Image

from rasura.evaluation.images.painter import Painter, Shot
from rasura.patches._io import canonical_json
from rasura.patches._io.sha256 import digest_of
from rasura.patches.types import Digest, Progress

_FORMAT: Final = "rasura-picture/1"


@dataclass(slots=True)
class Effort:
    """What drawing took: pictures that were really drawn, seconds, and pictures that were at hand."""

    drawn: int = 0
    seconds: float = 0.0
    reused: int = 0


@dataclass(frozen=True, slots=True)
class PictureCache:
    """A folder of pictures; `effort` counts what this process drew and found."""

    folder: Path
    effort: Effort = field(default_factory=Effort)

    def draw(
        self, painter: Painter, model: Digest, shots: Sequence[Shot], stage: str, progress: Progress
    ) -> list[Image]:
        """The pictures of these shots, in order; those that are missing are drawn and kept, batch by batch.

        Every batch has the same size: the last one is filled up with its own last shot, because a picture's last bits
        depend on the size of the batch that it was drawn in.

        Args:
            painter: the model, in the state that `model` names.
            model: fingerprint of weights and folder.
            shots: what to draw.
            stage: for progress.
            progress: told after each batch.
        """
        unique = list(dict.fromkeys(shots))
        paths = {shot: self._path(painter, model, shot) for shot in unique}
        found = {shot: picture for shot in unique if (picture := _read(paths[shot])) is not None}
        missing = [shot for shot in unique if shot not in found]
        self.effort.reused += len(found)
        size = painter.sampling.batch
        for start in range(0, len(missing), size):
            progress(stage, start, len(missing))
            part = missing[start : start + size]
            began = time.perf_counter()
            drawn = painter.draw_batch([*part, *[part[-1]] * (size - len(part))])
            self.effort.seconds += time.perf_counter() - began
            self.effort.drawn += len(part)
            for shot, picture in zip(part, drawn, strict=False):
                _write(paths[shot], picture)
                found[shot] = picture
        progress(stage, len(missing), len(missing))
        return [found[shot] for shot in shots]

    def _path(self, painter: Painter, model: Digest, shot: Shot) -> Path:
        name = digest_picture(painter, model, shot)
        return self.folder / name[:2] / f"{name[2:]}.png"


def digest_picture(painter: Painter, model: Digest, shot: Shot) -> Digest:
    """SHA-256 of the canonical JSON of all that decides a picture."""
    sampling = {name: str(value) for name, value in asdict(painter.sampling).items()}
    document: dict[str, canonical_json.JsonValue] = {
        "format": _FORMAT,
        "model": model,
        "prompt": shot.prompt,
        "seed": shot.seed,
        "sampling": sampling,
        "solver": type(painter.pipeline.scheduler).__name__,
        "device": painter.pipeline.device.type,
        "versions": [diffusers.__version__, torch.__version__],
    }
    return digest_of(canonical_json.dumps(document))


def _read(path: Path) -> Image | None:
    """A picture, or None where there is none that is whole."""
    try:
        with Images.open(path) as picture:
            return picture.convert("RGB")
    except (OSError, SyntaxError, ValueError):  # absent, or damaged: it is drawn anew
        return None


def _write(path: Path, picture: Image) -> None:
    """Keep a picture; a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    picture.save(part, format="PNG")
    part.replace(path)
