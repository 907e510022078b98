# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""What may not be: each row ends with its documented exit code and its code for machines, and nothing has changed."""

import hashlib
import json
import os
import random
import shutil
import sqlite3
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from support.commandline import rasura
from support.registries.registry_fixtures import files_of as some_files
from support.registries.registry_fixtures import patch
from support.registries.workshop import ALICE, Workshop, copy_of, digests, workshop, workshop_template

from rasura.patches._io.canonical_json import dumps
from rasura.patches.errors import VerificationError
from rasura.patches.format.signatures.model_signature import sign
from rasura.patches.format.signatures.signing_key import PrivateKey, SigningKey
from rasura.patches.types import PatchId
from rasura.registry._storage.records.records import Draft
from rasura.registry.apply import operations
from rasura.registry.apply.hosts import host_state
from rasura.registry.registry import Registry
from rasura.registry.trust.keys.key_files import signer
from rasura.registry.trust.verified_patch import verify_files

Files = dict[str, bytes]
WEIGHTS, BASIS, TARGETS = "pytorch_lora_weights.safetensors", "basis.safetensors", "targets.safetensors"


def files_of(shop: Workshop) -> Files:
    with shop.open() as registry:
        return registry.patch_files(shop.dog)


def write(folder: Path, files: Files) -> Path:
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def signed(files: Files, key: SigningKey | None = None) -> Files:
    """The files with a good signature, by the key that the registry trusts unless another is given."""
    if key is None:
        with workshop_template().open() as registry:
            key = signer(registry, "alice")
    content = {name: data for name, data in files.items() if name != "model.sig"}
    patch_id = PatchId(hashlib.sha256(content["manifest.json"]).hexdigest())
    return {**content, "model.sig": sign(content, name=patch_id, key=key)}


def refused(shop: Workshop, *arguments: str | Path, exit_code: int, code: str, entries: tuple[str, ...] = ()) -> str:
    """Run a command that must fail so; its message."""
    with shop.unchanged(*entries):
        run = rasura(*arguments, "--json", cwd=shop.folder)
    error = run.envelope["error"]
    assert (run.code, error["code"]) == (exit_code, code), error
    assert all(line.endswith("…") for line in run.err.splitlines()), run.err  # progress, on a slow machine
    assert error["message"]
    return f"{error['message']} | {error['hint']}"


# --- patch files ----------------------------------------------------------------------------------------------------


def header_of(data: bytes) -> tuple[dict[str, dict[str, object]], bytes]:
    size = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def tensor_file(header: str, body: bytes) -> bytes:
    text = header.encode() + b" " * (-len(header.encode()) % 8)
    return len(text).to_bytes(8, "little") + text + body


def with_number(files: Files, number: float) -> Files:
    data = files[WEIGHTS]
    at = 8 + int.from_bytes(data[:8], "little")
    return {**files, WEIGHTS: data[:at] + struct.pack("<f", number) + data[at + 4 :]}


def with_dtype(files: Files) -> Files:
    header, body = header_of(files[BASIS])
    header["rows"]["dtype"] = "I64"
    return {**files, BASIS: tensor_file(json.dumps(header), body)}


def with_name_twice(files: Files) -> Files:
    header, body = header_of(files[TARGETS])
    text = json.dumps(header)
    return {**files, TARGETS: tensor_file('{"targets": ' + json.dumps(header["targets"]) + "," + text[1:], body)}


def with_manifest(files: Files, change: Callable[[dict[str, object]], object]) -> Files:
    document = json.loads(files["manifest.json"])
    change(document)
    return {**files, "manifest.json": dumps(document)}


