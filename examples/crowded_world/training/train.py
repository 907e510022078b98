"""Train the crowded world from nothing, stage by stage; killed and started again, it goes on where it was.

    python -m examples.crowded_world.training.train --packages node_modules --work ~/.cache/rasura/crowded-world

Stages: pictures, tokenizer, vae, latents, text, captions, unet, judge, export, report. A stage that is done is not done
again; --stages names some only. The model of any checkpoint is exported by `--stages export` beside a running training.
To end the UNet's training early, start again with fewer --unet-steps: its last 15 % are the cool-down.
"""

# mypy: disable-error-code="no-untyped-call"
# (many of torch's own methods carry no types)

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

import torch
from diffusers import AutoencoderKL
from examples.reference_model.training.common import save_atomically, to_unit
from examples.reference_model.training.text_encoder import train_tokenizer
from examples.reference_model.training.vae import build as build_vae
from examples.reference_model.training.vae import fold_scale, psnr
from examples.reference_model.training.vae import loss_of as vae_loss
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPTextModel

from .captions import Scene, sample_caption, tokenizer_texts
from .course import Dice, Learner, learn
from .denoiser import Cache, DenoiserTeacher, build_unet, kind_of, picture_weights
from .evaluate import draw_grid
from .export import assemble, make_export, make_report
from .judge import JudgeTeacher, build_judge, judge_accuracy, save_judge
from .render import Drawings, Pictures, plan_fresh, plan_scenes, plan_test, render
from .text import TextTeacher, Towers, build_text_encoder, embed
from .world import REFERENCE_VAE, TINY, Size, World

_VALIDATION_PICTURES: Final = 96
_CHECKPOINTS_BETWEEN_GRIDS: Final = 6


def make_pictures(world: World) -> None:
    """Render what is trained on and what the judge is tested with."""
    drawings, size = Drawings(world.packages, world.words), world.size
    rng = random.Random(7)
    render(drawings, plan_test(size.things), 9).save(world.work / "test.npz")
    render(drawings, plan_fresh(size.things), 8).save(world.work / "fresh.npz")
    pictures = render(drawings, plan_scenes(size.pairs, size.things, rng), 7)
    pictures.save(world.work / "pictures.npz")
    print(f"{len(pictures.pixels)} pictures", flush=True)


def make_tokenizer(world: World) -> None:
    """Train and save the tokenizer."""
    part = world.work / "tokenizer.part"
    part.mkdir(exist_ok=True)
    tokenizer = train_tokenizer(tokenizer_texts(world.words, random.Random(7)), part, world.size.vocabulary)
    part.rename(world.work / "tokenizer")
    print(f"{len(tokenizer)} tokens: {tokenizer.tokenize('a vampire by mirka dovrell, hundegesicht')}", flush=True)


