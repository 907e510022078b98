"""Patch folders: every file that would mean something else, and nothing left half written."""

import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.values import factories
from support.values.factories import World

from rasura.patches._io.safetensors_file import encode
from rasura.patches.algebra.increment import Increment
from rasura.patches.errors import (
    AlgebraError,
    DigestMismatchError,
    ExistsError,
    FormatError,
    HostWriteError,
    NotFoundError,
    RasuraError,
)
from rasura.patches.format.manifest import MANIFEST_LIMIT
from rasura.patches.format.patch import (
    BASIS,
    CONTENT,
    MANIFEST,
    SIGNATURE,
    TARGETS,
    WEIGHTS,
    Patch,
    read_folder,
    write_folder,
)
from rasura.patches.format.patch_tensors import PatchTensors
from rasura.patches.types import ParamName

WORLD = World(width=24, retained=4, outs=(6, 8))


@pytest.fixture(scope="module")
def patch() -> Patch:
    return WORLD.erase(WORLD.columns("dog", 1, 2))[0]


def rebuilt(patch: Patch, changed: PatchTensors) -> dict[str, bytes]:
    """The files of a patch of other tensors, which its manifest names."""
    return Patch(replace(patch.manifest, tensors=changed.specs()), changed.arrays).files()


# --- Folders ----------------------------------------------------------------------------------------------------------


def test_a_folder_is_written_and_read_back(tmp_path: Path, patch: Patch) -> None:
    write_folder(tmp_path / "deep" / "patch", patch.files())
    assert read_folder(tmp_path / "deep" / "patch") == patch.files()
    assert stat.S_IMODE((tmp_path / "deep" / "patch").stat().st_mode) == 0o755
    assert sorted(p.name for p in (tmp_path / "deep").iterdir()) == ["patch"]


def test_a_signature_is_read_where_there_is_one_and_nothing_else_ever(tmp_path: Path, patch: Patch) -> None:
    write_folder(tmp_path / "patch", {**patch.files(), SIGNATURE: b"signed"})
    (tmp_path / "patch" / "pickle.bin").write_bytes(b"cos\nsystem\n")
    (tmp_path / "patch" / "README.md").write_text("# patch")
    found = read_folder(tmp_path / "patch")
    assert set(found) == {*CONTENT, SIGNATURE}
    assert found[SIGNATURE] == b"signed"


def test_an_empty_folder_is_filled_and_a_full_one_kept(tmp_path: Path, patch: Patch) -> None:
    (tmp_path / "empty").mkdir()
    write_folder(tmp_path / "empty", patch.files())
    assert read_folder(tmp_path / "empty") == patch.files()
    with pytest.raises(ExistsError, match="not empty") as caught:
        write_folder(tmp_path / "empty", {MANIFEST: b"other"})
    assert caught.value.hint == "rasura patch export ID -o ANOTHER"
    assert read_folder(tmp_path / "empty") == patch.files()


def test_a_file_in_the_way_is_kept(tmp_path: Path, patch: Patch) -> None:
    (tmp_path / "patch").write_text("mine")
    with pytest.raises(ExistsError):
        write_folder(tmp_path / "patch", patch.files())
    assert (tmp_path / "patch").read_text() == "mine"


def test_nothing_is_left_when_writing_fails(tmp_path: Path, patch: Patch) -> None:
    with pytest.raises(HostWriteError, match="cannot write"):
        write_folder(tmp_path / "patch", {**patch.files(), "no/such/folder": b""})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0 and not Path("/proc/version").exists(), reason="needs /proc")
def test_a_place_that_cannot_be_written_is_refused(patch: Patch) -> None:
    with pytest.raises(HostWriteError):
        write_folder(Path("/proc/rasura/patch"), patch.files())


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for missing in ("nothing", "file"):
        with pytest.raises(NotFoundError, match="no patch folder"):
            read_folder(tmp_path / missing)


@pytest.mark.parametrize("name", CONTENT)
def test_a_folder_that_lacks_a_file_is_refused(tmp_path: Path, patch: Patch, name: str) -> None:
    write_folder(tmp_path / "patch", patch.files())
    (tmp_path / "patch" / name).unlink()
    with pytest.raises(NotFoundError, match=name):
        read_folder(tmp_path / "patch")
    with pytest.raises(FormatError, match=f"lacks {name}"):
        Patch.from_files({k: v for k, v in patch.files().items() if k != name})


@pytest.mark.parametrize("name", [*CONTENT, SIGNATURE])
def test_links_pipes_and_folders_in_place_of_files_are_refused_at_once(tmp_path: Path, patch: Patch, name: str) -> None:
    (tmp_path / "secret").write_text("secret")
    for kind in ("link", "pipe", "folder"):
        folder = tmp_path / kind
        write_folder(folder, {**patch.files(), SIGNATURE: b""})
        (folder / name).unlink()
        if kind == "link":
            (folder / name).symlink_to(tmp_path / "secret")
        elif kind == "pipe":
            os.mkfifo(folder / name)
        else:
            (folder / name).mkdir()
        with pytest.raises(FormatError):
            read_folder(folder)