MALFORMED: dict[str, Callable[[Files], Files]] = {
    "weights are empty": lambda f: {**f, WEIGHTS: b""},
    "weights are cut": lambda f: {**f, WEIGHTS: f[WEIGHTS][:-1]},
    "weights have a tail": lambda f: {**f, WEIGHTS: f[WEIGHTS] + b"\0"},
    "weights are a pickle": lambda f: {**f, WEIGHTS: b"\x80\x04." + bytes(1000)},
    "weights claim a header of 2^63 bytes": lambda f: {**f, WEIGHTS: (2**63).to_bytes(8, "little") + f[WEIGHTS][8:]},
    "a tensor twice": with_name_twice,
    "a tensor of integers": with_dtype,
    "NaN": lambda f: with_number(f, float("nan")),
    "infinity": lambda f: with_number(f, float("inf")),
    "a factor off the grid": lambda f: with_number(f, 0.1),
    "targets of another patch": lambda f: {**f, TARGETS: f[BASIS]},
    "no basis": lambda f: {name: data for name, data in f.items() if name != BASIS},
    "a manifest that is no JSON": lambda f: {**f, "manifest.json": b"{"},
    "a manifest with spaces": lambda f: {**f, "manifest.json": f["manifest.json"].replace(b":", b": ", 1)},
    "a manifest with a key twice": lambda f: {
        **f,
        "manifest.json": f["manifest.json"].replace(b"{", b'{"licence":"",', 1),
    },
    "a manifest with NaN": lambda f: {**f, "manifest.json": f["manifest.json"].replace(b'"rank":"1"', b'"rank":NaN')},
    "a manifest nested 200,000 deep": lambda f: {**f, "manifest.json": b"[" * 200_000},
    "a manifest with another field": lambda f: with_manifest(f, lambda d: d.update(more="1")),
    "a manifest of another format": lambda f: with_manifest(f, lambda d: d.update(format="rasura patch 99")),
    "a manifest of 20 MB": lambda f: {**f, "manifest.json": b"[" + b" " * 20_000_000 + b"]"},
}


@pytest.mark.parametrize("flaw", MALFORMED)
def test_a_malformed_patch_is_refused_even_with_a_good_signature(workshop: Workshop, tmp_path: Path, flaw: str) -> None:
    files = MALFORMED[flaw](files_of(workshop))
    assert files != files_of(workshop), "the flaw is none"
    folder = write(tmp_path / "patch", signed(files))
    exit_code, code = {"a factor off the grid": (1, "off_grid"), "no basis": (8, "not_found")}.get(flaw, (4, "format"))
    entries = (f"{'refused' if exit_code == 4 else 'failed'} {code}",)
    refused(workshop, "patch", "add", folder, exit_code=exit_code, code=code, entries=entries)


def test_every_flipped_byte_of_an_exported_patch_is_noticed(workshop: Workshop) -> None:
    """Two hundred positions over all files, each with another bit."""
    files = files_of(workshop)
    chance = random.Random(7)
    places = [(name, chance.randrange(len(files[name]))) for name in sorted(files) for _ in range(40)]
    with workshop.open() as registry:
        verify_files(registry, files)
        for name, at in places:
            data = bytearray(files[name])
            data[at] ^= 1 << chance.randrange(8)
            with pytest.raises(VerificationError):
                verify_files(registry, {**files, name: bytes(data)})


def test_every_flipped_byte_of_the_store_is_noticed(workshop: Workshop) -> None:
    with workshop.open() as registry:
        blobs = {name: registry.blobs.path(digest) for name, digest in registry.patch(workshop.dog).files.items()}
    for name, path in blobs.items():
        whole = path.read_bytes()
        path.chmod(0o644)
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 4]))
        entries = ("refused digest_mismatch",)
        apply = ("patch", "apply", workshop.dog, "--model", "the model")
        said = refused(workshop, *apply, exit_code=4, code="digest_mismatch", entries=entries)
        assert str(path) in said, name
        refused(workshop, "patch", "verify", workshop.dog, exit_code=4, code="digest_mismatch")
        path.write_bytes(whole)
    assert rasura("patch", "verify", workshop.dog, "--json", cwd=workshop.folder).data == {"verified": [workshop.dog]}


