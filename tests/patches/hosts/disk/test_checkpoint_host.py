"""Folders on disk: what can be opened, what is refused, what is left afterwards."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from support.crashes.crashing import NAMES, Attempt, Nursery, values
from support.models.tiny import TinySpec, tiny_model

from rasura.patches._io.file_lock import locked
from rasura.patches.errors import (
    BusyError,
    DigestMismatchError,
    DriftError,
    ExistsError,
    FormatError,
    HostError,
    HostWriteError,
    InputError,
    NotFiniteError,
    NotFoundError,
    UnsupportedHostError,
)
from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.patches.hosts.disk.journal.rollback_journal import RollbackJournal
from rasura.patches.hosts.disk.new_copy import copy_model
from rasura.patches.hosts.interface import Host, name_parameter
from rasura.patches.types import ParamName

UNET = "unet/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"

SPECS = [
    TinySpec(),
    TinySpec(dtype="float16"),
    TinySpec(dtype="bfloat16", sharded=True),
    TinySpec(dtype="float16", variant="fp16"),
    TinySpec(dtype="float16", variant="fp16", sharded=True),
    TinySpec(size="medium"),
]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_model(tmp_path / "model", TinySpec(dtype="float16"))


def files(folder: Path) -> dict[str, str]:
    """SHA-256 of every file and the name of every folder below."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in folder.rglob("*")
    }


def double(host: CheckpointHost) -> None:
    host.write(values(host, "doubled"))


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.dtype}-{spec.size}-{spec.sharded}-{spec.variant}")
def test_a_full_cycle_leaves_the_folder_byte_for_byte(spec: TinySpec, tmp_path: Path) -> None:
    folder = tiny_model(tmp_path / "a model, 100% %s", spec)
    before = files(folder)
    host: Host = CheckpointHost.open(folder)
    names = [name for name in host.parameters() if ".attn2.to_" in name and name.endswith("weight")]
    first = host.read(names)
    host.write({name: tensor + 1 for name, tensor in first.items()})
    assert files(folder) != before
    assert all(torch.equal(tensor, first[name] + 1) for name, tensor in CheckpointHost.open(folder).read(names).items())
    assert all(torch.equal(tensor, first[name]) for name, tensor in host.originals(names).items())
    host.write({name: tensor * 3 for name, tensor in first.items()})  # the second write keeps the first originals
    host.write(CheckpointHost.open(folder).originals(names), forget=names)
    assert files(folder) == before


def test_stock_readers_see_what_was_written(model: Path) -> None:
    host = CheckpointHost.open(model)
    # load_file maps the file into memory, where the new values would appear.
    before = {key: tensor.clone() for key, tensor in load_file(model / UNET).items()}
    double(host)
    after = load_file(model / UNET)
    changed = {f"unet.{key}" for key in before if not torch.equal(before[key], after[key])}
    assert changed == {name for name in NAMES if name.startswith("unet")}
    kept = [load_file(path) for path in (model / ".rasura-host/originals").iterdir()]
    assert {name for tensors in kept for name in tensors} == set(NAMES)


def test_only_the_touched_ranges_are_written(model: Path) -> None:
    host = CheckpointHost.open(model)
    before = (model / UNET).read_bytes()
    double(host)
    after = (model / UNET).read_bytes()
    different = sum(a != b for a, b in zip(before, after, strict=True))
    assert 0 < different <= sum(host.read(NAMES)[name].nbytes for name in NAMES)
    assert (model / UNET).stat().st_size == len(before)


def test_equal_values_are_not_written_and_nothing_is_kept(model: Path) -> None:
    host = CheckpointHost.open(model)
    before = (model / UNET).stat().st_mtime_ns
    host.write(host.read(NAMES))
    assert (model / UNET).stat().st_mtime_ns == before
    assert not (model / ".rasura-host").exists()


def test_digests_are_those_of_the_bytes_and_need_no_torch(model: Path) -> None:
    host = CheckpointHost.open(model)
    expected = {name: hashlib.sha256(t.numpy().tobytes()).hexdigest() for name, t in host.read(NAMES).items()}
    assert host.digests(NAMES) == expected
    script = (
        "import sys, pathlib; from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost\n"
        "host = CheckpointHost.open(pathlib.Path(sys.argv[1])); print(len(host.digests(host.parameters())))\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", script, model], capture_output=True, text=True, env=environment, check=True
    )
    assert int(done.stdout) == len(host.parameters())


