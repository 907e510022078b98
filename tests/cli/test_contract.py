# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""What every command promises machines: one envelope, on stdout, whatever happens; exit codes; where the registry is."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from support.commandline import Run, rasura
from support.hubserver import TOKEN, HubServer
from support.registries.workshop import Workshop, start, workshop

from rasura import __version__
from rasura import cli as front_door
from rasura.commands._shared.command import command
from rasura.commands._shared.output import Result

MODEL = ("--model", "the model")


def leaves(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command that does something, as it is typed."""
    if not isinstance(command, click.Group):
        yield path
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        child = command.get_command(context, name)
        assert child is not None
        yield from leaves(child, (*path, name))


COMMANDS = sorted(leaves(front_door.cli))
VKEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
# Enough for each command to reach the registry, which is not there.
ARGUMENTS = {
    ("key", "new"): ["x"],
    ("key", "add"): ["x", "--signer", "hsm:"],
    ("key", "export"): ["x", "-o", "y"],
    ("key", "trust"): ["x"],
    ("key", "revoke"): ["x"],
    ("base", "add"): ["x"],
    ("base", "show"): ["x"],
    ("takedown",): ["--model", "x", "--concept", "x", "--yes"],
    ("withdraw",): ["x", "--model", "x", "--yes"],
    ("adopt",): ["x", "--base", "x", "--concept", "x"],
    ("bundle", "make"): ["abcd", "-o", "y"],
    ("bundle", "show"): ["x"],
    ("bundle", "add"): ["x"],
    ("erase",): ["--base", "x", "--concept", "x", "--retain", "x"],
    ("evaluate",): ["--base", "x", "--patch", "abcd"],
    ("patch", "show"): ["abcd"],
    ("patch", "sign"): ["abcd"],
    ("patch", "approve"): ["abcd"],
    ("trust", "sign"): ["x", "-o", "y"],
    ("trust", "set"): ["x"],
    ("patch", "retire"): ["abcd"],
    ("patch", "unretire"): ["abcd"],
    ("patch", "add"): ["x"],
    ("patch", "export"): ["abcd", "-o", "y"],
    ("patch", "verify"): ["abcd"],
    ("patch", "check"): ["abcd"],
    ("patch", "apply"): ["abcd", "--model", "x"],
    ("patch", "revert"): ["abcd", "--model", "x"],
    ("patch", "status"): ["--model", "x"],
    ("patch", "switch"): ["x", "--model", "x"],
    ("stack", "create"): ["x"],
    ("stack", "add"): ["x", "abcd"],
    ("stack", "remove"): ["x", "abcd"],
    ("stack", "show"): ["x"],
    ("stack", "update"): ["x"],
    ("stack", "delete"): ["x"],
    ("stack", "diff"): ["x", "y"],
    ("stack", "lock"): ["x"],
    ("policy", "set"): ["x"],
    ("patch", "bisect", "start"): ["x", "--model", "x"],
    ("patch", "bisect", "run"): ["true"],
    ("plan approve",): ["x.json"],
    ("plan",): ["--stack", "x", "--model", "x"],
    ("patch", "rebase"): ["abcd"],
    ("patch", "join"): ["abcd", "ef01"],
    ("patch", "retarget"): ["abcd", "--base", "x"],
    ("stack", "retarget"): ["x", "--base", "x"],
    ("evaluation", "show"): ["abcd"],
    ("push",): ["abcd", "org/name"],
    ("pull",): ["org/name"],
    ("demo",): ["--model", "x", "--out", "y"],
    ("attest",): ["--model", "x"],
    ("audit", "export"): ["-o", "y"],
    ("audit", "prove"): ["0"],
    ("audit", "show"): ["0"],
    ("audit", "anchor", "add"): ["--file", "y"],
    ("audit", "witness"): ["x", "--vkey", VKEY, "-o", "y"],
    ("report",): ["--case", "1", "-o", "y.html"],
    ("case", "open"): ["1"],
    ("case", "show"): ["1"],
    ("case", "add"): ["1", "--picture", "x"],
    ("case", "close"): ["1"],
    ("case", "reopen"): ["1"],
    ("case", "hold"): ["1"],
    ("case", "release"): ["1"],
    ("case", "forget"): ["1"],
    ("verify",): ["--model", "x", "--attestation", "y", "--key", "z"],
}
ALONE = {("demo",), ("verify",), ("audit", "witness")}
"""Commands that ask for no registry: what they miss is a file."""


def test_there_are_commands() -> None:
    assert len(COMMANDS) > 20
    assert set(ARGUMENTS) <= set(COMMANDS)


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_answers_in_one_envelope(path: tuple[str, ...], tmp_path: Path) -> None:
    """Used wrongly, and with what it asks for missing."""
    wrong = rasura(*path, "--no-such-option", "--json", cwd=tmp_path)
    assert (wrong.code, wrong.err) == (2, "")
    assert (wrong.envelope["error"]["code"], wrong.envelope["command"]) == ("usage", " ".join(path))
    assert "--no-such-option" in wrong.envelope["error"]["message"]
    if path in {("init",), ("methods",), ("probe",)}:  # need nothing
        return
    missing = rasura(*path, *ARGUMENTS.get(path, []), "--json", cwd=tmp_path)
    envelope = missing.envelope
    assert missing.code == (8 if path in ALONE else 1)
    assert envelope["error"]["code"] == ("not_found" if path in ALONE else "no_registry")
    assert (envelope["ok"], envelope["data"], envelope["changed"]) == (False, None, False)
    assert (envelope["command"], envelope["version"]) == (" ".join(path), __version__)
    assert envelope["error"]["hint"]
    assert missing.err == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_takes_the_common_options(path: tuple[str, ...], tmp_path: Path) -> None:
    text = rasura(*path, "--help", cwd=tmp_path).out
    assert "--json" in text
    assert "--registry" in text
    assert ("--reason" in text) == ("--actor" in text)


def test_a_whole_day(workshop: Workshop, tmp_path: Path) -> None:
    """Every command that succeeds says what it did, and whether it changed anything."""
    home = tmp_path / "home"
    home.mkdir()

    def run(*arguments: str | Path, changed: bool) -> Any:
        done = rasura(*arguments, "--json", cwd=home)
        data = done.data
        assert done.envelope["ok"] is True
        assert done.envelope["error"] is None
        assert done.envelope["changed"] is changed, arguments
        assert all(line.endswith("…") for line in done.err.splitlines()), done.err
        return data

    (home / "retain.txt").write_text("painting\ncat\na\nthe\n")
    model = shutil.copytree(workshop.model, home / "the model")
    assert run("init", changed=True)["location"] == str(home / ".rasura")
    key = run("key", "new", "alice", changed=True)
    assert Path(key["private_key"]).is_file()
    base = run("base", "add", model, "--name", "tiny", changed=True)
    assert run("base", "add", model, changed=False) == base
    assert run("base", "list", changed=False)["bases"]
    shown = run("base", "show", "tiny", changed=False)
    assert len(shown["parameters"]) == base["parameters"]
    erase = ["erase", "--base", "tiny", "--concept", "dog", "--anchor", "cat", "--retain", "retain.txt"]
    erase += ["--tokens", "last", "--rank-rule", "count:8", "--template", "{}", "--template", "a {}"]
    (made,) = run(*erase, changed=True)["patches"]
    (again,) = run(*erase, changed=False)["patches"]
    assert again == {**made, "new": False}
    patch = made["id"]
    short = patch[:6]
    (listed,) = run("patch", "list", changed=False)["patches"]
    assert (listed["id"], listed["concepts"], listed["anchor"]) == (patch, ["dog"], "cat")
    assert run("patch", "show", short, changed=False)["signer"] == "alice"
    assert run("patch", "verify", short, changed=False)["verified"] == [patch]
    assert run("patch", "check", short, changed=False)["accepted"] is True
    assert run("patch", "export", short, "-o", "out", changed=True)["folder"] == "out"
    again = {"id": patch, "new": False, "ignored": [], "signers": []}
    assert run("patch", "add", "out", changed=False) == {"patches": [again], "dry_run": False, **again}
    applied = run("patch", "apply", short, *MODEL, changed=True)
    assert (applied["applied"], applied["pristine"]) == ({patch: "1"}, False)
    status = run("patch", "status", *MODEL, "--deep", changed=False)
    assert (status["applied"], status["drifted"], status["interrupted"]) == ({patch: "1"}, [], None)
    reverted = run("patch", "revert", "--all", "--yes", *MODEL, changed=True)
    assert (reverted["after"], reverted["pristine"]) == (applied["before"], True)
    log = run("audit", "log", "-n", "3", changed=False)["entries"]
    assert [entry["action"] for entry in log] == ["patch.revert", "patch.revert", "patch.apply"]
    assert run("audit", "verify", changed=False)["size"] == log[0]["index"] + 1
    assert run("key", "revoke", key["key_id"][:9], "--yes", changed=True)["trusted"] is False
    assert run("key", "revoke", "alice", "--yes", changed=False)["revoked_at"]
    assert len(run("key", "list", changed=False)["keys"]) == 1


def test_why_and_who_are_in_the_log(workshop: Workshop) -> None:
    said = ("--reason", "takedown 118; “quoted” | =cmd", "--actor", "eve@example.org")
    assert rasura("patch", "apply", workshop.dog, *MODEL, *said, cwd=workshop.folder).code == 0
    assert rasura("patch", "apply", workshop.dog, *MODEL, "--strength", "2", *said, cwd=workshop.folder).code == 7
    entries = workshop.entries()[-3:]
    assert {(e.actor, e.reason) for e in entries} == {("eve@example.org", "takedown 118; “quoted” | =cmd")}
    variables = {"RASURA_ACTOR": "from the environment"}
    rasura("key", "new", "bob", cwd=workshop.folder, variables=variables)
    assert workshop.entries()[-1].actor == "from the environment"
    shown = rasura("audit", "log", "-n", "4", "--json", cwd=workshop.folder).data["entries"]
    assert [e["reason"] for e in shown] == ["", *[e.reason for e in entries]]


def test_where_the_registry_is(workshop: Workshop, tmp_path: Path) -> None:
    """The option, then the variable, then the nearest folder upwards."""
    other = tmp_path / "other"
    other.mkdir()
    assert rasura("init", cwd=other).code == 0
    deep = workshop.folder / "a" / "b"
    deep.mkdir(parents=True)

    def count(run: Run) -> int:
        return len(run.data["patches"])

    assert count(rasura("patch", "list", "--json", cwd=deep)) == 4
    assert count(rasura("patch", "list", "--json", "--registry", other, cwd=deep)) == 0
    variables = {"RASURA_REGISTRY": str(other)}
    assert count(rasura("patch", "list", "--json", cwd=deep, variables=variables)) == 0
    here = ("--registry", workshop.folder / ".rasura")
    assert count(rasura("patch", "list", "--json", *here, cwd=deep, variables=variables)) == 4
    assert rasura("init", "--registry", tmp_path / "new", cwd=deep).code == 0
    assert (tmp_path / "new" / ".rasura" / "registry.db").is_file()


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    script = "import os, sys; os.rmdir(os.getcwd()); sys.argv = ['rasura', 'patch', 'list', '--json']\n"
    process = start(["-c", script + "from rasura.cli import main\nmain()"], gone)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, json.loads(out)["error"]["code"], err) == (1, "no_registry", "")


@pytest.fixture
def broken() -> Iterator[str]:
    """A command with a defect."""

    def defect(registry_at: str | None) -> Result:
        raise ZeroDivisionError(f"an example in {registry_at}")

    front_door.cli.add_command(command(None, "broken")(defect))
    yield "broken"
    del front_door.cli.commands["broken"]


def test_a_defect_of_ours_is_an_envelope_too(broken: str, tmp_path: Path) -> None:
    """Machines get their answer, people the place where it happened."""
    run = rasura(broken, "--json", cwd=tmp_path)
    assert (run.code, run.envelope["error"]["code"], run.envelope["command"]) == (1, "internal", "broken")
    assert "ZeroDivisionError: an example" in run.envelope["error"]["message"]
    assert "Traceback" in run.err
    run = rasura(broken, "--registry", "x", cwd=tmp_path)
    assert run.out == ""
    assert run.err.splitlines()[-2] == "error: ZeroDivisionError: an example in x"
    assert "report" in run.err.splitlines()[-1]


def test_people_read_errors_on_stderr(workshop: Workshop) -> None:
    run = rasura("patch", "show", "ffff", cwd=workshop.folder)
    assert (run.code, run.out) == (8, "")
    assert run.err == "error: patch: expected one that begins with ffff, got none\nhint: rasura patch list\n"
    run = rasura("patch", "show", cwd=workshop.folder)
    assert (run.code, run.out) == (2, "")
    assert "Missing argument" in run.err


@pytest.mark.parametrize("words", [("probe",), ("base", "add"), ("patch", "status", "--model")])
def test_a_part_of_a_model_is_answered_with_the_command_for_the_whole(
    workshop: Workshop, words: tuple[str, ...]
) -> None:
    """Whether the model is an option of the command or its argument."""
    model = workshop.folder / MODEL[1]
    part = next((model / "unet").glob("*.safetensors"))
    run = rasura(*words, part, "--json", cwd=workshop.folder)
    assert (run.code, run.envelope["error"]["code"]) == (1, "unsupported_host")
    assert run.envelope["error"]["hint"] == shlex.join(["rasura", *words, str(model.resolve())])


def test_json_after_the_end_of_options_is_an_argument(workshop: Workshop) -> None:
    run = rasura("patch", "show", "--", "--json", cwd=workshop.folder)
    assert (run.code, run.out) == (8, "")


# --- keys and the Hub -----------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Use 'content=<...>'.*:DeprecationWarning")
def test_two_people_and_a_hub(workshop: Workshop, plain_hub: HubServer, tmp_path: Path) -> None:
    """export, trust, push, pull, apply; and what happens before the trust, and after it is taken back."""
    theirs = tmp_path / "theirs"
    model = shutil.copytree(workshop.model, theirs / "the model")
    hub = {"HF_ENDPOINT": plain_hub.url, "HF_TOKEN": TOKEN}

    def here(*arguments: str | Path) -> Run:
        return rasura(*arguments, "--json", cwd=workshop.folder, variables=hub)

    def there(*arguments: str | Path) -> Run:
        return rasura(*arguments, "--json", cwd=theirs, variables=hub)

    pushed = here("push", workshop.dog[:8], workshop.photo[:8], workshop.dog[:10], "acme/erasures").data
    assert set(pushed["paths"]) == {workshop.dog, workshop.photo}
    assert here("push", workshop.dog, "acme/erasures").envelope["changed"] is False
    there("init")
    refused = there("pull", "acme/erasures")
    assert (refused.code, refused.envelope["error"]["code"]) == (4, "untrusted_key")
    assert refused.envelope["error"]["hint"] == "rasura key trust FILE"
    here("key", "export", "alice", "-o", tmp_path / "alice.pub")
    assert here("key", "export", "alice", "-o", tmp_path / "alice.pub").envelope["error"]["code"] == "exists"
    assert there("key", "trust", tmp_path / "alice.pub").data["name"] == "alice"
    pulled = there("pull", f"acme/erasures@{pushed['commit']}").data
    assert {p["id"]: p["new"] for p in pulled["patches"]} == {workshop.dog: True, workshop.photo: True}
    no_base = there("patch", "apply", workshop.dog[:8], "--model", model)
    assert (no_base.code, no_base.envelope["error"]["hint"]) == (8, f"rasura base add '{model}'")
    assert there("base", "add", model).code == 0
    after = there("patch", "apply", workshop.photo, workshop.dog, "--model", model).data["after"]
    assert here("patch", "apply", workshop.dog, workshop.photo, *MODEL).data["after"] == after
    assert there("key", "revoke", "alice", "--yes").code == 0
    assert there("pull", "acme/erasures").envelope["error"]["code"] == "revoked_key"
    assert there("audit", "verify").code == here("audit", "verify").code == 0
    assert there("pull", "not a repo").envelope["error"]["code"] == "input"
    assert there("pull", "acme/nothing").envelope["error"]["code"] == "not_found"
    assert TOKEN not in (theirs / ".rasura" / "registry.db").read_bytes().decode("latin-1")


# --- real processes -------------------------------------------------------------------------------------------------


def test_ctrl_c_leaves_the_model_whole(workshop: Workshop) -> None:
    """Interrupted as soon as the first file appears beside the weights."""
    before = workshop.digests()
    typed = ["-m", "rasura", "patch", "apply", workshop.dog, *MODEL, "--json"]
    process = start(typed, workshop.folder)
    while process.poll() is None and not (workshop.model / ".rasura-host").exists():
        time.sleep(0.0005)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert process.returncode in {0, 130}, err
    if process.returncode == 130:
        assert json.loads(out)["error"]["code"] == "interrupted"
    assert "Traceback" not in err
    rasura("patch", "revert", "--all", "--yes", *MODEL, cwd=workshop.folder)  # settles; there may be nothing to revert
    assert workshop.digests() == before
    assert rasura("audit", "verify", cwd=workshop.folder).code == 0


def test_ctrl_c_ends_with_130(workshop: Workshop) -> None:
    """At a moment that is certain: the model is written, and nobody has written that down."""
    script = (
        "import signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background job inherits it ignored
        "from rasura.registry.registry import Registry\n"
        "Registry.set_host = lambda *_: signal.raise_signal(signal.SIGINT)\n"
        "sys.argv = ['rasura', *sys.argv[1:]]\n"
        "from rasura.cli import main\nmain()\n"
    )
    process = start(["-c", script, "patch", "apply", workshop.dog, *MODEL, "--json"], workshop.folder)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    envelope = json.loads(out)
    assert (envelope["command"], envelope["error"]["code"]) == ("patch apply", "interrupted")
    said = "interrupted: the model was written: the next motion puts an end to entry "
    assert envelope["error"]["message"].startswith(said)
    assert "Traceback" not in err
    status = rasura("patch", "status", *MODEL, "--json", cwd=workshop.folder)
    assert (set(status.data["applied"]), status.data["drifted"]) == ({workshop.dog}, [])
    assert status.data["interrupted"] is not None
    assert "was interrupted" in rasura("patch", "status", *MODEL, cwd=workshop.folder).out
    assert rasura("patch", "revert", "--all", "--yes", *MODEL, cwd=workshop.folder).code == 0
    assert rasura("audit", "verify", cwd=workshop.folder).code == 0


@pytest.mark.parametrize(
    "arguments", [["patch", "list"], ["audit", "log"], ["--help"], ["patch", "show", "ffff", "--json"]]
)
def test_a_reader_that_went_away(workshop: Workshop, arguments: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    process = subprocess.run(
        [sys.executable, "-m", "rasura", *arguments],
        cwd=workshop.folder,
        stdout=write,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    os.close(write)
    assert process.stderr == b""
    assert process.returncode == 1


def test_a_terminal_that_knows_ascii_only(workshop: Workshop) -> None:
    for arguments in (["patch", "status", *MODEL, "--json"], ["patch", "show", "猫"], ["audit", "verify"]):
        process = start(["-m", "rasura", *arguments], workshop.folder, PYTHONIOENCODING="ascii")
        out, err = process.communicate(timeout=60)
        assert process.returncode in {0, 8}, err
        assert "Traceback" not in err
        if "--json" in arguments:
            assert json.loads(out)["data"]["location"] == str(workshop.model)


def completed(words: str, folder: Path) -> tuple[set[str], set[str]]:
    """What a shell is offered after these words, and the modules that were imported for it."""
    script = (
        "import sys\nsys.argv = ['rasura']\n"
        "try:\n    from rasura.cli import main\n    main()\n"
        "finally:\n    print(*sorted({m.split('.')[0] for m in sys.modules}), file=sys.stderr)\n"
    )
    count = len(words.split()) - (not words.endswith(" "))
    variables = {"_RASURA_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(count)}
    out, err = start(["-c", script], folder, **variables).communicate(timeout=60)
    return {line.partition(",")[2] for line in out.splitlines() if line}, set(err.split())


def test_completion_knows_what_is_in_the_registry(workshop: Workshop) -> None:
    rasura("stack", "create", "brand", cwd=workshop.folder)
    rival, dog = workshop.rival[:12], workshop.dog[:12]
    found, modules = completed("rasura patch show d", workshop.folder)
    assert "dog" in found
    assert modules & {"torch", "sqlalchemy", "numpy", "cryptography"} == set()
    assert completed(f"rasura patch apply {dog} {rival[:6]}", workshop.folder)[0] == {rival}
    assert completed("rasura patch switch ", workshop.folder)[0] >= {"brand"}
    for words, name in (
        ("rasura stack show b", "brand"),
        ("rasura erase --base t", "tiny"),
        ("rasura erase --key a", "alice"),
        ("rasura key revoke a", "alice"),
        (f"rasura patch revert {dog[:5]}", dog),
    ):
        begun = time.perf_counter()
        found, modules = completed(words, workshop.folder)
        print(f"{words}: {time.perf_counter() - begun:.2f} s")  # noqa: T201  # for whoever looks; machines differ
        assert name in found
        assert modules & {"torch", "diffusers", "transformers", "sqlalchemy", "numpy", "cryptography"} == set()


def test_completion_knows_commands_and_imports_nothing_heavy(tmp_path: Path) -> None:
    found, modules = completed("rasura p", tmp_path)
    assert found == {"patch", "plan", "policy", "probe", "push", "pull"}
    assert modules & {"torch", "sqlalchemy", "numpy", "huggingface_hub", "cryptography"} == set()
    found, modules = completed("rasura patch re", tmp_path)
    assert found == {"rebase", "retarget", "retire", "revert"}
    assert modules & {"torch", "sqlalchemy", "numpy"} == set()
    assert completed("rasura patch show d", tmp_path)[0] == set()
    process = start(["-m", "rasura"], tmp_path, _RASURA_COMPLETE="bash_source")
    out, _ = process.communicate(timeout=60)
    assert "_rasura_completion" in out