def test_a_patch_that_is_no_folder_of_files(workshop: Workshop, tmp_path: Path) -> None:
    folder = write(tmp_path / "patch", files_of(workshop))
    weights = folder / WEIGHTS
    weights.rename(tmp_path / "elsewhere")
    weights.symlink_to(tmp_path / "elsewhere")
    add = ("patch", "add", folder)
    refused(workshop, *add, exit_code=4, code="format", entries=("refused format",))
    weights.unlink()
    os.mkfifo(weights)  # nobody writes to it: whoever waits for bytes waits for ever
    refused(workshop, *add, exit_code=4, code="format", entries=("refused format",))
    weights.unlink()
    refused(workshop, *add, exit_code=8, code="not_found", entries=("failed not_found",))
    weights.touch()
    os.truncate(weights, 2**40)
    refused(workshop, *add, exit_code=4, code="format", entries=("refused format",))
    refused(workshop, "patch", "add", "nowhere", exit_code=8, code="not_found", entries=("failed not_found",))


# --- trust ----------------------------------------------------------------------------------------------------------


def test_unsigned(workshop: Workshop, tmp_path: Path) -> None:
    files = {name: data for name, data in files_of(workshop).items() if name != "model.sig"}
    folder = write(tmp_path / "patch", files)
    said = refused(workshop, "patch", "add", folder, exit_code=4, code="signature", entries=("refused signature",))
    assert "model.sig" in said


def test_a_signature_of_another_patch(workshop: Workshop, tmp_path: Path) -> None:
    with workshop.open() as registry:
        other = registry.patch_files(workshop.photo)["model.sig"]
    folder = write(tmp_path / "patch", {**files_of(workshop), "model.sig": other})
    refused(workshop, "patch", "add", folder, exit_code=4, code="digest_mismatch", entries=("refused digest_mismatch",))


def test_a_key_that_nobody_here_trusts(workshop: Workshop, tmp_path: Path) -> None:
    folder = write(tmp_path / "patch", signed(files_of(workshop), PrivateKey.generate()))
    add = ("patch", "add", folder)
    said = refused(workshop, *add, exit_code=4, code="untrusted_key", entries=("refused untrusted_key",))
    assert "rasura key trust" in said


def test_a_revoked_key(workshop: Workshop) -> None:
    assert rasura("key", "revoke", "alice", "--yes", "--json", cwd=workshop.folder).data["trusted"] is False
    apply = ("patch", "apply", workshop.dog, "--model", "the model")
    said = refused(workshop, *apply, exit_code=4, code="revoked_key", entries=("refused revoked_key",))
    assert "revoked on 20" in said
    refused(workshop, "patch", "verify", workshop.dog, exit_code=4, code="revoked_key")
    refused(workshop, "patch", "check", workshop.dog, exit_code=4, code="revoked_key")
    erase = ("erase", "--base", "tiny", "--concept", "of", "--retain", retain(workshop), "--key", "alice")
    refused(workshop, *erase, exit_code=4, code="revoked_key", entries=("refused revoked_key",))


def test_what_a_revoked_key_signed_can_still_be_taken_out(workshop: Workshop) -> None:
    first = workshop.digests()
    with workshop.open() as registry:
        operations.apply(registry, workshop.host(), [workshop.dog], ALICE)
    rasura("key", "revoke", "alice", "--yes", cwd=workshop.folder)
    run = rasura("patch", "revert", "--all", "--yes", "--model", "the model", cwd=workshop.folder)
    assert run.code == 0, run.err
    assert workshop.digests() == first


# --- what is there --------------------------------------------------------------------------------------------------


def test_a_model_that_changed_where_a_patch_touched_it(workshop: Workshop) -> None:
    apply = ("patch", "apply", workshop.dog, "--model", "the model")
    assert rasura(*apply, cwd=workshop.folder).code == 0
    name = change(workshop, touched=True)
    again = ("patch", "apply", workshop.photo, "--model", "the model")
    refused(workshop, *again, exit_code=6, code="drift", entries=("refused drift",))
    for deep in ((), ("--deep",)):
        run = rasura("patch", "status", "--model", "the model", *deep, "--json", cwd=workshop.folder)
        assert run.code == 6
        assert name in run.envelope["data"]["drifted"]
        assert run.envelope["ok"] is False
    assert run.envelope["data"]["drifted"] == [name]


def test_a_model_that_changed_where_no_patch_touched_it(workshop: Workshop) -> None:
    """Only a deep look sees it; patches do not depend on it."""
    assert rasura("patch", "apply", workshop.dog, "--model", "the model", cwd=workshop.folder).code == 0
    name = change(workshop, touched=False)
    shallow, deep = (
        rasura("patch", "status", "--model", "the model", "--json", *more, cwd=workshop.folder)
        for more in ((), ("--deep",))
    )
    assert shallow.data["drifted"] == []
    assert (deep.code, deep.envelope["data"]["drifted"]) == (6, [name])


