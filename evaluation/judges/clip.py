"""Any CLIP model of transformers as a judge: which of the labels, put into a sentence, fits the picture best.

Zero-shot classification as in Radford et al. 2021 (arXiv 2103.00020, §3.1), with one template. It chooses among the
labels that the questions name and no others, so its accuracy depends on how many those are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from safetensors import SafetensorError

from rasura.evaluation.images.questions import Answer
from rasura.evaluation.judges.interface import CLIP, TEMPLATE, Sight
from rasura.patches._io.files import check_regular_files, open_regular
from rasura.patches.errors import FormatError, InputError, NotFoundError
from rasura.patches.models.library_output import load_transformers, quiet
from rasura.patches.prompts.concept_prompts import check_template
from rasura.patches.types import SHORT, Digest

if TYPE_CHECKING:
    from PIL.Image import Image

_BATCH: Final = 32


@dataclass(frozen=True, slots=True, eq=False)
class ClipJudge:
    """A CLIP model with the sentences of its labels encoded; a `rasura.evaluation.judges.interface.Judge`.

    Attributes:
        title: folder, kind, digest.
        digest: of the weights.
        labels: what it chooses from, by axis.
        model: transformers' `CLIPModel`, float32.
        processor: its `CLIPImageProcessor`.
        sentences: by axis [labels, d], of norm 1.
    """

    title: str
    digest: Digest
    labels: Mapping[str, tuple[str, ...]]
    model: Any
    processor: Any
    sentences: Mapping[str, torch.Tensor]

    def look(self, pictures: Sequence[Image]) -> Sight:
        """The nearest sentence on each axis, and the vision tower's pooled output [n, d]."""
        answers: list[Answer] = []
        features = [np.zeros((0, self.model.config.vision_config.hidden_size))]
        for start in range(0, len(pictures), _BATCH):
            pooled, projected = self._embedded(pictures[start : start + _BATCH])
            best = {axis: (projected @ known.T).argmax(1).tolist() for axis, known in self.sentences.items()}
            answers += [
                {axis: self.labels[axis][chosen[i]] for axis, chosen in best.items()} for i in range(len(pooled))
            ]
            features.append(pooled.double().cpu().numpy())
        return Sight(answers, np.concatenate(features))

    def _embedded(self, pictures: Sequence[Image]) -> tuple[torch.Tensor, torch.Tensor]:
        """Pooled output [n, d] and projection [n, p] of some pictures."""
        pixels = self.processor(images=[p.convert("RGB") for p in pictures], return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            pooled = self.model.vision_model(pixel_values=pixels.to(self.model.device)).pooler_output
            return pooled, self.model.visual_projection(pooled)


def load_clip_judge(
    folder: Path, labels: Mapping[str, tuple[str, ...]], template: str = TEMPLATE, device: str = "cpu"
) -> ClipJudge:
    """A CLIP model folder, as `save_pretrained` of model, tokenizer and image processor writes it; no network.

    Raises:
        NotFoundError: no such folder.
        FormatError: it holds no whole CLIP model.
        InputError: an axis with fewer than two labels, among which there is nothing to choose.
    """
    check_template(template)
    for axis, names in labels.items():
        if len(names) < 2:  # noqa: PLR2004
            raise InputError(
                f"a CLIP judge chooses among the labels that are asked for: expected two or more for {axis}, got "
                f"{names[0]!r} alone",
                hint="add retained concepts to the file of --prompts",
            )
    if not (folder / "config.json").is_file():
        raise NotFoundError(f"{folder} holds no CLIP model: expected config.json", hint=f"--judge {CLIP}DIR")
    tokenizer, processor, model = _loaded(folder)
    model.to(device)
    sentences = {axis: _sentences(tokenizer, model, names, template) for axis, names in labels.items()}
    digest = _digest(folder)
    title = f"{folder.resolve().name} (CLIP {digest[:SHORT]})"
    return ClipJudge(title, digest, labels, model, processor, sentences)


def _loaded(folder: Path) -> tuple[Any, Any, Any]:
    """Tokenizer, image processor and model."""
    library = load_transformers()
    check_regular_files(folder)
    try:
        with quiet():
            tokenizer = library.AutoTokenizer.from_pretrained(folder, local_files_only=True)
            processor = library.CLIPImageProcessor.from_pretrained(folder, local_files_only=True)
            model, report = library.CLIPModel.from_pretrained(
                folder, local_files_only=True, dtype=torch.float32, use_safetensors=True, output_loading_info=True
            )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise FormatError(f"{folder}: its CLIP model cannot be read: {error}") from error
    if report["missing_keys"]:
        raise FormatError(f"{folder}: its CLIP model lacks {min(report['missing_keys'])}: expected all tensors")
    model.train(mode=False)
    return tokenizer, processor, model


def _sentences(tokenizer: Any, model: Any, names: Sequence[str], template: str) -> torch.Tensor:
    texts = [template.replace("{}", name) for name in names]
    batch = tokenizer(texts, padding=True, truncation=True, return_tensors="pt").to(model.device)
    with torch.no_grad():
        pooled = model.text_model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).pooler_output
        return torch.nn.functional.normalize(model.text_projection(pooled), dim=1)


def _digest(folder: Path) -> Digest:
    """SHA-256 over the weight files, one after the other in name order."""
    found = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with open_regular(path, follow=True) as (file, _):
            digest = hashlib.sha256()
            while piece := file.read(2**20):
                digest.update(piece)
            found.update(digest.digest())
    return Digest(found.hexdigest())
