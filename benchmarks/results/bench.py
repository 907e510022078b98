"""The reference model, its classifier, and what was made and drawn before: what every stage of the results shares."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from rasura.evaluation.evaluate import draw_and_judge
from rasura.evaluation.images.image_cache import PictureCache
from rasura.evaluation.images.painter import Sampling
from rasura.evaluation.images.patched_model import EvaluatedPatch, PatchedModel
from rasura.evaluation.images.questions import Question, Subjects
from rasura.evaluation.judges.classifier import load_judge
from rasura.evaluation.judges.interface import Judge
from rasura.evaluation.report.report import Compared, compute_scores, group_changes, summarise
from rasura.patches.algebra.strength import ONE
from rasura.patches.erasers.options import encode_options
from rasura.patches.erasers.request import EraseRequest
from rasura.patches.errors import RasuraError
from rasura.patches.format.patch import Patch, read_folder, write_folder
from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.patches.models.base_identity import BaseIdentity, identify
from rasura.patches.models.denoiser import Denoiser
from rasura.patches.models.text_encoders.text_encoder import TextEncoder
from rasura.patches.prompts.retain_set import RetainSet, load_retain_set
from rasura.patches.solving.moments import Moments
from rasura.patches.solving.solve import build_patches

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "examples" / "reference_model"
CACHE = ROOT / ".results"
FOLDER = ROOT / "docs" / "results"
SAMPLING = Sampling(batch=4)


@dataclass(frozen=True)
class Made:
    """Patches of one request, and the seconds that making them took (when they were first made)."""

    patches: tuple[Patch, ...]
    seconds: float


class Bench:
    """Opens the model once; patches and pictures are kept in `.results`, so that a run that was cut off goes on."""

    def __init__(self, source: Path = REFERENCE, kept: Path = CACHE, sampling: Sampling = SAMPLING) -> None:
        folder = source / "pipeline"
        self.source, self.kept, self.sampling = source, kept, sampling
        self.moments: Moments | None = None  # whoever sets it measures solving without encoding lists again
        self.host, self.encoder = CheckpointHost.open(folder), TextEncoder.load(folder)
        self.identity: BaseIdentity = identify(self.host, self.encoder.tokenizer_state())
        self.judge: Judge = load_judge(source)
        self.subjects = Subjects.load(source / "concepts.json")
        self.cache = PictureCache(kept / "pictures")

    @cached_property
    def retain(self) -> RetainSet:
        """What the model's own retain list names."""
        return load_retain_set(self.source / "retain.txt")

    @cached_property
    def denoiser(self) -> Denoiser:
        """The UNet, loaded when a method first looks through it."""
        return Denoiser.load(self.host, self.host.folder)

    def made(self, request: EraseRequest) -> Made:
        """The patches of a request, made now or before.

        Raises:
            RasuraError: the method refuses.
        """
        folder = self.kept / "patches" / self._name(request)
        if (folder / "seconds.json").exists():
            names, seconds = json.loads((folder / "seconds.json").read_text())
            return Made(tuple(Patch.from_files(read_folder(folder / name)) for name in names), seconds)
        started = time.perf_counter()
        patches = build_patches(
            self.host,
            self.encoder,
            self.identity,
            request,
            tell,
            denoiser=lambda: self.denoiser,
            work=self.kept / "work",
            moments=self.moments,
        )
        seconds = time.perf_counter() - started
        for patch in patches:
            if not (folder / patch.patch_id).exists():
                write_folder(folder / patch.patch_id, patch.files())
        (folder / "seconds.json").write_text(json.dumps([[p.patch_id for p in patches], seconds]))
        return Made(patches, seconds)

    def look(self, patches: Sequence[Patch], asked: Sequence[Question], *, wide: bool = False) -> Compared:
        """What base and patched model draw of these questions, judged; `wide` composes in float32."""
        cache = PictureCache(self.kept / "pictures_float32", self.cache.effort) if wide else self.cache
        return draw_and_judge(self.model(patches, wide=wide), self.judge, asked, cache, tell)

    def model(self, patches: Sequence[Patch], *, wide: bool = False) -> PatchedModel:
        """The pipeline with these patches at hand; `wide` composes in float32."""
        stack = [EvaluatedPatch(patch, ONE) for patch in patches]
        return PatchedModel.load(self.wide if wide else self.host, self.identity, stack, self.sampling)

    @cached_property
    def wide(self) -> CheckpointHost:
        """The same model in float32: the same numbers, so the same base."""
        from diffusers import StableDiffusionPipeline

        folder = self.kept / "float32"
        if not (folder / "model_index.json").exists():
            pipeline = StableDiffusionPipeline.from_pretrained(self.host.folder, torch_dtype=torch.float32)
            pipeline.save_pretrained(folder)
        return CheckpointHost.open(folder)

    def _name(self, request: EraseRequest) -> str:
        guarded = sorted(request.guarded)
        eraser = (request.eraser.name, sorted(encode_options(request.eraser).items()))
        plain = replace(request, guarded={}, guarded_prompts={})
        seed = getattr(request.eraser, "seed", None)
        text = repr((plain.targets, plain.retain, plain.templates, plain.tokens, plain.layers, str(plain.rule)))
        return hashlib.sha256(repr((text, eraser, seed, guarded, self.identity.digest)).encode()).hexdigest()[:24]


def numbers_of(compared: Compared) -> dict[str, Any]:
    """The summary, the counts behind it, and how far pictures moved, as JSON values."""
    rights = [
        {
            "group": s.group,
            "axis": s.axis,
            "kind": s.kind,
            "n": s.n,
            "base": s.before,
            "patched": s.after,
            "both": s.both,
        }
        for s in compute_scores(compared)
        if not s.label
    ]
    changes = {
        item.group: {
            "n": item.change.n,
            "ssim": item.change.ssim,
            "change": item.change.change,
            "identical": item.change.identical,
            "frechet": item.frechet.distance if item.frechet else None,
        }
        for item in group_changes(compared)
    }
    return {"summary": summarise(compared), "rights": rights, "changes": changes}


def tell(stage: str, done: int, total: int) -> None:
    """Progress on stderr: one line that is written over."""
    end = "\n" if done >= total else ""
    sys.stderr.write(f"\r{stage[:60]:<60} {done}/{total}{end}")
    sys.stderr.flush()


def keep(name: str, rows: Any) -> None:
    """Write a stage's numbers to docs/results/NAME.json."""
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.json").write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n")


def kept(name: str) -> Any:
    """What a stage found; None where it has not run."""
    path = FOLDER / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def refusal(error: RasuraError) -> dict[str, str]:
    """A refusal as a row."""
    return {"code": error.code, "message": error.message}