def change(shop: Workshop, *, touched: bool) -> str:
    """Change a byte of the model behind the registry's back."""
    host = shop.host()
    with shop.open() as registry:
        names = host_state.list_touched(registry, [shop.dog])
    name = names[0] if touched else next(n for n in host.parameters() if n not in names)
    place = host._layout.place(name, "")
    with (shop.model / place.file).open("r+b") as file:
        file.seek(place.start)
        byte = file.read(1)[0]
        file.seek(place.start)
        file.write(bytes([byte ^ 1]))
    return name


def test_ids(workshop: Workshop) -> None:
    for command in (("patch", "show"), ("patch", "verify"), ("patch", "export", "-o", "out")):
        refused(workshop, *command, "ffffffffffff", exit_code=8, code="not_found")
        assert "4 hexadecimal digits" in refused(workshop, *command, "abc", exit_code=8, code="not_found")
        refused(workshop, *command, "the dog", exit_code=8, code="not_found")
    assert not (workshop.folder / "out").exists()


def test_an_ambiguous_id(workshop: Workshop) -> None:
    """Two patches whose ids begin alike: made by hand, because finding real ones would take 2^32 erasures."""
    with workshop.open() as registry:
        for last in "01":
            alike = object.__new__(type(patch()))
            record = patch("twin " + last, base=registry.bases()[0].digest)
            for name in record.__slots__:
                object.__setattr__(alike, name, getattr(record, name))
            object.__setattr__(alike, "patch_id", PatchId("abcdef" + last * 58))
            registry.add_patch(alike, some_files("twin " + last), Draft("alice", "", "patch.add", "success"))
    said = refused(workshop, "patch", "show", "abcd", exit_code=8, code="ambiguous_id")
    assert "abcdef000000, abcdef111111" in said


# --- requests -------------------------------------------------------------------------------------------------------


def retain(shop: Workshop) -> Path:
    path = shop.folder / "retain.txt"
    path.write_text("painting\ncat\na\nthe\n")
    return path


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        (["--concept", "dog", "--retain", "missing.txt"], "not_found", "does not exist"),
        (["--concept", "dog", "--retain", "."], "retain_set", "cannot be read"),
        (["--concept", "dog", "--retain", "the model/unet/diffusion_pytorch_model.safetensors"], "retain_set", "UTF-8"),
        (["--concept", "dog", "--retain", "empty.txt"], "retain_set", "names no concept"),
        (["--concept", "", "--retain", "retain.txt"], "concept", "empty"),
        (["--concept", " \t", "--retain", "retain.txt"], "concept", "empty"),
        (["--concept", "dog\ncat", "--retain", "retain.txt"], "concept", "control"),
        (["--concept", "Dog", "--anchor", " dog ", "--retain", "retain.txt"], "concept", "equals its anchor"),
        (["--concept", "dog", "--concept", "DOG", "--retain", "retain.txt"], "concept", "twice"),
        (["--concept", "dog " * 90, "--retain", "retain.txt"], "concept", "tokens"),
        (["--concept", "dog", "--template", "no slot", "--retain", "retain.txt"], "concept", "once"),
        (["--concept", "dog", "--rank-rule", "banana", "--retain", "retain.txt"], "input", "rank rule"),
        (["--concept", "dog", "--set", "ridge=nan", "--retain", "retain.txt"], "input", "option ridge: expected 0 to"),
        (["--concept", "dog", "--retain", "retain.txt", "--reason", "x" * 5000], "input", "4096"),
    ],
    ids=str,
)
def test_an_erasure_that_makes_no_sense(workshop: Workshop, arguments: list[str], code: str, part: str) -> None:
    retain(workshop)
    (workshop.folder / "empty.txt").write_text("# nothing\n\n")
    size = len(workshop.entries())
    run = rasura("erase", "--base", "tiny", *arguments, "--json", cwd=workshop.folder)
    error = run.envelope["error"]
    assert (run.code, error["code"]) == (8 if code == "not_found" else 1, code), error
    assert part in error["message"]
    assert [(e.action, e.outcome, e.error) for e in workshop.entries()[size:]] in (
        [],
        [("patch.erase", "failed", code)],
    )


