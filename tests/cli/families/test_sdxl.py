"""SDXL from the command line: erase, check, apply, revert, export, evaluate, and what is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.commandline import Run, rasura
from support.judges import tiny_clip
from support.models.single_files import to_ldm, to_open_clip
from support.models.tiny_xl import tiny_xl, tiny_xl_pipeline
from support.registries.workshop import digests

import rasura as package
from rasura.patches.algebra.compose import compose, layers_of
from rasura.patches.algebra.strength import ONE
from rasura.patches.errors import BaseMismatchError
from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.patches.hosts.live.torch_host import TorchHost
from rasura.patches.models.text_encoders.text_encoder import TextEncoder
from rasura.patches.prompts.concept_prompts import Target, align_columns
from rasura.patches.types import ParamName, PatchId
from rasura.registry.registry import Registry
from rasura.registry.trust.verified_patch import load_verified

WORDS = ("photo", "tree", "house")
ERASE = (
    *("erase", "--base", "the model", "--concept", "dog", "--anchor", "cat", "--retain", "retain.txt"),
    *("--template", "a photo of a {}", "--template", "{}", "--tokens", "last", "--layers", "kv"),
    *("--rank-rule", "relative:1e-2", "--set", "ridge=0", "--set", "energy=1"),
)


class Shop:
    """A folder with a registry and an SDXL model."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = folder / "the model"

    def typed(self, *arguments: str | Path, code: int = 0) -> Run:
        run = rasura(*arguments, "--json", cwd=self.folder)
        assert run.code == code, run.out + run.err
        return run

    @property
    def patch(self) -> PatchId:
        with Registry.open(self.folder) as registry:
            return registry.patches()[0].patch_id


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shop = Shop(tmp_path_factory.mktemp("xl") / "shop")
    shop.folder.mkdir()
    tiny_xl(shop.model, torch.float16)
    (shop.folder / "retain.txt").write_text("\n".join(WORDS))
    shop.typed("init")
    shop.typed("key", "new", "alice")
    shop.typed("base", "add", "the model", "--name", "xl")
    shop.typed(*ERASE)
    return shop.folder


@pytest.fixture
def shop(built: Path, tmp_path: Path) -> Shop:
    shutil.copytree(built, tmp_path / "shop")
    return Shop(tmp_path / "shop")


def weights(folder: Path) -> dict[ParamName, torch.Tensor]:
    host = CheckpointHost.open(folder)
    names = [name for name in host.parameters() if ".attn2.to_" in name and name.endswith(("k.weight", "v.weight"))]
    return {name: host.read([name])[name].to(torch.float64) for name in names}


def test_a_concept_becomes_its_anchor_and_the_rest_stays(shop: Shop) -> None:
    encoder = TextEncoder.pristine(CheckpointHost.open(shop.model))
    before, bytes_before = weights(shop.model), digests(shop.model)
    shop.typed("patch", "check", shop.patch)
    shop.typed("patch", "apply", shop.patch, "--model", "the model")
    after = weights(shop.model)
    C1, C_star = align_columns(encoder, Target("dog", "cat"), ("a photo of a {}", "{}"), "last")
    null = encoder.encode_all([""])[0].T
    kept = torch.cat([encoder.encode_all([f"a photo of a {word}" for word in WORDS]).flatten(0, 1)]).T
    for name, W in before.items():
        assert not torch.equal(after[name], W)
        asked = (W @ (C1 - C_star)).norm()
        assert float((after[name] @ C1 - W @ C_star).norm() / asked) < 0.02, name  # float16 rounds
        assert float(((after[name] - W) @ null).norm() / (W @ null).norm()) < 2e-3
        assert float(((after[name] - W) @ kept).norm() / (W @ kept).norm()) < 0.05
    measured = shop.typed("patch", "show", shop.patch).data
    assert "leak_retained" in json.dumps(measured)
    shop.typed("patch", "revert", shop.patch, "--model", "the model")
    assert digests(shop.model) == bytes_before


def test_a_live_pipeline_gets_the_bits_of_the_folder(shop: Shop) -> None:
    pipeline = tiny_xl_pipeline(shop.model)
    host = TorchHost.of(pipeline)
    names = sorted(host.parameters())
    pristine = host.digests(names)
    live = package.attach(pipeline, shop.folder)
    live.apply([shop.patch])
    patched = host.digests(names)
    shop.typed("patch", "apply", shop.patch, "--model", "the model")
    disk = CheckpointHost.open(shop.model)
    assert patched == disk.digests(names) != pristine
    live.revert([shop.patch])
    assert host.digests(names) == pristine


