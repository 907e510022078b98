"""Pipelines around models that are known: films of pictures' UNets, adapters, encoders left out or read in half."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from support.commandline import rasura
from support.models.tiny import TinySpec, tiny_model, tiny_pipeline
from support.models.tiny_pipelines import tiny_of
from support.models.tiny_t5 import tiny_t5
from support.registries.workshop import digests

import rasura as package
from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.patches.hosts.live.torch_host import TorchHost
from rasura.registry.registry import Registry
from rasura.registry.trust.verified_patch import load_verified

SPEC = TinySpec(size="wide")
ERASE = (
    *("--concept", "dog", "--anchor", "cat", "--retain", "retain.txt", "--template", "a photo of {}"),
    *("--held-out", "held-out.txt"),
    *("--tokens", "tail", "--rank-rule", "relative:0.01"),
)
FRAMES = (".motion_modules.", ".temp_attentions.", ".transformer_in.")


def _typed(folder: Path, *arguments: str | Path) -> str:
    run = rasura(*arguments, cwd=folder)
    assert run.code == 0, run.out + run.err
    return run.out + run.err


def _begin(folder: Path) -> None:
    (folder / "retain.txt").write_text("photo\nhouse\n")
    (folder / "held-out.txt").write_text("river\n")
    _typed(folder, "init")
    _typed(folder, "key", "new", "alice")


def _animated() -> Any:
    """AnimateDiff around the tiny model of pictures; its layers over frames are as wide as the text."""
    parts = tiny_pipeline(SPEC).components
    adapter = diffusers.MotionAdapter(
        block_out_channels=(32, 64), motion_layers_per_block=1, motion_norm_num_groups=8, motion_num_attention_heads=2,
        motion_mid_block_layers_per_block=1, use_motion_mid_block=True,
    )  # fmt: skip
    given = {name: parts[name] for name in ("vae", "text_encoder", "tokenizer", "unet", "scheduler")}
    return diffusers.AnimateDiffPipeline(motion_adapter=adapter, **given)


def _film() -> Any:
    """ModelScope's kind."""
    parts = tiny_pipeline(SPEC).components
    unet = diffusers.UNet3DConditionModel(
        block_out_channels=(32, 64), layers_per_block=1, cross_attention_dim=128, norm_num_groups=8,
        attention_head_dim=8, down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
    )  # fmt: skip
    given = {name: parts[name] for name in ("vae", "text_encoder", "tokenizer", "scheduler")}
    return diffusers.TextToVideoSDPipeline(unet=unet, **given)


@pytest.mark.parametrize(("make", "family"), [(_animated, "SD 1.x"), (_film, "SD 2.x")])
def test_attention_over_frames_is_left_alone(make: Callable[[], Any], family: str, tmp_path: Path) -> None:
    pipeline, model = make(), tmp_path / "model"
    pipeline.save_pretrained(model)
    files = digests(model)
    _begin(tmp_path)
    assert f"family  {family}" in _typed(tmp_path, "probe", "model")
    _typed(tmp_path, "base", "add", "model", "--name", "it")
    _typed(tmp_path, "erase", "--base", "it", "--layers", "kv", *ERASE)
    with Registry.open(tmp_path) as registry:
        (record,) = registry.patches()
        touched = [each.name for each in load_verified(registry, record.patch_id).manifest.base.parameters]
    names = CheckpointHost.open(model).parameters()
    alike = [name for name in names if ".attn2.to_" in name and name.endswith(("to_k.weight", "to_v.weight"))]
    frames = [name for name in alike if any(place in name for place in FRAMES)]
    assert frames
    assert sorted([*touched, *frames]) == sorted(alike)

    _typed(tmp_path, "patch", "apply", record.patch_id, "--model", "model")
    live = TorchHost.of(pipeline)
    before = live.digests(live.parameters())
    handle = package.attach(pipeline, tmp_path)
    handle.apply([record.patch_id])
    after = live.digests(alike)
    assert after == CheckpointHost.open(model).digests(alike)
    assert {name for name in alike if after[name] != before[name]} == {*touched}
    handle.revert([record.patch_id])
    assert live.digests(live.parameters()) == before
    _typed(tmp_path, "patch", "revert", record.patch_id, "--model", "model")
    assert digests(model) == files
    refused = rasura(
        *("evaluate", "--base", "it", "--prompts", "retain.txt", "--patch", record.patch_id, "--json"), cwd=tmp_path
    )
    assert refused.code != 0
    assert "Traceback" not in refused.err


def test_a_patch_of_the_model_of_pictures_applies_to_the_films_that_are_made_of_it(tmp_path: Path) -> None:
    tiny_model(tmp_path / "pictures", SPEC)
    _begin(tmp_path)
    _typed(tmp_path, "base", "add", "pictures", "--name", "it")
    _typed(tmp_path, "erase", "--base", "it", "--layers", "kv", *ERASE)
    with Registry.open(tmp_path) as registry:
        (record,) = registry.patches()
    handle = package.attach(_animated(), tmp_path)
    assert handle.apply([record.patch_id]).applied
    handle.revert()