def test_a_target_inside_what_is_protected(workshop: Workshop) -> None:
    (workshop.folder / "all.txt").write_text(
        "".join(f"{w}\n" for w in ["cat", "photo", "painting", "of", "van", "gogh", "a", "the", "b", "c"])
    )
    erase = ("erase", "--base", "tiny", "--concept", "dog", "--retain", "all.txt", "--rank-rule", "count:99")
    refused(workshop, *erase, exit_code=3, code="erasure_refused", entries=("refused erasure_refused",))


def test_patches_that_disturb_each_other(workshop: Workshop) -> None:
    apply = ("patch", "apply", workshop.dog, workshop.rival, "--model", "the model")
    said = refused(workshop, *apply, exit_code=3, code="check_refused", entries=("refused check_refused",))
    for part in (workshop.dog[:12], workshop.rival[:12], "two versions of one concept, 'dog'", "| rasura patch "):
        assert part in said
    run = rasura("patch", "check", workshop.dog, workshop.rival, "--json", cwd=workshop.folder)
    assert (run.code, run.envelope["data"]["accepted"]) == (3, False)
    assert run.envelope["data"]["reasons"][0]["hint"].startswith("rasura patch ")


@pytest.mark.parametrize("strength", ["0.3", "5", "-4.0625", "nan", "1e0", "0x1", "", "٣", "0"])
def test_a_strength_off_the_grid(workshop: Workshop, strength: str) -> None:
    apply = ("patch", "apply", workshop.dog, "--model", "the model", "--strength", strength)
    refused(workshop, *apply, exit_code=1, code="strength")


# --- places ---------------------------------------------------------------------------------------------------------


def test_no_registry(workshop: Workshop, tmp_path: Path) -> None:
    for arguments in (("--registry", "nothing here"), ("--registry", "the model"), ("--registry", "retain.txt")):
        refused(workshop, "patch", "list", *arguments, exit_code=1, code="no_registry")
    refused(workshop, "patch", "list", "--registry", "mysql://localhost/x", exit_code=1, code="input")
    run = rasura("patch", "list", "--json", cwd=tmp_path)
    assert (run.code, run.envelope["error"]["code"], run.envelope["error"]["hint"]) == (1, "no_registry", "rasura init")


@pytest.mark.parametrize("damage", ["header", "middle", "empty", "text"])
def test_a_damaged_database(workshop: Workshop, damage: str) -> None:
    path = workshop.folder / ".rasura" / "registry.db"
    data = path.read_bytes()
    half = len(data) // 2
    damaged = {
        "header": b"\0" * 100 + data[100:],
        "middle": data[:8192] + os.urandom(half) + data[8192 + half :],
        "empty": b"",
        "text": b"this is no database\n" * 100,
    }[damage]
    path.write_bytes(damaged)
    before = workshop.digests()
    for command in (("patch", "list"), ("audit", "verify"), ("patch", "apply", workshop.dog, "--model", "the model")):
        run = rasura(*command, "--json", cwd=workshop.folder)
        assert run.code in {1, 4}, run
        assert run.envelope["error"]["code"] in {"registry", "no_registry", "schema", "audit"}
        assert run.err == ""
    assert workshop.digests() == before
    assert path.read_bytes() == damaged


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A file system of its own in memory, where this machine lets us mount one."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("needs the right to mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_place_that_may_not_be_written(workshop: Workshop, tmp_path: Path) -> None:
    """Looking works; changing says what cannot be written."""
    with mounted(tmp_path / "frozen", "size=64m") as frozen:
        shop = copy_of(workshop, frozen / "shop")
        subprocess.run(["mount", "-o", "remount,ro", frozen], check=True)
        before = digests(frozen)
        for look in (("patch", "list"), ("audit", "verify"), ("patch", "status", "--deep", "--model", "the model")):
            assert rasura(*look, cwd=shop.folder).code == 0
        refused(shop, "key", "new", "bob", exit_code=1, code="host_write")
        refused(shop, "key", "revoke", "alice", "--yes", exit_code=1, code="registry")
        refused(shop, "patch", "apply", shop.dog, "--model", "the model", exit_code=1, code="registry")
        refused(shop, "init", "--registry", "deeper", exit_code=1, code="registry")
        assert rasura("patch", "export", shop.dog, "-o", "out", "--json", cwd=shop.folder).code == 1
        assert rasura("key", "export", "alice", "-o", "out", "--json", cwd=shop.folder).code == 1
        # The registry may be written, the model may not.
        model = ("--registry", workshop.folder, "--model", shop.model)
        with workshop.unchanged("failed unsupported_host"):
            run = rasura("patch", "apply", workshop.dog, *model, "--json", cwd=tmp_path)
        assert (run.code, run.envelope["error"]["code"]) == (1, "unsupported_host")
        assert digests(frozen) == before