def test_a_single_file_gets_what_the_folder_gets(shop: Shop) -> None:
    file, layers = shop.folder / "model.safetensors", 1
    host = CheckpointHost.open(shop.model)
    parts: dict[str, dict[str, torch.Tensor]] = {"unet": {}, "text_encoder": {}, "text_encoder_2": {}}
    for name, tensor in host.read(host.parameters()).items():
        component, _, key = name.partition(".")
        parts[component][key] = tensor
    found = {f"model.diffusion_model.{key}": t for key, t in to_ldm(parts["unet"], layers).items()}
    found |= {f"conditioner.embedders.0.transformer.{key}": t for key, t in parts["text_encoder"].items()}
    found |= {f"conditioner.embedders.1.model.{key}": t for key, t in to_open_clip(parts["text_encoder_2"]).items()}
    save_file(found, file)
    before = file.read_bytes()
    one = shop.typed("patch", "apply", shop.patch, "--model", file).data
    two = shop.typed("patch", "apply", shop.patch, "--model", "the model").data
    assert one["after"] == two["after"] != one["before"] == two["before"]
    shop.typed("patch", "revert", shop.patch, "--model", file)
    assert file.read_bytes() == before


def test_the_same_request_is_the_same_patch_on_a_patched_model(shop: Shop) -> None:
    shop.typed("patch", "apply", shop.patch, "--model", "the model")
    again = shop.typed(*ERASE)
    assert again.envelope["changed"] is False
    assert shop.patch in again.out


def test_stock_diffusers_loads_the_exported_lora(shop: Shop) -> None:
    pytest.importorskip("peft", reason="diffusers loads LoRA files with peft")
    shop.typed("patch", "export", shop.patch, "-o", "out", "--format", "peft")
    given: dict[str, Any] = {"num_inference_steps": 2, "guidance_scale": 5.0, "output_type": "np"}

    def drawn(pipeline: Any) -> torch.Tensor:
        done = pipeline("a photo of a dog", **given, generator=torch.Generator().manual_seed(0))
        return torch.from_numpy(done.images)

    def fresh() -> Any:
        return tiny_xl_pipeline(shop.model).to(torch.float32)

    plain, lora, merged = fresh(), fresh(), fresh()
    lora.load_lora_weights(shop.folder / "out")
    host = TorchHost.of(merged)
    with Registry.open(shop.folder) as registry:
        layers = layers_of([(load_verified(registry, shop.patch).tensors.increments, ONE)])
    pristine = host.originals(layer.name for layer in layers)
    host.write({layer.name: compose(pristine[layer.name], layer.terms) for layer in layers})
    base, adapted, ours = drawn(plain), drawn(lora), drawn(merged)
    assert float((adapted - base).abs().max()) > 1e-3
    assert float((adapted - ours).abs().max()) < 1e-4


def test_a_model_with_another_second_encoder_is_refused(shop: Shop) -> None:
    """Its first encoder and its UNet are those of the base: the detector would look for vectors that never come."""
    other = tiny_xl(shop.folder / "other", torch.float16)
    file = other / "text_encoder_2" / "model.safetensors"
    tensors = load_file(file)
    key = next(key for key in tensors if key.endswith("layers.0.mlp.fc1.weight"))
    save_file({**tensors, key: tensors[key].flip(0)}, file, {"format": "pt"})
    mine, theirs = (TextEncoder.pristine(CheckpointHost.open(f)).encode_all(["dog"])[0, 1] for f in (shop.model, other))
    assert torch.equal(mine[:64], theirs[:64])
    assert float((mine - theirs)[64:].norm() / mine[64:].norm()) > 0.01
    error = shop.typed("patch", "apply", shop.patch, "--model", "other", code=5).envelope["error"]
    assert "text_encoder_2" in error["details"]["parameter"]
    live = package.attach(tiny_xl_pipeline(other), shop.folder)
    with pytest.raises(BaseMismatchError, match="text_encoder_2"):
        live.apply([shop.patch])
    alone = package.attach(tiny_xl_pipeline(other).unet, shop.folder)
    assert alone.apply([shop.patch]).applied  # a UNet alone cannot be asked what it is given


@pytest.mark.parametrize("method", ["sepme", "all-but-one", "clip-null-space"])
def test_methods_that_need_one_encoder_say_so(shop: Shop, method: str) -> None:
    arguments = ["erase", "--base", "xl", "--concept", "cat", "--anchor", "dog", "--retain", "retain.txt"]
    error = shop.typed(*arguments, "--method", method, code=1).envelope["error"]
    assert error["code"] == "unsupported_host"
    assert f"method {method}: expected a model that reads the embeddings of one CLIP" in error["message"]
    assert "text_encoder_2 (CLIP, width 1280)" in error["message"]


def test_an_evaluation_draws_with_both(shop: Shop) -> None:
    clip = tiny_clip(shop.folder / "tiny-clip")
    rows = [
        {"prompt": "a dog", "group": "forget", "object": "dog"},
        {"prompt": "a cat", "group": "retain", "object": "cat"},
    ]
    (shop.folder / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    line = ["evaluate", "--base", "xl", "--prompts", "prompts.jsonl", "--judge", f"clip:{clip}", "--steps", "2"]
    before = digests(shop.model)
    data = shop.typed(*line, "--patch", shop.patch).data
    assert data["drawn"]["pictures"] == 4
    assert digests(shop.model) == before
    error = shop.typed(*line, "--patch", shop.patch, "--attack", "all", code=1).envelope["error"]
    assert "attack all: expected a model that reads the embeddings of one CLIP" in error["message"]
