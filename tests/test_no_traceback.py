# ruff: noqa: F811 - a test asks for a fixture by its name
"""What once ended in a traceback: each is a sentence and a code of ours now, and so is all that is like it."""

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from support.commandline import Run, rasura
from support.full import FULL
from support.registries.workshop import Workshop, workshop  # noqa: F401
from test_bad_input import files_of, refused, signed, with_manifest, write

from rasura.patches._io.json_fields import show
from rasura.patches.checks.policy import Policy
from rasura.patches.errors import InputError, RasuraError
from rasura.registry._storage.location import Location

HALF = "\udcff"  # what a byte that is no UTF-8 becomes on a command line
MODEL = ("--model", "the model")


def said(shop: Workshop, *arguments: str | Path) -> Run:
    """A command that fails with a code of ours and no traceback."""
    run = rasura(*arguments, "--json", cwd=shop.folder)
    assert "Traceback" not in run.err, run.err
    assert run.envelope["error"] is None or run.envelope["error"]["code"] != "internal", run
    return run


# --- numbers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("digits", [400, 5_000])
@pytest.mark.parametrize("sign", ["", "-"])
def test_a_policy_of_many_digits(workshop: Workshop, digits: int, sign: str) -> None:
    path = workshop.folder / "policy.toml"
    for text in (f"[limits]\npair = {sign}{'9' * digits}\n", f"[evaluation]\nmin_forget = {sign}{'9' * digits}\n"):
        path.write_text(text)
        refused(workshop, "policy", "set", path, exit_code=1, code="input")
        refused(workshop, "patch", "apply", workshop.dog, *MODEL, "--policy", path, exit_code=1, code="input")
    path.write_text(f"[limits]\npair = 0.{'9' * digits}\n")  # a number like any other
    assert rasura("policy", "set", path, cwd=workshop.folder).code == 0


def test_settings_of_many_digits(workshop: Workshop) -> None:
    path = workshop.folder / ".rasura/config.toml"
    (workshop.folder / "retain.txt").write_text("cat\n")
    for value in ("9" * 5_000, "[" * 5_000, "2000-99-99"):
        path.write_text(f"[defaults]\nkey = {value}\n")
        erase = ("erase", "--base", "tiny", "--concept", "dog", "--retain", "retain.txt")
        refused(workshop, *erase, exit_code=1, code="input")


def test_numbers_that_cannot_be_written_are_shown() -> None:
    assert show(10**5_000) == "an integer of 16610 bits"
    with pytest.raises(InputError, match="bits"):
        Policy(pair=10**5_000)


# --- patches that say less than ours ---------------------------------------------------------------------------------


def test_a_patch_without_options(workshop: Workshop, tmp_path: Path) -> None:
    def bare(document: dict[str, dict[str, object]]) -> None:
        document["eraser"]["options"] = {}

    folder = write(tmp_path / "patch", signed(with_manifest(files_of(workshop), bare)))  # type: ignore[arg-type]
    added = rasura("patch", "add", folder, "--json", cwd=workshop.folder).data["id"]
    assert "layers ?" in rasura("patch", "show", added, cwd=workshop.folder).out
    assert said(workshop, "patch", "show", added).code == 0
    for command in (
        ("patch", "retarget", added, "--base", "tiny"),
        ("patch", "rebase", added, "--protect", workshop.photo),
        ("patch", "check", added),
        ("patch", "verify", added),
        ("patch", "export", added, "-o", "out"),
        ("patch", "apply", added, *MODEL),
        ("patch", "revert", "--all", "--yes", *MODEL),
        ("takedown", "cat", *MODEL, "--dry-run"),
    ):
        said(workshop, *command)


def _swap(document: dict[str, dict[str, list[object]]]) -> None:
    document["base"]["parameters"].reverse()


def _twice(document: dict[str, dict[str, list[object]]]) -> None:
    document["base"]["parameters"].insert(0, document["base"]["parameters"][0])


def _folder(document: dict[str, dict[str, dict[str, object]]]) -> None:
    document["protected"]["retain"]["source"] = "../secrets/retain.txt"


@pytest.mark.parametrize("change", [_swap, _twice, _folder])
def test_what_the_format_forbids(workshop: Workshop, tmp_path: Path, change: Callable[..., None]) -> None:
    folder = write(tmp_path / "patch", signed(with_manifest(files_of(workshop), change)))
    refused(workshop, "patch", "add", folder, exit_code=4, code="format", entries=("refused format",))


def test_files_that_nobody_signed_are_named(workshop: Workshop, tmp_path: Path) -> None:
    folder = write(tmp_path / "patch", files_of(workshop))
    (folder / "notes.txt").write_text("hello")
    (folder / ".git").mkdir()
    run = rasura("patch", "add", folder, "--json", cwd=workshop.folder)
    assert run.data["patches"] == [{"id": workshop.dog, "new": False, "ignored": [".git", "notes.txt"], "signers": []}]
    assert "ignored notes.txt: no signature covers it" in rasura("patch", "add", folder, cwd=workshop.folder).out


# --- places ---------------------------------------------------------------------------------------------------------

URLS = (
    "postgresql://[::1/db?blobs=/tmp/x",
    "postgresql://u@h:abc/db?blobs=/tmp/x",
    "postgresql://u@h:99999999/db?blobs=/tmp/x",
    "postgresql://h/db?blobs=%00",
    "postgresql://\u2100.com/d?blobs=/tmp/b",
    f"postgresql://{HALF}/d?blobs=/tmp/b",
    "postgresql://",
    "://",
    "http://[",
    "nul\0byte",
)