def test_an_sd3_without_its_t5_becomes_whole_by_what_the_message_says(tmp_path: Path) -> None:
    whole, model = tiny_t5(tmp_path / "whole", "SD3"), tiny_t5(tmp_path / "model", "SD3")
    for part in ("text_encoder_3", "tokenizer_3"):
        shutil.rmtree(model / part)
    index = json.loads((model / "model_index.json").read_text())
    index |= {"text_encoder_3": [None, None], "tokenizer_3": [None, None]}
    (model / "model_index.json").write_text(json.dumps(index))
    _begin(tmp_path)
    refused = rasura("base", "add", "model", "--json", cwd=tmp_path)
    error = refused.envelope["error"]
    assert "put tokenizer_3/ and text_encoder_3/ of the whole model there" in error["message"]
    for part in ("text_encoder_3", "tokenizer_3"):
        shutil.copytree(whole / part, model / part)
    assert error["hint"] == "rasura base add DIR"
    _typed(tmp_path, "base", "add", "model", "--name", "it")
    _typed(tmp_path, "erase", "--base", "it", "--layers", "text", *ERASE)


def test_text_that_was_read_in_half_is_said_so_and_goes_back_to_the_bit(tmp_path: Path) -> None:
    half = {**os.environ, "RASURA_ENCODER_DTYPE": "bfloat16", "RASURA_ENCODER_DEVICE": "cpu"}
    model = tiny_of(tmp_path / "model", "Chroma")
    files = digests(model)
    _begin(tmp_path)
    _typed(tmp_path, "base", "add", "model", "--name", "it")
    erase = ("erase", "--base", "it", "--layers", "text", *ERASE)
    started = [sys.executable, "-m", "rasura", *erase]  # a process of its own, which reads its environment once
    told = subprocess.run(started, cwd=tmp_path, env=half, capture_output=True, text=True, check=True).stdout
    assert "text was read in bfloat16: what is exact is so of rows as this encoder gives them" in told
    _typed(tmp_path, *erase)
    with Registry.open(tmp_path) as registry:
        said = {
            load_verified(registry, record.patch_id).manifest.base.read_as: record.patch_id
            for record in registry.patches()
        }
    assert said.keys() == {"", "BF16"}
    shown = _typed(tmp_path, "patch", "show", said["BF16"])
    assert re.search(r"text read in +BF16: exact as this encoder gives it", shown)
    _typed(tmp_path, "patch", "apply", said["BF16"], "--model", "model")
    assert digests(model) != files
    _typed(tmp_path, "patch", "revert", "--all", "--model", "model", "--yes")
    assert digests(model) == files


def test_a_t2i_adapter_is_said_by_base_add_and_by_status(tmp_path: Path) -> None:
    parts = tiny_pipeline(SPEC).components
    pipeline = diffusers.StableDiffusionAdapterPipeline(
        **{name: parts[name] for name in ("vae", "text_encoder", "tokenizer", "unet", "scheduler")},
        adapter=diffusers.T2IAdapter(channels=[32, 64], num_res_blocks=1, downscale_factor=2),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip
    pipeline.save_pretrained(tmp_path / "model")
    _begin(tmp_path)
    said = "adapter is a T2I-Adapter, which reads a picture: no erasure of text covers it"
    assert said in _typed(tmp_path, "base", "add", "model", "--name", "it")
    _typed(tmp_path, "erase", "--base", "it", "--layers", "kv", *ERASE)
    assert said in _typed(tmp_path, "patch", "status", "--model", "model")
    with pytest.warns(UserWarning, match="adapter is a T2I-Adapter"):
        assert package.attach(pipeline, tmp_path).status().uncovered == (said,)


def test_an_ip_adapter_of_a_live_pipeline_is_said_and_patches_go_beside_it(tmp_path: Path) -> None:
    tiny_model(tmp_path / "model", SPEC)
    _begin(tmp_path)
    _typed(tmp_path, "base", "add", "model", "--name", "it")
    _typed(tmp_path, "erase", "--base", "it", "--layers", "kv", *ERASE)
    pipeline = tiny_pipeline(SPEC)
    pipeline.unet._load_ip_adapter_weights([_ip_adapter(pipeline.unet)])  # the loader asks the network
    with pytest.warns(UserWarning, match=r"encoder_hid_proj is an encoder of pictures \(IP-Adapter and the like\)"):
        handle = package.attach(pipeline, tmp_path)
    with Registry.open(tmp_path) as registry:
        (record,) = registry.patches()
    before = handle.host.digests(handle.host.parameters())
    assert handle.apply([record.patch_id]).applied
    handle.revert()
    assert handle.host.digests(handle.host.parameters()) == before


def _ip_adapter(unet: Any) -> dict[str, dict[str, torch.Tensor]]:
    """The weights of a small one, as its files hold them."""
    wide, seen = int(unet.config.cross_attention_dim), 16
    layers = [name for name in unet.attn_processors if ".attn2." in name]
    found: dict[str, torch.Tensor] = {}
    for i, name in enumerate(layers):
        rows = unet.get_submodule(name.removesuffix(".processor")).to_k.weight.shape[0]
        found |= {f"{2 * i + 1}.to_{role}_ip.weight": torch.randn(rows, wide) * 0.1 for role in "kv"}
    projection = {
        "proj.weight": torch.randn(4 * wide, seen) * 0.1, "proj.bias": torch.zeros(4 * wide),
        "norm.weight": torch.ones(wide), "norm.bias": torch.zeros(wide),
    }  # fmt: skip
    return {"image_proj": projection, "ip_adapter": found}
