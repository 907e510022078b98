"""Assemble the trained parts into the folder that is shipped: pipeline/, classifier, concepts.json and retain.txt.

python -m examples.reference_model.training.export --work work --out examples/reference_model
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from .unet import export as export_unet
from .unet import scheduler
from .vocabulary import DRAWN, EVALUATION_TEMPLATES, HELD_OUT, STYLE_WORDS, STYLES, SUPERCLASSES, with_article


def concepts() -> dict[str, object]:
    """What the model can be asked for, in a form that programs read."""
    return {
        "objects": [thing.name for thing in DRAWN],
        "superclass": {thing.name: thing.superclass for thing in DRAWN},
        "superclasses": list(SUPERCLASSES),
        "styles": list(STYLES),
        "style_synonyms": {style: list(words[1:]) for style, words in STYLE_WORDS.items() if len(words) > 1},
        "anchors": {"object": "its superclass", "style": "cartoon"},
        "held_out": list(HELD_OUT),
        "with_article": {noun: with_article(noun) for noun in (*(thing.name for thing in DRAWN), *SUPERCLASSES)},
        "evaluation_templates": [t.replace("{ao}", "{object}").replace("{s}", "{style}") for t in EVALUATION_TEMPLATES],
        "sampling": {"steps": 20, "guidance_scale": 3.0, "height": 64, "width": 64},
    }


def retained() -> list[str]:
    """The concepts that an erasure should protect: all but the held-out objects."""
    return [thing.name for thing in DRAWN if thing.name not in HELD_OUT] + list(SUPERCLASSES) + list(STYLES)


def assemble(work: Path) -> StableDiffusionPipeline:
    """The stock pipeline in fp16."""
    export_unet(work / "unet")
    half = torch.float16
    return StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(work / "vae", torch_dtype=half),
        text_encoder=CLIPTextModel.from_pretrained(work / "text" / "text_encoder", dtype=half),
        tokenizer=CLIPTokenizer.from_pretrained(work / "text" / "tokenizer"),
        unet=UNet2DConditionModel.from_pretrained(work / "unet" / "unet", torch_dtype=half),
        scheduler=scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def forget_origin(folder: Path) -> None:
    """Remove the paths that diffusers notes in each config: where the parts were trained is nobody's business."""
    for path in folder.glob("*/config.json"):
        config = json.loads(path.read_text(encoding="utf-8"))
        config.pop("_name_or_path", None)
        path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every weight file, by its path in the folder."""
    found = sorted(folder.rglob("*.safetensors"))
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder with vae/, text/, unet/ and judge/")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    pipeline = assemble(args.work)
    pipeline.save_pretrained(args.out / "pipeline", safe_serialization=True)
    forget_origin(args.out / "pipeline")
    for name in ("vocab.json", "merges.txt"):  # transformers < 5 reads these instead of tokenizer.json
        shutil.copyfile(args.work / "text" / "tokenizer" / name, args.out / "pipeline" / "tokenizer" / name)
    for name in ("classifier.json", "classifier.safetensors"):
        shutil.copyfile(args.work / "judge" / name, args.out / name)
    (args.out / "concepts.json").write_text(json.dumps(concepts(), indent=2) + "\n", encoding="utf-8")
    (args.out / "retain.txt").write_text("\n".join(retained()) + "\n", encoding="utf-8")
    for name, digest in digests(args.out).items():
        print(f"{digest}  {name}")


if __name__ == "__main__":
    main()
