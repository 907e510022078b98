"""One file instead of a folder: the same parameters, the same digests, the same guards."""

import hashlib
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_open_clip_checkpoint
from safetensors.torch import load_file, save_file
from support.crashes.crashing import NAMES, Attempt, Nursery, State, values
from support.models.single_files import single_file, to_ldm, to_open_clip
from support.models.tiny import TinySpec, tiny_model
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from rasura.patches._io.file_lock import locked
from rasura.patches.errors import (
    BusyError,
    DriftError,
    ExistsError,
    FormatError,
    HostWriteError,
    InputError,
    NotFoundError,
    UnsupportedHostError,
)
from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.patches.hosts.disk.new_copy import copy_model
from rasura.patches.types import ParamName

SHAPES: dict[str, dict[str, Any]] = {
    "sd1": {},
    "sd2": {"use_linear_projection": True, "attention_head_dim": (2, 4, 4, 4)},
    "sdxl": {
        "block_out_channels": (32, 64, 64),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 3),
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 80,
        "use_linear_projection": True,
        "layers_per_block": 2,
    },
    "deep": {"layers_per_block": 3},
}
FOUR = {
    "block_out_channels": (32, 32, 64, 64),
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "layers_per_block": 2,
    "cross_attention_dim": 32,
    "norm_num_groups": 8,
    "attention_head_dim": 8,
    "sample_size": 8,
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_model(tmp_path / "model", TinySpec(dtype="float16"))


@pytest.fixture
def file(model: Path, tmp_path: Path) -> Path:
    place = tmp_path / "checkpoints"
    place.mkdir()
    return single_file(model, place / "a model, 100% %s 猫.safetensors")


def files(folder: Path) -> dict[str, str]:
    """SHA-256 of every file and the name of every folder below."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize("shape", SHAPES)
def test_every_name_of_a_unet_is_that_of_diffusers_own_converter(shape: str, tmp_path: Path) -> None:
    unet = UNet2DConditionModel(**{**FOUR, **SHAPES[shape]})
    state = {key: tensor.contiguous() for key, tensor in unet.state_dict().items()}
    ldm = {f"model.diffusion_model.{k}": t for k, t in to_ldm(state, unet.config["layers_per_block"]).items()}
    theirs = convert_ldm_unet_checkpoint(ldm, {**unet.config, "class_embed_type": None})
    assert theirs.keys() == state.keys()
    assert all(torch.equal(theirs[key], state[key]) for key in state)
    save_file(ldm, tmp_path / "model.safetensors")
    host = CheckpointHost.open(tmp_path / "model.safetensors")
    ours = host.read(host.parameters())
    assert ours.keys() == {f"unet.{key}" for key in state}
    assert all(torch.equal(ours[ParamName(f"unet.{key}")], state[key]) for key in state)


@pytest.mark.parametrize(
    ("prefix", "component"),
    [("cond_stage_model.model.", "text_encoder"), ("conditioner.embedders.1.model.", "text_encoder_2")],
)
def test_open_clip_keeps_three_in_one(prefix: str, component: str, tmp_path: Path) -> None:
    config = CLIPTextConfig(
        vocab_size=99, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        projection_dim=32, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    encoder = CLIPTextModelWithProjection(config)
    raw = {k: t.contiguous() for k, t in encoder.state_dict().items() if t.is_floating_point()}
    state = {k if k.startswith("text_") else f"text_model.{k}": t for k, t in raw.items()}
    found = {prefix + key: tensor for key, tensor in to_open_clip(state).items()}
    theirs = convert_open_clip_checkpoint(encoder, dict(found), prefix=prefix)
    assert state.keys() - theirs.keys() <= {"text_projection.weight"}  # of no use to SD 2
    assert all(torch.equal(theirs[key], state[key]) for key in theirs)
    path = tmp_path / "model.safetensors"
    save_file(found, path)
    host = CheckpointHost.open(path)
    ours = host.read(host.parameters())
    assert ours.keys() == {f"{component}.{key}" for key in state if key != "text_projection.weight"}
    assert all(torch.equal(ours[ParamName(name)], state[name.partition(".")[2]]) for name in ours)
    with pytest.raises(UnsupportedHostError, match="holds it transposed"):
        host.read([ParamName(f"{component}.text_projection.weight")])
    # A third is written without its neighbours.
    key = ParamName(f"{component}.text_model.encoder.layers.1.self_attn.k_proj.weight")
    host.write({key: ours[key] + 1})
    after = load_file(path)[f"{prefix}transformer.resblocks.1.attn.in_proj_weight"]
    assert torch.equal(after[32:64], ours[key] + 1)
    assert torch.equal(after[:32], state[key.partition(".")[2].replace("k_proj", "q_proj")])


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_full_cycle_leaves_the_file_byte_for_byte_and_agrees_with_the_folder(dtype: Any, tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model", TinySpec(dtype=dtype, size="medium"))
    (tmp_path / "checkpoints").mkdir()
    path = single_file(model, tmp_path / "checkpoints/model.safetensors")
    before = files(path.parent)
    single, folder = CheckpointHost.open(path), CheckpointHost.open(model)
    assert single.parameters() == folder.parameters()
    weights = [name for name in single.parameters() if name.endswith(".weight")]  # a new model's biases are zero
    names = [name for name in weights if ".attn2.to_" in name or "fc2" in name]
    assert single.digests(single.parameters()) == folder.digests(folder.parameters())
    for host in (single, folder):
        host.write({name: tensor * 2 for name, tensor in host.read(names).items()})
    assert single.digests(names) == folder.digests(names) != single.original_digests(names)
    assert files(path.parent) != before
    offered = [p for p in path.parent.rglob("*") if p.suffix in {".safetensors", ".sft", ".bin", ".pt", ".ckpt"}]
    assert offered == [path]  # by programs that look below the folder for checkpoints
    kept = path.with_name(f".{path.name}.rasura-host") / "originals"
    assert {name for p in kept.iterdir() for name in load_file(p)} == set(names)
    single = CheckpointHost.open(path)
    single.write(single.originals(names), forget=names)
    assert files(path.parent) == before


def test_only_the_touched_ranges_are_written(file: Path) -> None:
    host = CheckpointHost.open(file)
    before = file.read_bytes()
    host.write(values(host, "doubled"))
    after = file.read_bytes()
    assert len(after) == len(before)
    different = sum(a != b for a, b in zip(before, after, strict=True))
    assert 0 < different <= sum(tensor.nbytes for tensor in host.read(NAMES).values())
    assert CheckpointHost.open(file).host_id == host.host_id


def test_files_of_one_folder_are_models_of_their_own(model: Path, file: Path) -> None:
    other = single_file(model, file.with_name("other.safetensors"))
    hosts = [CheckpointHost.open(path) for path in (file, other)]
    with hosts[0].alone(), hosts[1].alone():
        hosts[0].write(values(hosts[0], "doubled"))
        with pytest.raises(BusyError), CheckpointHost.open(file).alone():
            pass
    assert hosts[0].kept() == frozenset(NAMES)
    assert CheckpointHost.open(other).kept() == frozenset()
    assert not other.with_name(".other.safetensors.rasura-host").exists()
    with locked(file, exclusive=True), pytest.raises(BusyError):
        hosts[0].digests(NAMES)
    hosts[1].write(values(hosts[1], "halved"))


# What cannot be opened.


def test_what_is_no_such_file(file: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        CheckpointHost.open(file.with_name("nothing.safetensors"))
    pickled = shutil.copy(file, file.with_suffix(".ckpt"))
    with pytest.raises(UnsupportedHostError, match="pickled weights, which are never opened"):
        CheckpointHost.open(Path(pickled))
    with pytest.raises(UnsupportedHostError, match="got another name"):
        CheckpointHost.open(file.rename(file.with_name("blob")))
    long = Path(shutil.copy(pickled, tmp_path / f"{'x' * 230}.safetensors"))
    with pytest.raises(UnsupportedHostError, match="at most 220 bytes"):
        CheckpointHost.open(long)
    pipe = tmp_path / "pipe.safetensors"
    os.mkfifo(pipe)
    with pytest.raises(UnsupportedHostError, match="got a folder, pipe or device"):
        CheckpointHost.open(pipe)
    flux = tmp_path / "flux.safetensors"
    save_file({"model.diffusion_model.double_blocks.0.img_attn.qkv.weight": torch.zeros(6, 2)}, flux)
    with pytest.raises(UnsupportedHostError, match="double_blocks"):
        CheckpointHost.open(flux)


def test_two_spellings_of_one_parameter(file: Path) -> None:
    tensors = load_file(file)
    key = "cond_stage_model.transformer.text_model.encoder.layers.1.mlp.fc2.weight"
    save_file(tensors | {key.replace("text_model.", ""): tensors[key] * 2}, file)
    with pytest.raises(FormatError, match="expected one tensor for text_encoder"):
        CheckpointHost.open(file)


def test_a_single_file_is_no_base(file: Path) -> None:
    host = CheckpointHost.open(file)
    assert host.single
    with pytest.raises(UnsupportedHostError, match=r"tokenizer and text encoder .* patches are made on folders"):
        _ = host.folder


# What can be read but not written.


def _link(file: Path) -> None:
    blob = file.parent.parent / "blob"
    file.rename(blob)
    file.symlink_to(blob)


def _hard_link(file: Path) -> None:
    (file.parent.parent / "blob").hardlink_to(file)


def _read_only(file: Path) -> None:
    file.chmod(0o444)  # which alone would not keep root from writing


@pytest.mark.parametrize(
    ("spoil", "got"),
    [(_link, "got a link"), (_hard_link, "got 2 names for it"), (_read_only, r"read-only|Permission denied")],
)
def test_somebody_elses_bytes_are_read_but_never_written(spoil: Callable[[Path], None], got: str, file: Path) -> None:
    expected = CheckpointHost.open(file).digests(NAMES)
    spoil(file)
    before = files(file.parent.parent)
    host = CheckpointHost.open(file)
    assert host.location == str(file)
    assert host.digests(NAMES) == expected
    tensors = values(host, "doubled")
    acts: tuple[Callable[[], None], ...] = (lambda: host.ensure_writable(NAMES), lambda: host.write(tensors))
    for act in acts:
        with pytest.raises(UnsupportedHostError, match=got) as caught:
            act()
        assert caught.value.hint == "write a copy instead: --out FILE"
    assert files(file.parent.parent) == before
    out = file.with_name("out.safetensors")
    copy_model(file, out)
    assert stat.S_ISREG(out.lstat().st_mode)
    assert out.stat().st_nlink == 1
    CheckpointHost.open(out).write(tensors)
    assert host.digests(NAMES) == expected


def test_a_folder_of_links_is_a_persons_own_choice(file: Path, tmp_path: Path) -> None:
    (tmp_path / "models").symlink_to(file.parent)
    host = CheckpointHost.open(tmp_path / "models" / file.name)
    host.write(values(host, "doubled"))
    assert host.location == str(file)


def test_a_replaced_file_is_noticed(file: Path) -> None:
    host = CheckpointHost.open(file)
    tensors = values(host, "doubled")
    save_file(load_file(file), file, metadata={"another": "header"})
    before = files(file.parent)
    with pytest.raises(DriftError, match="another file took its place"):
        host.digests(NAMES)
    with pytest.raises(DriftError):
        host.write(tensors)
    assert files(file.parent) == before


# Disks that are full or may not be written, and two at once.


@pytest.mark.parametrize("limit", [0, 300, 5_000, 30_000, 400_000])
def test_a_write_that_fails_half_way_changes_nothing(limit: int, file: Path, nursery: Nursery) -> None:
    moves: tuple[tuple[State, State], ...] = (("pristine", "doubled"), ("doubled", "halved"))
    for _, new in moves:
        before = files(file.parent)
        outcome = nursery.run(Attempt(str(file), new, file_limit=limit))
        assert outcome.error == "HostWriteError", outcome
        assert "nothing was changed" in outcome.message
        assert files(file.parent) == before
        host = CheckpointHost.open(file)
        host.write(values(host, new))


def test_a_disk_that_is_full(file: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    size = file.stat().st_size + 60_000  # room for the file, not for all originals
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", disk], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip(f"needs leave to mount: {made.stderr.decode().strip()}")
    try:
        here = Path(shutil.copy(file, disk / "x.safetensors"))
        host = CheckpointHost.open(here)
        with pytest.raises(HostWriteError, match=r"No space left .*; nothing was changed"):
            host.write({name: tensor * 2 for name, tensor in host.read(host.parameters()).items()})
        assert [path.name for path in disk.iterdir()] == ["x.safetensors"]
        assert here.read_bytes() == file.read_bytes()
        with pytest.raises(HostWriteError, match=r"No space left .* nothing is left of it"):
            copy_model(here, disk / "y.safetensors")
        assert [path.name for path in disk.iterdir()] == ["x.safetensors"]
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        with CheckpointHost.open(here).alone(), pytest.raises(UnsupportedHostError, match="Read-only") as caught:
            CheckpointHost.open(here).ensure_writable(NAMES)
        assert caught.value.hint == "write a copy instead: --out FILE"
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.skipif(os.getuid() != 0, reason="becoming another user needs root")
def test_a_read_only_file_and_a_read_only_folder(model: Path, nursery: Nursery) -> None:
    base = Path(tempfile.mkdtemp(prefix="rasura-readonly-"))
    try:
        base.chmod(0o755)
        file = single_file(model, base / "x.safetensors")
        before = files(base)
        outcome = nursery.run(Attempt(str(file), "doubled", user=65534))
        assert (outcome.error, outcome.hint) == ("UnsupportedHostError", "write a copy instead: --out FILE")
        file.chmod(0o666)
        outcome = nursery.run(Attempt(str(file), "doubled", user=65534))
        assert outcome.error == "HostWriteError"
        assert files(base) == before
    finally:
        shutil.rmtree(base)


def test_another_process_is_writing(file: Path) -> None:
    host = CheckpointHost.open(file)
    tensors = values(host, "doubled")
    script = (
        "import sys, pathlib; from rasura.patches._io.file_lock import locked, sole_mover\n"
        "file = pathlib.Path(sys.argv[1])\n"
        "with locked(file, exclusive=True), sole_mover(file): print('held', flush=True); sys.stdin.read()"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", script, file], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        acts: tuple[Callable[[], object], ...] = (
            lambda: CheckpointHost.open(file),
            lambda: host.read(NAMES),
            lambda: host.write(tensors),
            lambda: host.alone().__enter__(),
        )
        for act in acts:
            with pytest.raises(BusyError, match="another process"):
                act()
        other.kill()  # and the kernel drops both locks
        other.wait()
    host.write(tensors)


# Running averages.


def test_running_averages_are_a_second_copy(model: Path, tmp_path: Path) -> None:
    file = single_file(model, tmp_path / "full.safetensors", averages=True)
    pruned = single_file(model, tmp_path / "pruned.safetensors")
    host = CheckpointHost.open(file)
    assert host.digests(NAMES) == CheckpointHost.open(model).digests(NAMES)
    before = files(tmp_path)
    tensors = values(host, "doubled")
    acts: tuple[Callable[[], None], ...] = (lambda: host.ensure_writable(NAMES), lambda: host.write(tensors))
    for act in acts:
        with pytest.raises(UnsupportedHostError, match=r"running average .* would still be there") as caught:
            act()
        assert caught.value.hint == "write a copy without it: --out FILE"
    assert files(tmp_path) == before
    text = [name for name in NAMES if name.startswith("text")]
    host.ensure_writable(text)  # trainers keep no average of it
    copy_model(file, tmp_path / "out.safetensors")
    left, expected = load_file(tmp_path / "out.safetensors"), load_file(pruned)
    assert left.keys() == expected.keys()
    assert all(torch.equal(left[key], expected[key]) for key in expected)
    out = CheckpointHost.open(tmp_path / "out.safetensors")
    out.write(tensors)
    assert out.digests(NAMES) != host.digests(NAMES)


# Copies.


def test_a_copy_of_a_patched_file_is_its_base(file: Path, tmp_path: Path) -> None:
    before = file.read_bytes()
    host = CheckpointHost.open(file)
    host.write(values(host, "doubled"))
    copy_model(file, tmp_path / "new/out.safetensors")
    assert (tmp_path / "new/out.safetensors").read_bytes() == before
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out.safetensors"]


def test_copies_that_are_refused(file: Path, tmp_path: Path) -> None:
    before = files(tmp_path)
    (tmp_path / "empty").mkdir()
    for out in (file, tmp_path / "empty", tmp_path / "model"):
        with pytest.raises(ExistsError):
            copy_model(file, out)
    (tmp_path / "empty").rmdir()
    for name in ("out", "out.ckpt", f"{'x' * 230}.safetensors"):
        with pytest.raises(InputError, match="expected the name of a file"):
            copy_model(file, tmp_path / name)
    assert files(tmp_path) == before
