"""What leaves a training: the pipeline in one folder, and what the judge says of its pictures."""

# mypy: disable-error-code="no-untyped-call"
# (many of torch's own methods carry no types)

from __future__ import annotations

import json
import shutil

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from examples.reference_model.training.export import digests, forget_origin
from examples.reference_model.training.unet import scheduler
from transformers import CLIPTextModel

from rasura.evaluation.judges.classifier import load_judge

from .denoiser import build_unet
from .evaluate import draw_grid, measure, plan_questions
from .shipped import write_beside
from .world import World


def assemble(world: World, unet: UNet2DConditionModel, dtype: torch.dtype) -> StableDiffusionPipeline:
    """The stock pipeline of the parts."""
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(world.work / "vae", torch_dtype=dtype),
        text_encoder=CLIPTextModel.from_pretrained(world.work / "text_encoder", dtype=dtype),
        tokenizer=world.tokenizer,
        unet=unet,
        scheduler=scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def averaged_unet(world: World) -> UNet2DConditionModel:
    """The finished denoiser, or the averaged weights of the last checkpoint."""
    if (world.work / "unet").exists():
        return UNet2DConditionModel.from_pretrained(world.work / "unet")
    state = torch.load(world.work / "unet.state.pt", weights_only=True, map_location="cpu")
    unet = build_unet()
    with torch.no_grad():
        for parameter, value in zip(unet.parameters(), state["average"][0], strict=True):
            parameter.copy_(value)
    print(f"averaged weights of step {state['step']}", flush=True)
    return unet


def make_export(world: World) -> None:
    """Assemble the folder that is shipped, in fp16."""
    out = world.work / "model"
    pipeline = assemble(world, averaged_unet(world).half(), torch.float16)
    pipeline.save_pretrained(out / "pipeline", safe_serialization=True)
    forget_origin(out / "pipeline")
    for name in ("vocab.json", "merges.txt"):  # transformers < 5 reads these instead of tokenizer.json
        shutil.copyfile(world.work / "tokenizer" / name, out / "pipeline" / "tokenizer" / name)
    for name in ("classifier.json", "classifier.safetensors"):
        if (world.work / "judge" / name).exists():
            shutil.copyfile(world.work / "judge" / name, out / name)
    write_beside(out, world.words)
    for name, digest in digests(out).items():
        print(f"{digest}  {name}", flush=True)


def make_report(world: World) -> None:
    """Ask the exported model and write what the judge saw."""
    out = world.work / "model"
    pipeline = StableDiffusionPipeline.from_pretrained(out / "pipeline", torch_dtype=torch.float32).to(world.device)
    pipeline.set_progress_bar_config(disable=True)
    draw_grid(pipeline, world.words, world.work / "samples.png")
    judge = load_judge(out, str(world.device))
    report = measure(pipeline, judge, plan_questions(world.words, world.size.questions, seed=1))
    (world.work / "report.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps(report["tables"], indent=1, ensure_ascii=False), flush=True)