def test_partly_reverted_keeps_the_rest(model: Path) -> None:
    host = CheckpointHost.open(model)
    pristine = host.digests(NAMES)
    double(host)
    identity = host.host_id
    host.write(host.originals(NAMES[:1]), forget=NAMES[:1])
    assert host.kept() == frozenset(NAMES[1:])
    assert CheckpointHost.open(model).host_id == identity
    assert host.original_digests(NAMES) == pristine


def test_the_only_copy_of_an_original_is_never_forgotten(model: Path) -> None:
    host = CheckpointHost.open(model)
    with pytest.raises(HostWriteError, match="before its original is forgotten"):
        host.write(values(host, "doubled"), forget=NAMES)
    double(host)
    before = files(model)
    with pytest.raises(HostWriteError, match="before its original is forgotten"):
        host.write({NAMES[0]: host.originals(NAMES)[NAMES[0]]}, forget=NAMES)
    assert files(model) == before


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (lambda t: t[:, 1:], UnsupportedHostError, r"expected F16 \[64, 64\], got F16 \[64, 63\]"),
        (lambda t: t.float(), UnsupportedHostError, r"expected F16 .*, got F32"),
        (lambda t: t / 0, NotFiniteError, "got NaN or infinity"),
    ],
)
def test_one_bad_tensor_and_nothing_is_written(
    spoil: Callable[[torch.Tensor], torch.Tensor], error: type[Exception], message: str, model: Path
) -> None:
    host = CheckpointHost.open(model)
    before = files(model)
    tensors = values(host, "doubled")
    tensors[NAMES[1]] = spoil(tensors[NAMES[1]])
    with pytest.raises(error, match=message):
        host.write(tensors)
    assert files(model) == before


def test_an_unknown_name_is_refused_everywhere(model: Path) -> None:
    host = CheckpointHost.open(model)
    name = ParamName("unet.nothing.weight")
    for ask in (host.read, host.originals, host.digests, host.original_digests, host.ensure_writable):
        with pytest.raises(UnsupportedHostError, match=r"expected a parameter unet\.nothing\.weight"):
            ask([name])
    with pytest.raises(UnsupportedHostError):
        host.write({name: torch.zeros(1)})


def test_both_spellings_of_clip_have_one_name(model: Path) -> None:
    assert name_parameter("text_encoder", "encoder.layers.1.mlp.fc2.weight") == NAMES[2]
    assert name_parameter("text_encoder", "text_model.encoder.layers.1.mlp.fc2.weight") == NAMES[2]
    assert name_parameter("text_encoder_2", "text_projection.weight") == "text_encoder_2.text_projection.weight"
    assert name_parameter("text_encoder_2", "encoder.block.0.layer.0.SelfAttention.k.weight").count("text_model") == 0
    host = CheckpointHost.open(model)
    before = host.digests(host.parameters())
    tensors = load_file(model / TEXT)
    assert not any(key.startswith("text_model.") for key in tensors)
    save_file({f"text_model.{key}": tensor for key, tensor in tensors.items()}, model / TEXT)
    again = CheckpointHost.open(model)
    assert again.digests(again.parameters()) == before


def test_tensors_that_are_no_floats_are_no_parameters(model: Path) -> None:
    tensors = load_file(model / TEXT)
    save_file(tensors | {"embeddings.position_ids": torch.arange(77)}, model / TEXT)
    assert not any("position_ids" in name for name in CheckpointHost.open(model).parameters())


# What cannot be opened.


def test_no_folder_and_no_model(tmp_path: Path, model: Path) -> None:
    with pytest.raises(NotFoundError, match="expected a model folder"):
        CheckpointHost.open(tmp_path / "nowhere")
    with pytest.raises(UnsupportedHostError, match=r"got a single file with names like conv_in\.bias") as caught:
        CheckpointHost.open(model / UNET)
    assert caught.value.hint == f"--model {model}"
    shutil.copy(model / UNET, tmp_path / "unet.safetensors")
    with pytest.raises(UnsupportedHostError, match="got a single file") as caught:
        CheckpointHost.open(tmp_path / "unet.safetensors")
    assert "from_single_file" in caught.value.hint
    with pytest.raises(UnsupportedHostError, match="expected a diffusers folder"):
        CheckpointHost.open(model / "tokenizer")