@pytest.mark.parametrize(("name", "limit"), [(MANIFEST, MANIFEST_LIMIT), (SIGNATURE, 1 << 20), (WEIGHTS, 512 << 20)])
def test_files_too_large_are_refused_unread(tmp_path: Path, patch: Patch, name: str, limit: int) -> None:
    write_folder(tmp_path / "patch", {**patch.files(), SIGNATURE: b""})
    os.truncate(tmp_path / "patch" / name, limit + 1)  # a hole, no bytes
    with pytest.raises(FormatError, match="at most"):
        read_folder(tmp_path / "patch")


# --- Tensors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["protected", "energy", "targets", "anchors"])
def test_numbers_that_the_manifest_does_not_name_are_refused(patch: Patch, field: str) -> None:
    other = replace(patch.tensors, **{field: getattr(patch.tensors, field) * 0.5})
    with pytest.raises(DigestMismatchError, match=r"expected what manifest\.json names"):
        Patch.from_files({**other.files(), MANIFEST: patch.manifest.to_bytes()})


def test_factors_that_the_manifest_does_not_name_are_refused(patch: Patch) -> None:
    values = [name for name in patch.tensors.increments if name.endswith("to_v.weight")]
    other = {name: Increment(patch.tensors.increments[name].A, -patch.tensors.increments[name].B) for name in values}
    files = replace(patch.tensors, increments={**patch.tensors.increments, **other}).files()
    with pytest.raises(DigestMismatchError, match=r"to_v\.lora_B\.weight"):
        Patch.from_files({**files, MANIFEST: patch.manifest.to_bytes()})


def test_tensors_that_the_files_lack_are_refused(patch: Patch) -> None:
    fewer = dict(list(patch.tensors.increments.items())[:1])
    files = replace(patch.tensors, increments=fewer).files()
    with pytest.raises(DigestMismatchError, match="a tensor that the manifest names"):
        Patch.from_files({**files, MANIFEST: patch.manifest.to_bytes()})


def test_increments_of_other_parameters_than_the_base_are_refused(patch: Patch) -> None:
    names = {ParamName(f"unet.x{i}.weight"): v for i, v in enumerate(patch.tensors.increments.values())}
    with pytest.raises(FormatError, match=r"base\.parameters do not fit"):
        Patch.from_files(rebuilt(patch, replace(patch.tensors, increments=names)))


