# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""A pushed repository as a stranger finds it: downloaded by stock tools, checked by OpenSSF's, loaded by other programs."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import HfApi
from safetensors.torch import load_file
from support.hubserver import TOKEN, HubServer
from support.models.tiny import tiny_pipeline
from support.registries.workshop import SPEC, Workshop, workshop

from rasura.patches.algebra.compose import compose, layers_of
from rasura.patches.algebra.strength import ONE
from rasura.patches.format.spellings.lora_names import LoraNames
from rasura.patches.hosts.live.torch_host import TorchHost
from rasura.patches.types import PatchId
from rasura.registry._storage.records.records import Draft
from rasura.registry.hub.card.front_matter import split
from rasura.registry.hub.remote import Remote
from rasura.registry.hub.transfer import push_patches
from rasura.registry.trust.verified_patch import load_verified

pytest.importorskip("peft", reason="diffusers loads LoRA files with peft")
REPO = "acme/erasures"


@pytest.fixture
def downloaded(workshop: Workshop, plain_hub: HubServer, tmp_path: Path) -> Path:
    """One patch in the root, then two beside it; all of it, as `hf download` fetches it."""
    with workshop.open() as registry:
        for patches in ((workshop.dog,), (workshop.photo, workshop.van_gogh)):
            push_patches(
                registry,
                patches,
                REPO,
                base_model="acme/base",
                licence="mit",
                private=False,
                tool_version="0.1.0",
                remote=Remote(plain_hub.url, TOKEN),
                draft=Draft("alice", "", "patch.push", "success"),
            )
        (tmp_path / "key.pub").write_text(registry.key("alice").pem)
    folder = tmp_path / "downloaded"
    HfApi(endpoint=plain_hub.url, token=False).snapshot_download(REPO, local_dir=folder)
    return folder


def file_of(folder: Path, patch_id: PatchId) -> Path:
    (found,) = (folder / "comfyui").glob(f"*-{patch_id[:12]}.safetensors")
    return found


def weights(pipeline: Any) -> dict[str, torch.Tensor]:
    return {
        n: p.detach().float() for n, p in pipeline.unet.named_parameters() if n.endswith(("to_k.weight", "to_v.weight"))
    }


@pytest.mark.filterwarnings("ignore:.*:FutureWarning")
def test_stock_diffusers_and_the_file_for_comfyui_give_what_we_write(workshop: Workshop, downloaded: Path) -> None:
    with workshop.open() as registry:
        patch = load_verified(registry, workshop.photo)
    ours = tiny_pipeline(SPEC)
    host = TorchHost.of(ours)
    layers = layers_of([(patch.tensors.increments, ONE)])
    pristine = host.originals(layer.name for layer in layers)
    host.write({layer.name: compose(pristine[layer.name], layer.terms) for layer in layers})
    expected = weights(ours)

    ours_lora = tiny_pipeline(SPEC)
    ours_lora.load_lora_weights(
        str(downloaded / f"patches/{workshop.photo}"), weight_name="pytorch_lora_weights.safetensors"
    )
    theirs = tiny_pipeline(SPEC)
    theirs.load_lora_weights(str(file_of(downloaded, workshop.photo)))
    for pipeline in (ours_lora, theirs):
        pipeline.fuse_lora()
        pipeline.unload_lora_weights()
        found = weights(pipeline)
        assert found.keys() == expected.keys()
        assert max(float((found[n] - expected[n]).abs().max()) for n in expected) < 2e-3  # float16
    assert float(max((expected[n] - weights(tiny_pipeline(SPEC))[n]).abs().max() for n in expected)) > 1e-2


def test_the_names_in_the_file_are_those_that_comfyui_looks_for_and_those_of_the_folder_are_not(
    workshop: Workshop,
    downloaded: Path,
) -> None:
    """ComfyUI knows a UNet's layers as `lora_unet_…`, and as `unet.….processor.to_k` in its map of LoRA keys."""
    with workshop.open() as registry:
        names = load_verified(registry, workshop.photo).tensors.increments
    known = {LoraNames().place(name).key for name in names}
    known |= {
        f"unet.{n.removeprefix('unet.').removesuffix('.weight').replace('.to_', '.processor.to_')}" for n in names
    }
    ends = (".lora_down.weight", ".lora_up.weight", ".alpha", ".lora_A.weight", ".lora_B.weight")

    def modules(path: Path) -> set[str]:
        return {key.removesuffix(next(end for end in ends if key.endswith(end))) for key in load_file(path)}

    assert modules(file_of(downloaded, workshop.photo)) == {LoraNames().place(name).key for name in names}
    folder = downloaded / f"patches/{workshop.photo}"
    assert not modules(folder / "pytorch_lora_weights.safetensors") & known


def test_the_card_names_every_file_and_every_file_of_the_card_is_there(workshop: Workshop, downloaded: Path) -> None:
    front, body = split((downloaded / "README.md").read_text())
    rows = front["rasura"]["patches"]
    assert {row["id"] for row in rows} == set(workshop.all)
    for row in rows:
        assert (downloaded / row["path"] / "pytorch_lora_weights.safetensors").is_file()
        assert (downloaded / row["comfyui"]).is_file()
        assert row["comfyui"] in body
    assert body.count("load_lora_weights(") == 3


@pytest.mark.skipif(importlib.util.find_spec("model_signing") is None, reason="needs model_signing: rasura[dev]")
def test_the_stock_verifier_accepts_the_root_as_the_card_says(workshop: Workshop, downloaded: Path) -> None:
    text = (downloaded / "README.md").read_text()
    assert "--public_key KEY.pub --ignore_unsigned_files" in text

    def verify(folder: Path, *more: str) -> int:
        arguments = [folder, "--signature", folder / "model.sig", "--public_key", downloaded.parent / "key.pub", *more]
        command = [sys.executable, "-m", "model_signing", "verify", "key", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, check=False, timeout=120).returncode

    assert verify(downloaded) != 0
    assert verify(downloaded, "--ignore_unsigned_files") == 0
    assert verify(downloaded / f"patches/{workshop.photo}") == 0
    weights_file = downloaded / "pytorch_lora_weights.safetensors"
    data = bytearray(weights_file.read_bytes())
    data[-1] ^= 1
    weights_file.write_bytes(data)
    assert verify(downloaded, "--ignore_unsigned_files") != 0