@pytest.mark.parametrize("url", URLS, ids=ascii)
def test_places_that_are_none(workshop: Workshop, url: str) -> None:
    for command in (("patch", "list"), ("init",)):
        run = said(workshop, *command, "--registry", url)
        assert (run.code, run.envelope["error"]["code"]) in {(1, "input"), (1, "registry"), (1, "no_registry")}
    assert not list(workshop.folder.glob("*postgres*"))


def test_a_password_is_in_no_message() -> None:
    for url in ("postgresql://u:secret@[::1/db?blobs=/x", "postgresql://u:secret@h:abc/db?blobs=/x"):
        with pytest.raises(InputError) as caught:
            Location.of(url)
        assert "secret" not in f"{caught.value!r} {caught.value.hint}"


# --- half characters ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [HALF, f"a{HALF}b", "\ud800"], ids=ascii)
def test_half_a_character(workshop: Workshop, text: str) -> None:
    (workshop.folder / "retain.txt").write_text("cat\n")
    before = workshop.tables()
    for command in (
        ("key", "new", text),
        ("key", "revoke", text),
        ("key", "export", text, "-o", "x"),
        ("key", "trust", text),
        ("base", "show", text),
        ("patch", "show", text),
        ("patch", "list", "--concept", text),
        ("erase", "--base", text, "--concept", "x", "--retain", "retain.txt"),
        ("erase", "--base", "tiny", "--concept", text, "--retain", "retain.txt"),
        ("patch", "apply", workshop.dog, *MODEL, "--reason", text),
        ("patch", "apply", workshop.dog, *MODEL, "--actor", text),
        ("patch", "apply", workshop.dog, "--model", text),
        ("stack", "create", text),
        ("stack", "show", text),
        ("stack", "add", text, workshop.dog),
        ("plan", "--stack", text, *MODEL),
        ("evaluation", "show", text),
        ("policy", "set", text),
        ("pull", text),
        ("bundle", "show", text),
        ("undo", "--model", text),
    ):
        said(workshop, *command)
    assert workshop.tables() == before
    with workshop.open() as registry:
        for ask in (registry.key, registry.base, registry.patch, registry.stack, registry.resolve_patch):
            with pytest.raises(RasuraError):
                ask(text)


# --- output ---------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_nobody_hears_the_answer(workshop: Workshop) -> None:
    """A full disk behind standard output: what was done is done, and the exit code says that it was not told."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    def type_(*arguments: str, where: str = "out") -> tuple[int, str]:
        with Path("/dev/full").open("w") as full:
            run = subprocess.run(
                [sys.executable, "-m", "rasura", *arguments],
                cwd=workshop.folder,
                env=environment,
                stdout=full if where == "out" else subprocess.PIPE,
                stderr=subprocess.PIPE if where == "out" else full,
                text=True,
                check=False,
            )
        return run.returncode, (run.stderr if where == "out" else run.stdout) or ""

    lists = ("key", "list"), ("key", "list", "--json"), ("audit", "log"), ("audit", "export", "--format", "jsonl")
    for arguments in (("--help",), *lists, ("patch", "show", "no", "--json")):
        code, told = type_(*arguments)
        assert (code, told.count("\n")) == (1, 1), told
        assert told.startswith("error: expected to print")
        assert "No space left on device" in told
    code, told = type_("key", "new", "bob", "--json")
    assert code == 1
    assert "what it was asked to do is done" in told
    assert [key["name"] for key in rasura("key", "list", "--json", cwd=workshop.folder).data["keys"]] == [
        "alice",
        "bob",
    ]
    code, told = type_("key", "list", "--json", where="err")
    assert (code, json.loads(told)["ok"]) == (0, True)
    assert type_("patch", "show", "no", where="err") == (8, "")


# --- rows -----------------------------------------------------------------------------------------------------------

DAMAGE = ("CAST(x'fffe' AS TEXT)", "'[' || printf('%05000d', 9)", "'[1e999]'", "CAST(x'eda080' AS TEXT)", "'null'")


COLUMNS = (
    ("signing_key", "pem"),
    ("signing_key", "added_at"),
    ("base", "name"),
    ("base_parameter", "shape"),
    ("base_parameter", "casts"),
    ("base_parameter", "dtype"),
    ("patch", "method"),
    ("patch_concept", "concept"),
    ("patch_file", "digest"),
    ("registry", "origin"),
    ("registry", "created_at"),
)


@pytest.mark.parametrize(("table", "column"), COLUMNS)
def test_bytes_of_the_database_that_are_damaged(workshop: Workshop, table: str, column: str) -> None:
    """Each column in two of the five ways, with FULL=1 in all."""
    path = workshop.folder / ".rasura/registry.db"
    whole, at = path.read_bytes(), COLUMNS.index((table, column))
    for value in DAMAGE if FULL else (DAMAGE[at % 5], DAMAGE[(at + 2) % 5]):
        path.write_bytes(whole)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA ignore_check_constraints = ON")
            try:
                connection.execute(f'UPDATE "{table}" SET "{column}" = {value} WHERE rowid = 1')
            except sqlite3.Error:
                continue  # the table itself refuses it
            connection.commit()
        for command in (("patch", "list"), ("key", "list"), ("base", "list"), ("base", "show", "tiny"), ("status",)):
            said(workshop, *command)
