"""Pictures of pipelines around a transformer: what the pipeline itself draws, and an evaluation from the command line."""

import json
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from support.commandline import rasura
from support.full import some
from support.judges import tiny_clip
from support.models.tiny_pipelines import open_tiny, tiny_of
from support.models.tiny_t5 import tiny_t5
from support.registries.workshop import digests

from rasura.evaluation.images.painter import Painter, Sampling, Shot
from rasura.patches.errors import UnsupportedHostError

_CHANNELS = {"Chroma": 1, "CogView4": 4, "Lumina 2": 4, "Kolors": 4}
"""Of the latents, in families whose tiny folders have nothing that decodes them."""
DRAWN = some(
    ["SD3", "PixArt", "CogView4", "Kolors"], ["SD3", "FLUX", "PixArt", "Chroma", "CogView4", "Lumina 2", "Kolors"]
)


def _drawable(folder: Path, name: str) -> Path:
    if name not in _CHANNELS:
        return tiny_t5(folder, name)

    pipeline = open_tiny(tiny_of(folder.with_name("undecoded"), name))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae = diffusers.AutoencoderKL(
            block_out_channels=(8, 16), down_block_types=("DownEncoderBlock2D",) * 2, norm_num_groups=8,
            up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=_CHANNELS[name], sample_size=32, shift_factor=0.0,
            force_upcast=False,
        )  # fmt: skip
    pipeline.register_modules(vae=vae)
    pipeline.save_pretrained(folder)
    return folder


def _by_itself(folder: Path, shot: Shot) -> Any:
    """A picture as whoever has the pipeline draws it."""
    index = json.loads((folder / "model_index.json").read_text())
    pipeline = getattr(diffusers, index["_class_name"]).from_pretrained(folder, local_files_only=True)
    given = {"use_resolution_binning": False} if "PixArt" in index["_class_name"] else {}
    noise = torch.Generator().manual_seed(shot.seed)
    return pipeline(shot.prompt, num_inference_steps=2, guidance_scale=3.0, generator=noise, **given).images[0]


@pytest.mark.parametrize("name", DRAWN)
def test_a_painter_draws_what_the_pipeline_draws(name: str, tmp_path: Path) -> None:
    folder = _drawable(tmp_path / "model", name)
    painter, shot = Painter.load(folder, Sampling(steps=2, batch=1)), Shot("a photo of dog", 3)
    (picture,) = painter.draw_batch([shot])
    assert np.array_equal(np.asarray(picture), np.asarray(_by_itself(folder, shot)))
    (other,) = painter.draw_batch([Shot(shot.prompt, 4)])
    assert not np.array_equal(np.asarray(picture), np.asarray(other))


@pytest.mark.parametrize("name", DRAWN)
def test_an_evaluation_draws_and_leaves_the_model(name: str, tmp_path: Path) -> None:
    folder = _drawable(tmp_path / "model", name)
    files = digests(folder)
    (tmp_path / "retain.txt").write_text("photo\ntree\nhouse\n")
    rows = [
        {"prompt": f"a photo of {word}", "group": group, "object": word}
        for word, group in (("dog", "forget"), ("cat", "retain"))
    ]
    (tmp_path / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    rasura("init", cwd=tmp_path)
    rasura("key", "new", "alice", cwd=tmp_path)
    erase = ["erase", "--base", "model", "--concept", "dog", "--anchor", "cat", "--retain", "retain.txt"]
    erase += ["--template", "a photo of {}", "--tokens", "last", "--layers", "text", "--json"]
    (patch,) = rasura(*erase, cwd=tmp_path).data["patches"]
    line = ["evaluate", "--base", "model", "--prompts", "prompts.jsonl", "--steps", "2", "--patch", patch["id"]]
    line += ["--judge", f"clip:{tiny_clip(tmp_path / 'tiny-clip')}", "--json"]
    assert rasura(*line, cwd=tmp_path).data["drawn"]["pictures"] == 4
    assert digests(folder) == files
    error = rasura(*line, "--attack", "all", cwd=tmp_path).envelope["error"]
    assert "attack all: expected a model that reads the embeddings of one CLIP" in error["message"]


def test_what_is_not_drawn_with_is_called_by_its_class(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedHostError, match="got WanPipeline: nothing is drawn with it here"):
        Painter.load(tiny_of(tmp_path / "model", "Wan"))


def test_a_unet_of_another_kind_is_called_by_its_pipeline(tmp_path: Path) -> None:
    """That of films is one of another class, which Stable Diffusion's pipeline would take for its own."""
    index = {"_class_name": "AnimateDiffPipeline", "unet": ["diffusers", "UNetMotionModel"]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(UnsupportedHostError, match="got AnimateDiffPipeline: nothing is drawn with it here"):
        Painter.load(tmp_path)


def test_a_transformer_without_its_decoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedHostError, match=r"no picture can be drawn.*model_index\.json names no vae"):
        Painter.load(tiny_of(tmp_path / "model", "Chroma"))
