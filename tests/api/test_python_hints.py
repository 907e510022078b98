"""Errors that Python sees name calls: every hint in the sources is translated, and every command has its call."""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

import rasura
from rasura import cli
from rasura.api.command_calls import CALLS, LIVE_CALLS, Call
from rasura.api.hints import live_hint, python_hint
from rasura.api.registry import Registry
from rasura.patches.errors import NoRegistryError, NotFoundError
from rasura.registry.live.live_model import LiveModel

ROOT = Path(rasura.__file__).parent
WORDS = "|".join(cli._COMMANDS)
COMMAND = re.compile(rf"(?<![\w./-])rasura (?:{WORDS})\b")
MARK = "<!--"  # of the model card's section; a file's format, no hint
# What only the command line does: a show, and a table of two values that Python has (`stack`, `status`).
ONLY_TYPED = {"demo", "stack diff"}
# Options of commands that Python writes otherwise: files and views of what a call gives as a value, and shorthands.
WRITTEN_OTHERWISE = {
    "--json", "--registry", "--reason", "--actor", "--actor-key", "--output", "-o", "--exit-code", "--detailed-exitcode",
    "--templates", "--seed", "--yes", "-y", "--password-file",  # which `rasura.open` takes
    "--layers of patch check", "--angles", "--all", "--plot", "--check",
    "--format", "--each", "--stack of patch export", "--strength of patch export",
    "--in-force of patch list", "--superseded of patch list", "--current of patch list", "--retired of patch list",
    "--method of patch list", "--model of log", "--stack of log", "--patch of log",
    "--no-evaluations", "--evaluations of bundle add", "--lock of bundle add",
    "--upgrade", "--oldest", "--attestation", "-n", "--limit", "--parameters",
    "--keep-pictures", "--out of evaluate", "--steps", "--guidance", "--batch",
    "--model of verify",  # which is `verify_model`
    "--evaluation of attest",  # which is `attest_evaluation`
    "--concept of verify",  # `verify_receipt(…).receipt`
    "--case",  # `with registry.of_case(ID)`
    "--pdf",  # the page is what a call gives
    "--dry-run of init", "--dry-run of key new", "--dry-run of evaluate", "--dry-run of audit rotate-key",
    "--dry-run of case forget",
    *(f"--dry-run of patch bisect {verb}" for verb in ("start", "good", "bad", "skip", "reset")),
    "--also-called", "--names of erase",  # `Target(names=…)`
    "--certify", "--also of patch show", "--ball of patch show",  # which is `certify`
    "--before of patch list",
    "--attack", "--attack-steps", "--attack-tokens", "--attack-tries",
}  # fmt: skip


def texts(tree: ast.AST) -> Iterator[str]:
    """Every text of a module that is no docstring; what is filled in at run time reads X."""
    inside = {id(part) for n in ast.walk(tree) if isinstance(n, ast.JoinedStr) for part in ast.walk(n) if part is not n}
    bare = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}
    for node in ast.walk(tree):
        if id(node) in inside | bare:
            continue
        if isinstance(node, ast.Constant | ast.JoinedStr):
            yield text_of(node)


def text_of(node: ast.AST) -> str:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) for part in node.values)
    return "X"


def hints() -> list[str]:
    """Every text in the sources that names a command, and whatever is given as a hint."""
    found = set()
    for room in ("patches", "registry", "evaluation"):
        for path in (ROOT / room).rglob("*.py"):
            tree = ast.parse(path.read_text())
            found |= {text for text in texts(tree) if COMMAND.search(text) and not text.startswith(MARK)}
            given = (n.value for n in ast.walk(tree) if isinstance(n, ast.keyword) and n.arg == "hint")
            found |= {text_of(value) for value in given}
    return sorted(found)


def calls(text: str) -> Iterator[ast.Call]:
    """The calls of `registry`, `model` and `rasura` in a sentence."""
    for start in re.finditer(r"(?<![\w.])(?:registry|rasura|model)\.\w+\(", text):
        for end in range(start.end(), len(text) + 1):
            try:
                tree = ast.parse(text[start.start() : end], mode="eval")
            except SyntaxError:
                continue
            yield from (n for n in ast.walk(tree) if isinstance(n, ast.Call))
            break
        else:
            pytest.fail(f"no whole call: {text}")


def target(name: str) -> Any:
    """What a call's name means."""
    receiver, _, method = name.partition(".")
    owner = {"registry": Registry, "model": LiveModel}.get(receiver, rasura)
    return getattr(owner, method.partition("(")[0])


def check_call(call: ast.Call) -> None:
    name = ast.unparse(call.func)
    if name.startswith("rasura.open("):
        name = "registry." + name.rpartition(".")[2]
    if name in {"rasura.attach", "model.to"}:  # shown with what is meant; torch's own
        return
    signature = inspect.signature(target(name))
    unknown = {keyword.arg for keyword in call.keywords} - set(signature.parameters)
    assert not unknown, f"{name} takes no {unknown}"


@pytest.mark.parametrize("hint", hints())
def test_no_hint_says_a_command_where_a_call_exists(hint: str) -> None:
    said = python_hint(hint)
    left = [words for words in COMMAND.findall(said) if not words.endswith(" demo")]
    assert left == [], said
    assert not re.match(r"--[a-z]", said), said
    for call in calls(said):
        check_call(call)
    assert python_hint(said) == said