def test_names_full_of_meaning_work(workshop: Workshop, tmp_path: Path) -> None:
    """Spaces, per cent signs, quotes, another script, a leading dash: in registry, model and file alike."""
    strange = tmp_path / "-odd 'n\"a%20m%s e\\ {} ☃ \u202e"
    shutil.copytree(workshop.folder, strange)
    first = digests(strange / "the model")
    here = ("--registry", str(strange))
    model = ("--model", str(strange / "the model"))
    assert rasura("patch", "apply", workshop.dog, *model, *here, cwd=tmp_path).code == 0
    status = rasura("patch", "status", *model, *here, "--json", cwd=tmp_path)
    assert status.data["location"] == str(strange / "the model")
    assert rasura("patch", "export", workshop.dog, "-o", strange / "-x", *here, cwd=tmp_path).code == 0
    assert rasura("patch", "revert", "--all", "--yes", *model, *here, cwd=tmp_path).code == 0
    assert rasura("audit", "verify", *here, cwd=tmp_path).code == 0
    assert digests(strange / "the model") == first


def test_a_name_that_is_no_text(workshop: Workshop) -> None:
    """Bytes that are no UTF-8 are a sentence in an error, and no crash."""
    name = os.fsdecode(b"\xff\xfe")
    run = rasura("patch", "apply", workshop.dog, "--model", name, "--json", cwd=workshop.folder)
    assert (run.code, run.envelope["error"]["code"]) == (8, "not_found")
    run = rasura("patch", "apply", workshop.dog, "--model", name, cwd=workshop.folder)
    assert (run.code, run.out) == (8, "")
    assert "\\udcff" in run.err


@pytest.mark.parametrize("left", [0, 40_000])
def test_a_full_file_system(workshop: Workshop, tmp_path: Path, left: int) -> None:
    """No room for the first file, or for some of them."""
    with mounted(tmp_path / "small", "size=16m") as small:
        model = shutil.copytree(workshop.model, small / "model")
        before = digests(model)
        filler = small / "filler"
        filler.write_bytes(b"\0" * (shutil.disk_usage(small).free - left))
        with workshop.unchanged("begun", "failed host_write"):
            run = rasura("patch", "apply", workshop.dog, "--model", model, "--json", cwd=workshop.folder)
        assert (run.code, run.envelope["error"]["code"]) == (1, "host_write")
        assert digests(model) == before
        filler.unlink()
        assert rasura("patch", "apply", workshop.dog, "--model", model, cwd=workshop.folder).code == 0


def test_a_foreign_database_in_place_of_the_registry(workshop: Workshop) -> None:
    path = workshop.folder / ".rasura" / "registry.db"
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE patch (id TEXT)")
        connection.commit()
    before = path.read_bytes()
    for command in (("patch", "list"), ("key", "new", "bob"), ("audit", "verify")):
        run = rasura(*command, "--json", cwd=workshop.folder)
        assert (run.code, run.envelope["error"]["code"]) == (1, "no_registry")
    assert path.read_bytes() == before


def test_a_registry_is_not_made_twice(workshop: Workshop) -> None:
    refused(workshop, "init", exit_code=7, code="exists")
    assert isinstance(Registry.open(workshop.folder), Registry)
