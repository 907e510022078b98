"""Every spelling of weights and adapters is read as the same ΔW, and what is none is refused by name."""

import json
import pickle
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.models.foreign import lora_of, save_kohya
from support.models.single_files import single_file
from support.models.tiny import TinySpec, tiny_components, tiny_model

from rasura.patches.errors import (
    FormatError,
    HostError,
    InputError,
    NotFiniteError,
    NotFoundError,
    UnsupportedHostError,
)
from rasura.patches.foreign.changes import OTHER, PICTURE, TEXT, Change, find_changes, sort_layers
from rasura.patches.foreign.open_foreign import open_foreign
from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.patches.types import ParamName

SPEC = TinySpec(size="small")
WEIGHTS = "diffusion_pytorch_model.safetensors"
LAYERS = ("attn2.to_k.weight", "attn2.to_v.weight")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("base") / "model", SPEC)


@pytest.fixture(scope="module")
def host(model: Path) -> CheckpointHost:
    return CheckpointHost.open(model)


@pytest.fixture(scope="module")
def edited(model: Path) -> dict[str, torch.Tensor]:
    """The cross-attention of another model, by the names of the UNet's state dict."""
    unet = load_file(model / "unet" / WEIGHTS)
    torch.manual_seed(0)
    return {n: (w + 0.1 * torch.randn_like(w)).contiguous() for n, w in unet.items() if n.endswith(LAYERS)}


def changes(host: CheckpointHost, path: Path, scale: float = 1.0) -> dict[str, Change]:
    found = find_changes(host, open_foreign(path, host.parameters()), scale, lambda *_: None)
    return {change.size.name: change for change in found}