@pytest.mark.parametrize("hint", hints())
def test_whoever_holds_a_live_model_reads_calls_of_it(hint: str) -> None:
    said = live_hint(hint)
    assert not re.search(r"registry\.(apply|revert|switch|status|plan)\(", said), said
    for call in calls(said):
        check_call(call)
    assert live_hint(said) == said


@pytest.mark.parametrize(
    ("hint", "said"),
    [
        ("rasura patch apply c075 --model served --strength 0.5", "model.apply(ids=['c075'], strength='0.5')"),
        ("rasura patch revert --all --force --model 'a b'", "model.revert(force=True)"),
        ("rasura patch switch STACK --model MODEL", "model.switch(goal='STACK')"),
        ("rasura plan brand --model m -o FILE", "model.plan(goal='brand')"),
        (
            "rasura patch list, or rasura patch status --model m --deep",
            "registry.patches(), or model.status(deep=True)",
        ),
    ],
)
def test_live_hints_are_translated_like_this(hint: str, said: str) -> None:
    assert live_hint(hint) == said


def test_live_calls_take_what_their_table_says() -> None:
    for call in (call for name, call in LIVE_CALLS.items() if CALLS[name] != call):
        assert {place.lstrip("*") for place in call.places} <= set(inspect.signature(target(call.name)).parameters)
    assert sum(CALLS[name] != call for name, call in LIVE_CALLS.items()) == 5


def test_the_scan_sees_hints_of_every_room() -> None:
    found = hints()
    assert len(found) > 150
    assert {"rasura init", "rasura key list", "rasura patch list"} <= set(found)
    assert any("rasura evaluate" in hint for hint in found)


@pytest.mark.parametrize(
    ("hint", "said"),
    [
        (
            "rasura patch apply c075 --model 'my model' --strength 0.5",
            "registry.apply(ids=['c075'], model='my model', strength='0.5')",
        ),
        ("rasura patch revert --all --force --model m", "registry.revert(force=True, model='m')"),
        (
            "rasura erase --base MODEL --concept 'a (b), or c' --retain FILE --rank-rule relative:1e-3",
            (
                "registry.erase(base='MODEL', request=rasura.request(targets=['a (b), or c'], retain='FILE', "
                "rank_rule='relative:1e-3'))"
            ),
        ),
        (
            "rasura stack add brand c075=1 --replace",
            "registry.add_to_stack(name='brand', patches=['c075=1'], replace=True)",
        ),
        ("rasura push   (again)", "registry.push()   (again)"),
        ("rasura doctor --registry THAT", "rasura.open('THAT').doctor()"),
        ("rm -r X, or rasura demo --out DIR", "rm -r X, or rasura demo --out DIR"),
        ("write a copy instead: --out X", "write a copy instead: out='X'"),
        ("--set lr=0.05 (a shorter step)", "settings={'lr': '0.05'} (a shorter step)"),
        ("pip install --upgrade rasura", "pip install --upgrade rasura"),
        ("", ""),
    ],
)
def test_hints_are_translated_like_this(hint: str, said: str) -> None:
    assert python_hint(hint) == said


def test_a_text_that_no_shell_reads_is_still_a_call() -> None:
    assert python_hint("rasura patch show a\\") == "registry.patch().manifest"


def commands(group: click.Group, path: str = "") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, f"{path}{name} ")
        else:
            yield f"{path}{name}", command


assert isinstance(cli.cli, click.Group)
COMMANDS = dict(commands(cli.cli))


def test_every_command_has_a_call() -> None:
    assert {name for name in COMMANDS if name not in CALLS} == ONLY_TYPED
    assert set(CALLS) - set(COMMANDS) == {"init --upgrade", "verify --model", "attest --evaluation"}


def parameters(call: Call) -> set[str]:
    found = set(inspect.signature(target(call.name)).parameters)
    return found | (set(inspect.signature(target(call.inner)).parameters) if call.inner else set())


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - ONLY_TYPED))
def test_every_argument_of_a_command_has_its_place_in_the_call(name: str) -> None:
    call, command = CALLS[name], COMMANDS[name]
    known = parameters(call)
    missing = [place for place in call.places if place.lstrip("*") not in known]
    for option in (p for p in command.params if isinstance(p, click.Option)):
        for spelling in option.opts:
            if spelling in WRITTEN_OTHERWISE or f"{spelling} of {name}" in WRITTEN_OTHERWISE:
                continue
            place = call.renamed.get(spelling, spelling.lstrip("-").replace("-", "_").replace("license", "licence"))
            missing += [] if place in known else [spelling]
    assert missing == []


def test_every_public_call_is_translated_at_the_edge() -> None:
    methods = {n: m for n, m in inspect.getmembers(Registry, inspect.isfunction) if not n.startswith("_")}
    assert [name for name, method in methods.items() if not hasattr(method, "__wrapped__") and name != "close"] == []
    assert len(methods) > 40
    for name in ("init", "open", "upgrade", "methods", "options", "probe", "request", "verify_file", "verify_model"):
        assert hasattr(getattr(rasura, name), "__wrapped__"), name


def test_errors_name_calls(tmp_path: Path) -> None:
    with pytest.raises(NoRegistryError) as none:
        rasura.open(tmp_path)
    assert none.value.hint == "rasura.init()"
    with rasura.init(tmp_path, actor="alice") as registry:
        with pytest.raises(NotFoundError) as unknown:
            registry.patch("0" * 12)
        assert unknown.value.hint == "registry.patches()"