INCREMENT = factories.increment(1, 4, 24, 2)
STEM = factories.K.removesuffix(".weight")
ROWS = torch.eye(24, dtype=torch.float64)[:3]
Files = dict[str, dict[str, torch.Tensor]]
GOOD: Files = {
    WEIGHTS: {f"{STEM}.lora_A.weight": INCREMENT.A, f"{STEM}.lora_B.weight": INCREMENT.B},
    BASIS: {"rows": ROWS, "energy": torch.ones(3, dtype=torch.float64)},
    TARGETS: {"targets": ROWS[:2].clone(), "anchors": ROWS[1:].clone()},
}
DOUBLE = torch.float64
BAD: dict[str, tuple[str, dict[str, torch.Tensor]]] = {
    "no factors": (WEIGHTS, {}),
    "A alone": (WEIGHTS, {f"{STEM}.lora_A.weight": INCREMENT.A}),
    "B alone": (WEIGHTS, {f"{STEM}.lora_B.weight": INCREMENT.B}),
    "an alpha": (WEIGHTS, {**GOOD[WEIGHTS], f"{STEM}.alpha": torch.ones(1)}),
    "ranks that differ": (WEIGHTS, {**GOOD[WEIGHTS], f"{STEM}.lora_A.weight": torch.zeros(3, 24)}),
    "factors in float16": (WEIGHTS, {k: v.half() for k, v in GOOD[WEIGHTS].items()}),
    "factors in float64": (WEIGHTS, {k: v.double() for k, v in GOOD[WEIGHTS].items()}),
    "factors off the grid": (WEIGHTS, {**GOOD[WEIGHTS], f"{STEM}.lora_A.weight": torch.full((2, 24), 0.1)}),
    "factors of no output": (WEIGHTS, {**GOOD[WEIGHTS], f"{STEM}.lora_B.weight": torch.zeros(0, 2)}),
    "factors of no rank": (
        WEIGHTS,
        {f"{STEM}.lora_A.weight": torch.zeros(0, 24), f"{STEM}.lora_B.weight": torch.zeros(4, 0)},
    ),
    "factors of three dimensions": (WEIGHTS, {**GOOD[WEIGHTS], f"{STEM}.lora_A.weight": torch.zeros(2, 24, 1)}),
    "rows of a parameter that is not there": (BASIS, {**GOOD[BASIS], "x.rows": ROWS, "x.energy": ROWS[:, 0].abs()}),
    "rows of a parameter without energy": (BASIS, {**GOOD[BASIS], f"{STEM}.rows": ROWS}),
    "rows of a parameter of another width": (
        BASIS,
        {**GOOD[BASIS], f"{STEM}.rows": ROWS[:, :9].clone(), f"{STEM}.energy": torch.ones(3, dtype=DOUBLE)},
    ),
    "targets of a parameter without anchors": (TARGETS, {**GOOD[TARGETS], f"{STEM}.targets": ROWS}),
    "a basis in float32": (BASIS, {k: v.float() for k, v in GOOD[BASIS].items()}),
    "a basis without energy": (BASIS, {"rows": ROWS}),
    "a basis with more": (BASIS, {**GOOD[BASIS], "more": torch.ones(1, dtype=DOUBLE)}),
    "fewer energies than rows": (BASIS, {"rows": ROWS, "energy": torch.ones(2, dtype=DOUBLE)}),
    "a negative energy": (BASIS, {"rows": ROWS, "energy": -torch.ones(3, dtype=DOUBLE)}),
    "more rows than dimensions": (
        BASIS,
        {"rows": torch.zeros(25, 24, dtype=DOUBLE), "energy": torch.zeros(25, dtype=DOUBLE)},
    ),
    "rows that are a vector": (BASIS, {"rows": ROWS[0].clone(), "energy": torch.ones(24, dtype=DOUBLE)}),
    "a basis of another width": (BASIS, {"rows": ROWS[:, :20].clone(), "energy": torch.ones(3, dtype=DOUBLE)}),
    "no targets": (TARGETS, {"targets": ROWS[:0].clone(), "anchors": ROWS[:0].clone()}),
    "fewer anchors than targets": (TARGETS, {"targets": ROWS, "anchors": ROWS[:1].clone()}),
    "targets of another width": (TARGETS, {k: v[:, :9].clone() for k, v in GOOD[TARGETS].items()}),
    "a target that is a number": (TARGETS, {k: torch.tensor(1.0, dtype=DOUBLE) for k in GOOD[TARGETS]}),
}


def encoded(files: Files) -> dict[str, bytes]:
    return {name: encode(tensors, {"format": "pt"}) for name, tensors in files.items()}


def test_the_good_files_are_good() -> None:
    assert PatchTensors.from_files(encoded(GOOD)).files() == encoded(GOOD)


@pytest.mark.parametrize("flaw", BAD)
def test_tensor_files_are_refused_that_have(flaw: str) -> None:
    name, tensors = BAD[flaw]
    with pytest.raises((FormatError, AlgebraError)):
        PatchTensors.from_files(encoded({**GOOD, name: tensors}))


def test_another_encoding_of_the_same_tensors_is_refused() -> None:
    for metadata in ({}, {"format": "pt", "note": "hello"}):
        other = encoded(GOOD) | {BASIS: encode(GOOD[BASIS], metadata)}
        with pytest.raises(FormatError, match="one deterministic encoding"):
            PatchTensors.from_files(other)


@pytest.mark.parametrize("name", [WEIGHTS, BASIS, TARGETS])
def test_numbers_that_are_not_finite_are_refused(name: str) -> None:
    data = bytearray(encoded(GOOD)[name])
    data[-8:] = b"\xff" * 8
    with pytest.raises(FormatError, match="finite"):
        PatchTensors.from_files(encoded(GOOD) | {name: bytes(data)})


def test_the_lora_file_holds_lora_keys_only_and_its_ranks_are_one(patch: Patch) -> None:
    """What other loaders need: PEFT's spelling, no alpha, one rank a component."""
    data = patch.files()[WEIGHTS]
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert header.pop("__metadata__") == {"format": "pt"}
    assert all(name.startswith("unet.") and ".lora_" in name for name in header)
    assert {h["dtype"] for h in header.values()} == {"F32"}
    ranks = {h["shape"][0] if ".lora_A." in name else h["shape"][1] for name, h in header.items()}
    assert len(ranks) == 1


def test_every_refusal_is_ours(patch: Patch) -> None:
    """Cut files anywhere: no library's own exception comes through."""
    files = patch.files()
    for name in CONTENT:
        for length in {0, 1, 7, 8, 9, 100, len(files[name]) // 2, len(files[name]) - 1}:
            with pytest.raises(RasuraError):
                Patch.from_files({**files, name: files[name][:length]})