def test_pickles_only(model: Path) -> None:
    (model / UNET).rename(model / "unet/diffusion_pytorch_model.bin")
    with pytest.raises(UnsupportedHostError, match="pickled weights only, which are never opened") as caught:
        CheckpointHost.open(model)
    assert "safe_serialization" in caught.value.hint


def test_a_variant_beside_it_would_bring_the_concept_back(model: Path) -> None:
    """One of two files patched: whoever asks for the other draws as before, from the same folder."""
    host = CheckpointHost.open(model)
    before = host.read(NAMES)
    for name in ("unet/diffusion_pytorch_model", "text_encoder/model"):
        shutil.copy(model / f"{name}.safetensors", model / f"{name}.fp16.safetensors")
    double(host)  # it was opened before there were two
    key = NAMES[0].removeprefix("unet.")
    plain = UNet2DConditionModel.from_pretrained(model / "unet", dtype=torch.float16)
    variant = UNet2DConditionModel.from_pretrained(model / "unet", dtype=torch.float16, variant="fp16")
    assert not torch.equal(plain.get_parameter(key), before[NAMES[0]])
    assert torch.equal(variant.get_parameter(key), before[NAMES[0]])
    with pytest.raises(UnsupportedHostError, match="would bring the concept back"):
        CheckpointHost.open(model)


@pytest.mark.parametrize(
    "twin", ["diffusion_pytorch_model.fp16.safetensors", "diffusion_pytorch_model.non_ema.safetensors"]
)
def test_two_variants_are_ambiguous(twin: str, model: Path) -> None:
    shutil.copy(model / UNET, model / "unet" / twin)
    with pytest.raises(UnsupportedHostError, match=r"got 2: .* would bring the concept back") as caught:
        CheckpointHost.open(model)
    assert "move the others" in caught.value.hint


def test_broken_headers_and_indexes(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path / "model", TinySpec(sharded=True))
    index = folder / (UNET + ".index.json")
    good = index.read_text()
    owners = json.loads(good)["weight_map"]
    key = next(iter(owners))
    for bad in (
        "{",
        json.dumps({"weight_map": owners | {key: "../../model.safetensors"}}),
        json.dumps({"weight_map": owners | {"ghost": owners[key]}}),
        json.dumps({"weight_map": {name: file for name, file in owners.items() if name != key}}),
    ):
        index.write_text(bad)
        with pytest.raises(FormatError):
            CheckpointHost.open(folder)
    index.write_text(good)
    shard = folder / "unet" / owners[key]
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(FormatError):
        CheckpointHost.open(folder)


def test_a_missing_shard(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path / "model", TinySpec(sharded=True))
    (folder / "unet/diffusion_pytorch_model-00002-of-00005.safetensors").unlink()
    with pytest.raises(HostError, match=r"00002-of-00005\.safetensors: expected a readable file"):
        CheckpointHost.open(folder)


def test_a_pipe_in_a_weight_files_place_does_not_hang(model: Path) -> None:
    (model / TEXT).unlink()
    os.mkfifo(model / TEXT)
    with pytest.raises(UnsupportedHostError, match="got a folder, pipe or device"):
        CheckpointHost.open(model)


# What can be read but not written.


def _link_file(model: Path) -> None:
    (model / UNET).rename(model.parent / "blob")
    (model / UNET).symlink_to(model.parent / "blob")


def _link_folder(model: Path) -> None:
    (model / "unet").rename(model.parent / "blobs")
    (model / "unet").symlink_to(model.parent / "blobs")


def _hard_link(model: Path) -> None:
    (model.parent / "blob").hardlink_to(model / UNET)


def _read_only(model: Path) -> None:
    (model / UNET).chmod(0o444)  # which alone would not keep root from writing


