"""A registry with patches of Stable Diffusion 1.5's size, for benchmarks of commands: made in seconds.

The base has the 32 cross-attention keys and values of the real UNet, 38 MB in float16, random, and a text encoder of
the real width with one layer, the reference model's tokenizer beside it. Its patches are erased as any others, in the
16 value projections of width 768.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Final

import torch
from disk_models import SHAPES, UNET, fill, shapes_of

from rasura.patches.erasers.request import EraseRequest
from rasura.patches.prompts.concept_prompts import Target
from rasura.patches.prompts.retain_set import load_retain_set
from rasura.patches.types import PatchId
from rasura.registry._storage.records.records import Draft
from rasura.registry.erase.base_models import add_base
from rasura.registry.erase.erase import erase
from rasura.registry.registry import Registry
from rasura.registry.trust.keys.key_files import make_key

REFERENCE: Final = Path(__file__).parents[2] / "examples" / "reference_model"
CROSS: Final = (".attn2.to_k.weight", ".attn2.to_v.weight")


def make_model(folder: Path) -> None:
    """The base as a diffusers folder."""
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.device("meta"):
        unet: Any = UNet2DConditionModel(**SHAPES["SD 1.5"])
        text: Any = CLIPTextModel(
            CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=1, num_attention_heads=12)
        )
    (folder / "unet").mkdir(parents=True)
    unet.save_config(folder / "unet")
    fill(folder / "unet" / UNET, {name: shape for name, shape in shapes_of(unet).items() if name.endswith(CROSS)})
    (folder / "text_encoder").mkdir()
    text.config.save_pretrained(folder / "text_encoder")
    fill(folder / "text_encoder" / "model.safetensors", shapes_of(text))
    shutil.copytree(REFERENCE / "pipeline" / "tokenizer", folder / "tokenizer")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))


def make_registry(folder: Path, model: Path, concepts: tuple[str, ...] = ("dog",)) -> tuple[PatchId, ...]:
    """A registry in `folder` with the model and a patch for each concept, erased together."""

    def draft(action: str) -> Draft:
        return Draft("bench", "", action, "success")

    targets = tuple(Target(concept, "thing") for concept in concepts)
    retain = load_retain_set(REFERENCE / "retain.txt").without(concepts)
    with Registry.create(folder, actor="bench") as registry:
        make_key(registry, "bench", draft("key.add"))
        add_base(registry, model, "base", draft("base.add"), lambda *_: None)
        request = EraseRequest(targets, retain=retain)
        made = erase(
            registry, "base", request, key=None, protect=(), draft=draft("patch.erase"), progress=lambda *_: None
        )
    return tuple(each.patch.patch_id for each in made)