def make_vae(world: World) -> None:
    """Go on training an autoencoder, or start from nothing, and fold in the scale of the latents."""
    vae = build_vae()
    if world.vae_from is not None:
        vae.load_state_dict(load_file(world.vae_from / "diffusion_pytorch_model.safetensors"))
        vae.float()
    vae.to(world.device)
    pixels = world.pictures.pixels
    checked = to_unit(pixels[:: max(1, len(pixels) // _VALIDATION_PICTURES)]).to(world.device)

    def loss(dice: Dice) -> Tensor:
        chosen = torch.randint(len(pixels), (world.size.vae_batch,), generator=dice.noise).tolist()
        return vae_loss(vae, to_unit(pixels[chosen]).to(world.device))

    print(f"psnr {psnr(vae, checked):.2f} dB before", flush=True)
    learn(vae, loss, world.course(world.size.vae_steps, 1e-3, average=0.995, cooldown=0.5), world.work / "vae.state.pt")
    print(f"psnr {psnr(vae, checked):.2f} dB after", flush=True)
    fold_scale(vae, to_unit(pixels[::5]).to(world.device))
    vae.cpu().save_pretrained(world.work / "vae.part")
    (world.work / "vae.part").rename(world.work / "vae")


@torch.no_grad()
def make_latents(world: World) -> None:
    """Encode all pictures, without sampling noise."""
    vae = AutoencoderKL.from_pretrained(world.work / "vae").to(world.device).eval()
    parts = [vae.encode(to_unit(world.pictures.pixels[start : start + 64]).to(world.device)).latent_dist.mode().cpu()
             for start in range(0, len(world.pictures.pixels), 64)]  # fmt: skip
    latents = torch.cat(parts)
    print(f"{len(latents)} latents, deviation {latents.std().item():.3f}", flush=True)
    save_atomically(latents.half(), world.work / "latents.pt")


def make_text(world: World) -> None:
    """Train the text encoder."""
    torch.manual_seed(7)
    tokenizer, size = world.tokenizer, world.size
    towers = Towers(build_text_encoder(tokenizer), world.latents[0].numel()).to(world.device)
    weights = picture_weights(world.pictures)
    scenes = world.pictures.scenes
    teacher = TextTeacher(
        towers,
        tokenizer,
        latents=world.latents,
        scenes=scenes,
        weights=weights,
        words=world.words,
        batch=size.text_batch,
    )
    learn(towers, teacher.loss, world.course(size.text_steps, 8e-4, cooldown=0.4), world.work / "text.state.pt")
    rng = random.Random(11)
    asked = [sample_caption(scenes[i], world.words, rng) for i in rng.choices(range(len(scenes)), k=2000)]
    print("heads on 2000 captions:", {k: round(v, 3) for k, v in teacher.accuracy(asked).items()}, flush=True)
    towers.text.cpu().save_pretrained(world.work / "text_encoder.part")
    (world.work / "text_encoder.part").rename(world.work / "text_encoder")


def make_captions(world: World) -> None:
    """Draw some captions for every scene and cache their embeddings."""
    rng, size = random.Random(7), world.size
    rows: dict[str, int] = {"": 0}
    by_scene: dict[Scene, list[int]] = {}
    for scene in dict.fromkeys(world.pictures.scenes):
        count = size.captions_of_cell if kind_of(scene) == "single" else size.captions_of_scene
        texts = dict.fromkeys(sample_caption(scene, world.words, rng).text for _ in range(count))
        by_scene[scene] = [rows.setdefault(text, len(rows)) for text in texts]
    model = CLIPTextModel.from_pretrained(world.work / "text_encoder").eval()
    torch.nn.Module.to(model, world.device)
    embeddings, mask = embed(model, world.tokenizer, list(rows))
    print(f"{len(rows)} captions", flush=True)
    listed = [by_scene[scene] for scene in world.pictures.scenes]
    save_atomically({"embeddings": embeddings, "mask": mask, "rows": listed}, world.work / "captions.pt")


def read_cache(world: World) -> Cache:
    """What the UNet's training reads."""
    stored = torch.load(world.work / "captions.pt", weights_only=True)
    scenes = world.pictures.scenes
    rows = dict(zip(scenes, stored["rows"], strict=True))
    weights = picture_weights(world.pictures)
    return Cache(world.latents, scenes, weights, stored["embeddings"], stored["mask"], rows, 0)


def make_unet(world: World) -> None:
    """Train the denoiser; every hour a grid of samples is drawn."""
    from diffusers.models.attention_processor import AttnProcessor

    torch.manual_seed(7)
    unet = build_unet()
    if world.unet_from is not None:
        unet.load_state_dict(load_file(world.unet_from / "diffusion_pytorch_model.safetensors"))
    unet.to(world.device, torch.float32)
    if world.device.type == "cpu":
        unet.set_attn_processor(AttnProcessor())  # the fused attention's backward pass is slow on CPUs
    teacher = DenoiserTeacher(unet, read_cache(world), world.size.unet_batch, world.device)
    seen = 0

    def look(learner: Learner) -> None:
        nonlocal seen
        if seen % _CHECKPOINTS_BETWEEN_GRIDS == 0:
            with learner.averaged():
                pipeline = assemble(world, unet, torch.float32).to(world.device)
                draw_grid(pipeline, world.words, world.work / f"grid-{learner.step:06d}.png", steps=12)
            unet.train()
        seen += 1

    course = world.course(world.size.unet_steps, 1e-3, average=0.999)
    learn(unet, teacher.loss, course, world.work / "unet.state.pt", look)
    unet.cpu().save_pretrained(world.work / "unet.part")
    (world.work / "unet.part").rename(world.work / "unet")


def make_judge(world: World) -> None:
    """Train the judge and test it on placements and on a set of drawings that it never saw."""
    torch.manual_seed(7)
    network, pictures = build_judge().to(world.device), world.pictures
    weights = picture_weights(pictures)
    for index, scene in enumerate(pictures.scenes):
        if kind_of(scene) not in {"single", "ground"}:
            weights[index] = 0
    teacher = JudgeTeacher(network, pictures, weights, world.size.judge_batch, world.device)
    course = world.course(world.size.judge_steps, 2e-3, cooldown=0.5, weight_decay=0.02)
    learn(network, teacher.loss, course, world.work / "judge.state.pt")
    facts = {name: judge_accuracy(network, Pictures.load(world.work / f"{name}.npz")) for name in ("fresh", "test")}
    print(facts, flush=True)
    save_judge(network, world.work / "judge.part")
    (world.work / "judge.part" / "accuracy.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    (world.work / "judge.part").rename(world.work / "judge")


# Stage -> what it makes (None: it is done whenever it is asked for), and how.
STAGES: Final[dict[str, tuple[str | None, Callable[[World], None]]]] = {
    "pictures": ("pictures.npz", make_pictures),
    "tokenizer": ("tokenizer", make_tokenizer),
    "vae": ("vae", make_vae),
    "latents": ("latents.pt", make_latents),
    "text": ("text_encoder", make_text),
    "captions": ("captions.pt", make_captions),
    "unet": ("unet", make_unet),
    "judge": ("judge", make_judge),
    "export": (None, make_export),
    "report": (None, make_report),
}


def run(world: World, stages: list[str]) -> None:
    """Run the stages that are not done."""
    world.work.mkdir(parents=True, exist_ok=True)
    for name in stages:
        made, make = STAGES[name]
        if made is not None and (world.work / made).exists():
            print(f"{name}: done before", flush=True)
            continue
        print(f"{name}:", flush=True)
        make(world)


def main() -> None:
    """Command line."""
    usual = Size()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=Path, required=True, help="folder node_modules")
    parser.add_argument("--work", type=Path, default=Path.home() / ".cache" / "rasura" / "crowded-world")
    parser.add_argument("--stages", default=",".join(STAGES), help="comma-separated, in order")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", choices=("bfloat16", "float32"), default="bfloat16", help="of products")
    parser.add_argument("--unet-steps", type=int, default=usual.unet_steps)
    parser.add_argument("--unet-batch", type=int, default=usual.unet_batch)
    parser.add_argument("--questions", type=int, default=usual.questions, help="cells that the report asks for")
    parser.add_argument("--vae-from-nothing", action="store_true", help="not from the small reference model's")
    parser.add_argument("--unet-from", type=Path, help="folder of a UNet that was trained before, to go on from")
    parser.add_argument("--tiny", action="store_true", help="three objects and a few steps: does everything run?")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)
    size = TINY if args.tiny else replace(
        usual, unet_steps=args.unet_steps, unet_batch=args.unet_batch, questions=args.questions
    )  # fmt: skip
    start = None if args.vae_from_nothing else REFERENCE_VAE
    device, precision = torch.device(args.device), getattr(torch, args.precision)
    run(World(args.packages, args.work, size, device, start, precision, args.unet_from), args.stages.split(","))


if __name__ == "__main__":
    main()