@pytest.mark.parametrize(
    ("spoil", "got"),
    [
        (_link_file, "got a link"),
        (_link_folder, "got a link"),
        (_hard_link, "got 2 names for it"),
        (_read_only, r"read-only|Permission denied"),
    ],
    ids=["linked file", "linked folder", "hard link", "read-only"],
)
def test_somebody_elses_bytes_are_read_but_never_written(spoil: Callable[[Path], None], got: str, model: Path) -> None:
    expected = CheckpointHost.open(model).digests(NAMES)
    spoil(model)
    before = files(model.parent)
    host = CheckpointHost.open(model)
    assert host.digests(NAMES) == expected
    acts: tuple[Callable[[], None], ...] = (lambda: host.ensure_writable(NAMES), lambda: double(host))
    for act in acts:
        with pytest.raises(UnsupportedHostError, match=got) as caught:
            act()
        assert "--out DIR" in caught.value.hint
    assert files(model.parent) == before


def _snapshots(model: Path, cache: Path) -> list[Path]:
    """Two revisions in a Hugging Face cache; all files of both are links to the same blobs, the folders are real."""
    (cache / "blobs").mkdir(parents=True)
    for source in (path for path in model.rglob("*") if path.is_file()):
        blob = cache / "blobs" / hashlib.sha256(source.read_bytes()).hexdigest()
        shutil.copy(source, blob)
        for revision in ("one", "two"):
            link = cache / "snapshots" / revision / source.relative_to(model)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.relpath(blob, link.parent))
    return [cache / "snapshots/one", cache / "snapshots/two"]


@pytest.mark.parametrize("sharded", [False, True])
def test_a_write_through_one_snapshot_would_change_the_other(sharded: bool, tmp_path: Path) -> None:
    spec = TinySpec(dtype="float16", sharded=sharded)
    one, two = _snapshots(tiny_model(tmp_path / "model", spec), tmp_path / "models--acme--sd")
    weights = min((one / "unet").glob("*.safetensors"))
    before, held = files(tmp_path), weights.read_bytes()
    with weights.open("r+b") as file:  # a naive write
        file.seek(-2, os.SEEK_END)
        file.write(b"\0\0")
    assert (two / weights.relative_to(one)).read_bytes() != held
    with weights.open("r+b") as file:
        file.write(held)
    host = CheckpointHost.open(one)
    with pytest.raises(UnsupportedHostError, match="got a link"):
        double(host)
    copy_model(one, tmp_path / "out")
    double(CheckpointHost.open(tmp_path / "out"))
    assert {name: digest for name, digest in files(tmp_path).items() if not name.startswith("out")} == before
    assert CheckpointHost.open(two).digests(NAMES) == host.digests(NAMES)


def test_a_model_opened_through_a_link_is_written(model: Path) -> None:
    """A link above the weights is the person's own choice of a path."""
    link = model.parent / "link"
    link.symlink_to(model)
    host = CheckpointHost.open(link)
    double(host)
    assert host.location == str(model.resolve())


def test_a_replaced_weight_file_is_noticed(model: Path) -> None:
    host = CheckpointHost.open(model)
    tensors = load_file(model / UNET)
    save_file(tensors, model / UNET, metadata={"another": "header"})
    before = files(model)
    with pytest.raises(DriftError, match="another file took its place"):
        host.digests(NAMES)
    with pytest.raises(DriftError):
        host.write({NAMES[0]: torch.zeros(64, 64, dtype=torch.float16)})
    assert files(model) == before