def expected(host: CheckpointHost, edited: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    names = {n: ParamName(f"unet.{n}") for n in edited}
    base = host.originals(names.values())
    return {names[n]: edited[n].to(torch.float64) - base[names[n]].to(torch.float64) for n in edited}


def same(found: Mapping[str, Change], wanted: Mapping[str, torch.Tensor]) -> None:
    assert set(found) == set(wanted)
    for name, delta in wanted.items():
        assert torch.equal(found[name].delta, delta)
        assert found[name].delta.dtype == torch.float64
        assert found[name].size.change == pytest.approx(float(delta.norm()))


def test_weights_in_every_spelling(
    host: CheckpointHost, model: Path, edited: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    wanted = expected(host, edited)
    unet = load_file(model / "unet" / WEIGHTS) | edited
    pipeline = tmp_path / "pipeline"
    shutil.copytree(model, pipeline)
    save_file(unet, pipeline / "unet" / WEIGHTS)
    save_file(edited, tmp_path / "uce.safetensors")
    save_file({f"unet.{n}": w for n, w in edited.items()}, tmp_path / "esd.sft")
    save_file(unet, tmp_path / "whole.safetensors")
    torch.save(edited, tmp_path / "speed.pt")
    torch.save({"unet": edited, "modifier_token": {}, "step": 7}, tmp_path / "delta.bin")  # Concept Ablation
    torch.save({"state_dict": {f"unet.{n}": w for n, w in unet.items()}, "epoch": 1}, tmp_path / "full.ckpt")
    names = ("uce.safetensors", "esd.sft", "whole.safetensors", "speed.pt", "delta.bin", "full.ckpt", "pipeline/unet")
    for name in (*names, "pipeline"):
        same(changes(host, tmp_path / name), wanted)


def test_a_compvis_file(host: CheckpointHost, model: Path, edited: dict[str, torch.Tensor], tmp_path: Path) -> None:
    pipeline = tmp_path / "pipeline"
    shutil.copytree(model, pipeline)
    save_file(load_file(model / "unet" / WEIGHTS) | edited, pipeline / "unet" / WEIGHTS)
    same(changes(host, single_file(pipeline, tmp_path / "sd.safetensors")), expected(host, edited))


def test_half_precision_changes_nothing_that_nobody_changed(
    host: CheckpointHost, model: Path, edited: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    save_file({n: w.half() for n, w in (load_file(model / "unet" / WEIGHTS) | edited).items()}, tmp_path / "h.sft")
    found = changes(host, tmp_path / "h.sft")
    wanted = expected(host, edited)
    assert set(found) == set(wanted)
    assert all(float((found[n].delta - d).norm() / d.norm()) < 1e-2 for n, d in wanted.items())


def test_a_pipeline_in_shards(host: CheckpointHost, edited: dict[str, torch.Tensor], tmp_path: Path) -> None:
    sharded = tiny_model(tmp_path / "sharded", TinySpec(size="small", sharded=True))
    assert changes(host, sharded) == {}
    next((sharded / "unet").glob("*-00001-of-*.safetensors")).unlink()
    with pytest.raises(HostError, match="00001"):
        changes(host, sharded)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A PEFT model of the tiny UNet with α ≠ r and a pattern, and its saved folder."""
    from peft import LoraConfig, get_peft_model

    target = ["attn2.to_k", "attn2.to_v", "attn1.to_q"]
    config = LoraConfig(r=3, lora_alpha=6, target_modules=target, alpha_pattern={"attn2.to_v": 1.5})
    peft = get_peft_model(tiny_components(SPEC)["unet"], config)
    torch.manual_seed(1)
    for name, parameter in peft.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    folder = tmp_path_factory.mktemp("peft") / "adapter"
    peft.save_pretrained(folder)
    return peft, folder


def products(peft: Any, factor: float = 1.0) -> dict[str, torch.Tensor]:
    return {
        f"unet.{name}.weight": factor * scale * (up.double() @ down.double())
        for name, (down, up, scale) in lora_of(peft).items()
    }


def close(found: Mapping[str, Change], wanted: Mapping[str, torch.Tensor]) -> None:
    assert set(found) == set(wanted)
    assert all(float((found[n].delta - d).abs().max()) < 1e-12 for n, d in wanted.items())


def test_adapters_in_every_spelling(host: CheckpointHost, adapter: tuple[Any, Path], tmp_path: Path) -> None:
    peft, folder = adapter
    wanted, factors = products(peft), lora_of(peft)
    save_kohya(tmp_path / "spm.safetensors", factors)
    folded = {n: (d, scale * u) for n, (d, u, scale) in factors.items()}
    spellings = {
        "peft": ("unet.{}.lora_A.weight", "unet.{}.lora_B.weight"),
        "named": ("unet.{}.lora_A.default.weight", "unet.{}.lora_B.default.weight"),
        "old": ("unet.{}.lora.down.weight", "unet.{}.lora.up.weight"),
    }
    for name, (down, up) in spellings.items():
        tensors = {down.format(n): d.contiguous() for n, (d, _) in folded.items()}
        save_file(tensors | {up.format(n): u.contiguous() for n, (_, u) in folded.items()}, tmp_path / f"{name}.sft")
    oldest: dict[str, torch.Tensor] = {}
    for n, (down_, up_) in folded.items():
        stem, _, leaf = n.rpartition(".")
        oldest |= {f"unet.{stem}.processor.{leaf}_lora.down.weight": down_.contiguous()}
        oldest |= {f"unet.{stem}.processor.{leaf}_lora.up.weight": up_.contiguous()}
    save_file(oldest, tmp_path / "oldest.sft")
    close(changes(host, folder), wanted)
    close(changes(host, folder / "adapter_model.safetensors"), wanted)
    for name in ("spm.safetensors", "peft.sft", "named.sft", "old.sft", "oldest.sft"):
        close(changes(host, tmp_path / name), wanted)
    close(changes(host, folder, -0.5), products(peft, -0.5))


def test_an_integer_alpha_counts(host: CheckpointHost, tmp_path: Path) -> None:
    """SPM's program saves `alpha=1` as an integer."""
    name = next(n for n in host.parameters() if n.endswith(LAYERS[0]))
    down, up = torch.ones(4, host.parameters()[name].shape[1]), torch.ones(host.parameters()[name].shape[0], 4)
    key = f"lora_unet_{name.removeprefix('unet.').removesuffix('.weight').replace('.', '_')}"
    tensors = {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up, f"{key}.alpha": torch.tensor(1)}
    save_file(tensors, tmp_path / "spm.safetensors")
    assert float(changes(host, tmp_path / "spm.safetensors")[name].delta.max()) == 1.0


def test_a_scale_that_nobody_knows_is_said(host: CheckpointHost, adapter: tuple[Any, Path], tmp_path: Path) -> None:
    shutil.copy(adapter[1] / "adapter_model.safetensors", tmp_path / "lost.safetensors")
    assert not open_foreign(tmp_path / "lost.safetensors", host.parameters()).scaled
    assert open_foreign(adapter[1], host.parameters()).scaled


@pytest.mark.parametrize(
    "change",
    [
        {"use_dora": True},
        {"bias": "all"},
        {"fan_in_fan_out": True},
        {"lora_alpha": "six"},
        {"lora_alpha": True},
        {"peft_type": "LOHA"},
        {"alpha_pattern": {"(a+)+b": 2.0}},
    ],
)
def test_a_configuration_that_says_something_else_is_refused(
    host: CheckpointHost, adapter: tuple[Any, Path], tmp_path: Path, change: dict[str, Any]
) -> None:
    folder = tmp_path / "adapter"
    shutil.copytree(adapter[1], folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | change))
    with pytest.raises((UnsupportedHostError, FormatError, InputError)):
        open_foreign(folder, host.parameters())


def _one(host: CheckpointHost) -> tuple[str, torch.Tensor, torch.Tensor]:
    name = next(n for n in host.parameters() if n.endswith(LAYERS[0]))
    shape = host.parameters()[name].shape
    return name.removesuffix(".weight"), torch.ones(2, shape[1]), torch.ones(shape[0], 2)


@pytest.mark.parametrize("case", ["alone", "magnitude", "stranger", "shape", "loha", "bias", "twice"])
def test_an_adapter_that_is_no_product_of_two_is_refused(host: CheckpointHost, tmp_path: Path, case: str) -> None:
    stem, down, up = _one(host)
    tensors = {f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": up}
    match case:
        case "alone":
            del tensors[f"{stem}.lora_B.weight"]
        case "magnitude":
            tensors[f"{stem}.lora_magnitude_vector"] = torch.ones(3)
        case "stranger":
            tensors |= {"unet.nowhere.lora_A.weight": down.clone(), "unet.nowhere.lora_B.weight": up.clone()}
        case "shape":
            tensors[f"{stem}.lora_A.weight"] = torch.ones(2, down.shape[1] + 1)
        case "loha":
            tensors = {f"{stem}.hada_w1_a": down, f"{stem}.hada_w1_b": up}
        case "bias":
            tensors[f"{stem}.lora_B.bias"] = torch.ones(3)
        case _:
            tensors |= {f"{stem}.lora.down.weight": down.clone(), f"{stem}.lora.up.weight": up.clone()}
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(UnsupportedHostError, match="expected"):
        open_foreign(tmp_path / "a.safetensors", host.parameters())


def test_a_pickle_runs_nothing(host: CheckpointHost, tmp_path: Path) -> None:
    trap = tmp_path / "pwned"

    class Trap:
        def __reduce__(self) -> tuple[Any, tuple[Path]]:
            return Path.touch, (trap,)

    for name, data in (("raw.pt", pickle.dumps({"a": Path("x")})), ("cut.bin", b"PK\x03\x04"), ("empty.ckpt", b"")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(FormatError, match=r"weights_only|expected 1 to"):
            open_foreign(tmp_path / name, host.parameters())
    torch.save({"weights": Trap(), "w": torch.ones(1)}, tmp_path / "object.pt")
    with pytest.raises(FormatError):
        open_foreign(tmp_path / "object.pt", host.parameters())
    assert not trap.exists()


def test_a_view_that_repeats_its_bytes_is_refused(host: CheckpointHost, tmp_path: Path) -> None:
    torch.save({"huge": torch.ones(1).expand(1 << 40)}, tmp_path / "huge.pt")
    with pytest.raises(FormatError, match="at most the file's"):
        open_foreign(tmp_path / "huge.pt", host.parameters())


def test_numbers_that_are_none_are_refused(
    host: CheckpointHost, edited: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    name = next(iter(edited))
    save_file({name: torch.full_like(edited[name], float("nan"))}, tmp_path / "nan.safetensors")
    with pytest.raises(NotFiniteError):
        changes(host, tmp_path / "nan.safetensors")


@pytest.mark.parametrize("case", ["names", "shape", "none", "suffix", "gone", "folder"])
def test_what_is_no_change_of_this_base_is_refused(
    host: CheckpointHost, edited: dict[str, torch.Tensor], tmp_path: Path, case: str
) -> None:
    name, file = next(iter(edited)), tmp_path / "x.safetensors"
    match case:
        case "names":
            save_file({"vae.decoder.weight": torch.ones(2), name: edited[name]}, file)
        case "shape":
            save_file({name: torch.ones(3, 5)}, file)
        case "none":
            save_file({}, file)
        case "suffix":
            (file := tmp_path / "x.gguf").write_bytes(b"GGUF")
        case "folder":
            (file := tmp_path / "folder").mkdir()
        case _:
            file = tmp_path / "gone.safetensors"
    with pytest.raises((UnsupportedHostError, NotFoundError)):
        changes(host, file)


def test_what_layers_read(host: CheckpointHost) -> None:
    kinds = sort_layers(host.parameters())
    for name, kind in kinds.items():
        if name.endswith(LAYERS):
            assert kind == TEXT
        elif name.startswith("text_encoder") or "resnets" in name or not name.endswith(".weight") or "norm" in name:
            assert kind == OTHER
    assert {n.rpartition(".attn1.")[2] for n, k in kinds.items() if k == PICTURE and ".attn1." in n} == {
        "to_q.weight",
        "to_k.weight",
        "to_v.weight",
        "to_out.0.weight",
    }
    assert all(k == OTHER for n, k in kinds.items() if "time_emb" in n)