def test_all_that_is_kept_of_a_weight_file_is_one_file(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file more is waited for twice: until it is durable, and until it is gone."""
    synced: list[int] = []
    real = os.fsync

    def counted(descriptor: int) -> None:
        synced.append(descriptor)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", counted)
    counts: list[tuple[int, int]] = []
    weights = [name for name, info in CheckpointHost.open(model).parameters().items() if len(info.shape) == 2]
    weights = [name for name in weights if name.startswith("unet.")]
    for names in (weights[:2], weights[:12]):
        host = CheckpointHost.open(model)
        synced.clear()
        host.write({name: tensor * 2 for name, tensor in host.read(names).items()})
        counts.append((len(synced), len(list((model / ".rasura-host/originals").iterdir()))))
        host.write(host.originals(names), forget=names)
        assert not (model / ".rasura-host").exists()
    assert counts[0] == counts[1]
    assert counts[0][1] == 1


def test_originals_of_several_widths_lie_where_stock_readers_can_map_them(tmp_path: Path) -> None:
    """A float32 after an odd number of bytes is what safetensors' torch reader refuses."""
    path = tmp_path / "model/unet/diffusion_pytorch_model.safetensors"
    path.parent.mkdir(parents=True)
    values = {"a": torch.ones(3, dtype=torch.bfloat16), "b": torch.ones(5), "c": torch.ones(7, dtype=torch.float16)}
    save_file(values, path)
    host = CheckpointHost.open(tmp_path / "model")
    names = sorted(host.parameters())
    host.write({name: tensor + 1 for name, tensor in host.read(names).items()})
    [kept] = (tmp_path / "model/.rasura-host/originals").iterdir()
    found = load_file(kept)
    assert found.keys() == {f"unet.{name}" for name in values}
    assert all(torch.equal(found[f"unet.{name}"], value) for name, value in values.items())
    assert host.originals(names).keys() == set(names)


def test_originals_that_an_earlier_version_kept_one_by_one(model: Path) -> None:
    host = CheckpointHost.open(model)
    before = host.digests(NAMES)
    double(host)
    originals = model / ".rasura-host/originals"
    values = host.originals(NAMES)
    for path in originals.iterdir():
        path.unlink()
    for name in NAMES:
        path = originals / f"{hashlib.sha256(name.encode()).hexdigest()}.safetensors"
        save_file({str(name): values[name]}, path, metadata={"sha256": before[name]})
    host = CheckpointHost.open(model)
    assert host.kept() == frozenset(NAMES)
    assert host.original_digests(NAMES) == before
    host.write(host.originals(NAMES[:1]), forget=NAMES[:1])
    assert host.kept() == frozenset(NAMES[1:])
    host.write(host.originals(NAMES), forget=NAMES)
    assert host.digests(NAMES) == before
    assert not (model / ".rasura-host").exists()


def test_a_damaged_original_is_not_believed(model: Path) -> None:
    host = CheckpointHost.open(model)
    double(host)
    for path in (model / ".rasura-host/originals").iterdir():
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    with pytest.raises(DigestMismatchError, match="expected the original of"):
        host.originals(NAMES)


@pytest.mark.skipif(os.getuid() != 0, reason="becoming another user needs root")
def test_a_read_only_model(nursery: Nursery) -> None:
    base = Path(tempfile.mkdtemp(prefix="rasura-readonly-"))
    try:
        base.chmod(0o755)
        folder = tiny_model(base / "model", TinySpec(dtype="float16"))
        before = files(folder)
        outcome = nursery.run(Attempt(str(folder), "doubled", user=65534))
        assert (outcome.error, outcome.hint) == ("UnsupportedHostError", "write a copy instead: --out DIR")
        assert "Permission denied" in outcome.message
        for path in [*folder.rglob("*.safetensors")]:
            path.chmod(0o666)  # the weights are writable now, the folder is not
        outcome = nursery.run(Attempt(str(folder), "doubled", user=65534))
        assert outcome.error == "HostWriteError"
        assert files(folder) == before
    finally:
        shutil.rmtree(base)


# Two at once.

HOLD = """
import fcntl, os, sys
descriptor = os.open(sys.argv[1], os.O_RDONLY)
fcntl.flock(descriptor, fcntl.LOCK_EX if sys.argv[2] == "write" else fcntl.LOCK_SH)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def hold(model: Path) -> Iterator[Callable[[str], "subprocess.Popen[str]"]]:
    """Start another process that holds the model's lock until its input ends."""
    started: list[subprocess.Popen[str]] = []

    def start(how: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, model, how], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.communicate()


def test_another_process_is_writing(model: Path, hold: Callable[[str], "subprocess.Popen[str]"]) -> None:
    host = CheckpointHost.open(model)
    tensors = values(host, "doubled")
    before = files(model)
    other = hold("write")
    for act in (lambda: CheckpointHost.open(model), lambda: host.read(NAMES), lambda: host.write(tensors)):
        with pytest.raises(BusyError, match="another process"):
            act()
    assert files(model) == before
    other.kill()
    other.wait()
    host.write(tensors)


def test_readers_do_not_disturb_each_other_but_stop_a_writer(
    model: Path, hold: Callable[[str], "subprocess.Popen[str]"]
) -> None:
    host = CheckpointHost.open(model)
    tensors = values(host, "doubled")
    hold("read")
    assert host.read(NAMES)
    with pytest.raises(BusyError):
        host.write(tensors)


def test_two_hosts_of_one_process_exclude_each_other(model: Path) -> None:
    host = CheckpointHost.open(model)
    tensors = values(host, "doubled")
    with locked(model, exclusive=True), pytest.raises(BusyError):
        host.write(tensors)


# Copies.


def test_a_copy_of_a_cache_can_be_written(model: Path, tmp_path: Path) -> None:
    _link_file(model)
    (model / ".cache").mkdir()
    out = tmp_path / "new/copy 100%"
    copy_model(model, out)
    expected = files(model)
    assert files(out) == {name: digest for name, digest in expected.items() if name != ".cache"}
    assert not any(path.is_symlink() or (path.is_file() and path.stat().st_nlink > 1) for path in out.rglob("*"))
    double(CheckpointHost.open(out))
    assert files(model) == expected


def test_a_copy_of_a_patched_model_is_its_base(model: Path, tmp_path: Path) -> None:
    before = files(model)
    double(CheckpointHost.open(model))
    (tmp_path / "out").mkdir()  # an empty folder may be there
    copy_model(model, tmp_path / "out")
    assert files(tmp_path / "out") == before


@pytest.mark.parametrize(("mode", "copied"), [(0o600, 0o600), (0o640, 0o640), (0o444, 0o644)])
def test_a_copy_is_as_private_as_its_source(mode: int, copied: int, model: Path, tmp_path: Path) -> None:
    (model / UNET).chmod(mode)
    copy_model(model, tmp_path / "out")
    assert (tmp_path / "out" / UNET).stat().st_mode & 0o777 == copied
    double(CheckpointHost.open(tmp_path / "out"))


def test_copies_that_are_refused(model: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for out in ("full", "full/file", "link"):
        with pytest.raises(ExistsError):
            copy_model(model, tmp_path / out)
    with pytest.raises(InputError, match="outside of"):
        copy_model(model, model / "copy")
    (model / "round").symlink_to(model)
    with pytest.raises(UnsupportedHostError, match="link back"):
        copy_model(model, tmp_path / "out")
    (model / "round").unlink()
    os.mkfifo(model / "pipe")
    with pytest.raises(UnsupportedHostError, match="pipe"):
        copy_model(model, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "link", "model"]


def test_a_copy_that_does_not_fit_leaves_nothing(model: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", disk], capture_output=True, check=False)
    if made.returncode:
        pytest.skip(f"needs leave to mount: {made.stderr.decode().strip()}")
    try:
        with pytest.raises(HostWriteError, match=r"No space left .* nothing is left of it") as caught:
            copy_model(model, disk / "out")
        assert "more room" in caught.value.hint
        assert not list(disk.iterdir())
    finally:
        subprocess.run(["umount", disk], check=True)


def test_what_is_kept_can_be_read_by_whoever_may_read_the_model(tmp_path: Path) -> None:
    """A model of 0600 beside originals of 0644 would be readable by everybody, in part."""
    folder = tiny_model(tmp_path / "model", TinySpec(dtype="float16"))
    for path in folder.rglob("*.safetensors"):
        path.chmod(0o600)
    seen: list[int] = []

    class Watched(RollbackJournal):
        def reached(self, step: str) -> None:
            if step == "begun":
                seen.append(self._pending.stat().st_mode & 0o777)

    class WatchedHost(CheckpointHost):
        journal_type = Watched

    host = WatchedHost.open(folder)
    name = next(name for name in host.parameters() if ".attn2.to_k." in name)
    host.write({name: host.read([name])[name] + 1})
    kept = [path.stat().st_mode & 0o777 for path in (folder / ".rasura-host/originals").iterdir()]
    assert (seen, kept) == ([0o600], [0o600])
