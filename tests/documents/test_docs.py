"""The documentation against the program: sessions are run, fields and limits compared, examples built, links followed."""

import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support.full import FULL

from rasura.patches._io import canonical_json
from rasura.patches._io.json_fields import MAX_TEXT, JsonValue
from rasura.patches._io.safetensors_file import PATCH_LIMITS
from rasura.patches.algebra import increment, strength
from rasura.patches.erasers.closed_form.null_space import NullSpace
from rasura.patches.erasers.options import encode_options
from rasura.patches.format.manifest import FORMATS, MANIFEST_LIMIT, Manifest
from rasura.patches.format.manifest_fields import MAX_LIST
from rasura.patches.format.manifest_parts import MAX_TENSORS
from rasura.patches.format.patch import CONTENT, MANIFEST, SIGNATURE, Patch
from rasura.patches.format.signatures import intoto_statement
from rasura.patches.format.signatures.model_signature import MAX_BUNDLE_BYTES
from rasura.patches.format.trace_spec import TracedSpec, TraceSpec
from rasura.patches.solving.measure import Measured
from rasura.patches.types import ParamName
from rasura.registry.log.entries import entry_changes, entry_parts
from rasura.registry.log.notes import signed_note

ROOT = Path(__file__).parents[2]
FORMAT_PAGE = ROOT / "docs" / "patch-format.md"
LOG_PAGE = ROOT / "docs" / "audit-log.md"
MODEL = ROOT / "examples" / "reference_model" / "pipeline"
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md"), *ROOT.glob("examples/**/*.md")]
)
SESSIONS = [str(page.relative_to(ROOT)) for page in PAGES if "```console\n$ " in page.read_text()]


def _tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"docs_{name}", ROOT / "docs" / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def _full() -> Patch:
    """The page's example, in which every optional part is there."""
    patch = _tool("example").example()
    assert isinstance(patch, Patch)
    return patch


def _third() -> dict[str, Any]:
    """The same manifest in version 3, with its two more fields, and with what may be missing."""
    manifest = _full().manifest
    reads = {parameter.name: "image" for parameter in manifest.base.parameters}
    retain = manifest.protected.retain
    assert retain is not None
    spaces = dict.fromkeys(reads, "text_encoder_4.layers.5")
    protected = replace(manifest.protected, reads=reads, spaces=spaces, retain=replace(retain, cut=1))
    first = manifest.base.parameters[0]
    through = (replace(first, name=ParamName(f"{first.name}.before")),)
    layer = TracedSpec(first.name.removesuffix(".weight"), "projected", "encoder_hidden_states", (first.name,))
    trace = TraceSpec("Transformer", first.sha256, first.sha256, (layer,))
    base = replace(manifest.base, through=through, trace=trace, read_as="BF16")
    data = replace(manifest, base=base, protected=protected).to_bytes()
    found = json.loads(data)
    assert isinstance(found, dict)
    return found


def _paths(value: JsonValue, path: str = "") -> Iterator[str]:
    """`a.b[].c` for every leaf; names that are data become `*`."""
    if isinstance(value, Mapping):
        free = path in {"eraser.options", "protected.basis.spectrum", "protected.reads", "protected.spaces", "measured"}
        for name, child in value.items():
            yield from _paths(child, f"{path}.{'*' if free else name}".lstrip("."))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        yield f"{path}[]"
        for child in value:
            yield from _paths(child, f"{path}[]")
    else:
        yield path


def _documented(page: str) -> set[str]:
    section = page[page.index("## 3. ") : page.index("## 4. ")]
    return set(re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE))


def test_every_field_of_a_manifest_is_documented_and_no_other() -> None:
    value = _third()
    real = {p for p in _paths(value) if not p.endswith("[][]")}
    documented = _documented(FORMAT_PAGE.read_text())
    # An object or a list of objects has a line of its own where its size or absence is told.
    containers = {"protected.retain"}
    assert real - documented == set()
    assert documented - real == containers


def test_each_documented_field_is_demanded() -> None:
    """What the page lists and the parser does not read would show here: every object refuses to lose a field."""
    data = _third()
    for path in sorted(_documented(FORMAT_PAGE.read_text())):
        if "*" in path or path.endswith("[]") or path in {"protected.retain.cut", "base.read_as"}:  # may be missing
            continue
        *outer, last = path.split(".")
        mutated = json.loads(json.dumps(data))
        holder = mutated
        for step in outer:
            holder = holder[step.removesuffix("[]")]
            holder = holder[0] if step.endswith("[]") else holder
        del holder[last]
        with pytest.raises(Exception, match=re.escape(f"'{last}'")):
            Manifest.from_bytes(canonical_json.dumps(mutated))


def test_every_measured_name_is_documented() -> None:
    fields = dict.fromkeys(
        ("residual", "effect", "null", "retained", "held_out", "base_targets", "base_protected"), 1.0
    )
    measured = Measured(**fields, rank=1, protected=1, width=1)
    page = FORMAT_PAGE.read_text()
    section = page[page.index("## 4. ") : page.index("## 5. ")]
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == set(measured.decimals(free=0.5, guarded=0))


def test_every_option_of_the_eraser_is_documented() -> None:
    page = FORMAT_PAGE.read_text()
    section = page[page.index("## 4. ") : page.index("## 5. ")]
    for name in ("layers", *encode_options(NullSpace())):
        assert f"`{name}`" in section


@pytest.mark.parametrize(
    ("section", "number"),
    [
        (1, MANIFEST_LIMIT),
        (1, PATCH_LIMITS.file_bytes),
        (1, MAX_BUNDLE_BYTES),
        (2, MAX_TEXT),
        (2, canonical_json.MAX_DEPTH),
        (3, MAX_LIST),
        (3, MAX_TENSORS),
        (6, PATCH_LIMITS.header_bytes),
        (6, PATCH_LIMITS.tensors),
        (7, intoto_statement.MAX_FILES),
        (7, intoto_statement.MAX_PAYLOAD_BYTES),
    ],
)
def test_the_limits_of_the_format_page_are_those_of_the_reader(section: int, number: int) -> None:
    page = FORMAT_PAGE.read_text()
    text = page[page.index(f"## {section}. ") : page.index(f"## {section + 1}. ")]
    assert re.search(rf"\b{number}\b", text)


def test_the_grids_of_the_format_page_are_those_of_the_arithmetic() -> None:
    page = FORMAT_PAGE.read_text()
    assert (increment.DETECTOR_STEP, "multiple of 2⁻²²" in page) == (2.0**-22, True)
    assert (increment.RESPONSE_STEP, "multiple of 2⁻¹⁸" in page) == (2.0**-18, True)
    assert (increment.RESPONSE_LIMIT, "less than 64" in page) == (64.0, True)
    assert (increment.SUM_LIMIT, "refuse 2⁸ or more" in page) == (256.0, True)
    assert (strength.SIXTEENTHS, strength.STRENGTH_LIMIT, "multiple of 2⁻⁴ in [−4, 4]" in page) == (16, 4, True)


def test_the_files_of_the_format_page_are_those_of_a_patch() -> None:
    page = FORMAT_PAGE.read_text()
    section = page[page.index("## 1. ") : page.index("## 2. ")]
    assert set(re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)) == {*CONTENT, SIGNATURE}
    assert all(f"`{name}`" in page for name in FORMATS)


def test_the_example_of_the_format_page_is_a_patch() -> None:
    """Read from the page alone: the bytes parse, belong together, and have the identity that the page names."""
    page = FORMAT_PAGE.read_text()
    page = page[page.index("## 10. ") :]
    shown = re.search(r"```json\n(.*?)```", page, re.DOTALL)
    assert shown is not None
    files = {MANIFEST: canonical_json.dumps(json.loads(shown[1]))}
    for name, dump in re.findall(r"`([a-z_]+\.safetensors)`, \d+ bytes:\n\n```text\n([0-9a-f\n]+)```", page):
        files[name] = bytes.fromhex(dump.replace("\n", ""))
    patch = Patch.from_files(files)
    assert f"`{patch.patch_id}`" in page
    assert patch.patch_id == hashlib.sha256(files[MANIFEST]).hexdigest()
    assert patch.files() == _full().files()


def test_the_example_of_the_format_page_would_be_refused_if_one_digit_were_wrong() -> None:
    files = _full().files()
    damaged = bytearray(files["targets.safetensors"])
    damaged[-2] ^= 0x10
    with pytest.raises(Exception, match="targets"):
        Patch.from_files({**files, "targets.safetensors": bytes(damaged)})


def test_every_field_of_an_audit_entry_is_documented() -> None:
    page = LOG_PAGE.read_text()
    source = (ROOT / "registry" / "log" / "entries" / "entry.py").read_text()
    docstring = source[: source.index('"""', 3)]
    for name in sorted(set(re.findall(r'"([a-z_]+)":', docstring)) - {"layers"}):  # an example of a detail
        assert f"`{name}`" in page, name
    for outcome in entry_parts.OUTCOMES:
        assert f"`{outcome}`" in page
    for number in (
        entry_parts.MAX_ENTRY_BYTES,
        entry_parts.MAX_LISTED,
        signed_note.MAX_NOTE_BYTES,
        signed_note.MAX_SIGNATURES,
    ):
        assert re.search(rf"\b{number}\b", page), number


def _rows(page: str, header: str) -> list[list[str]]:
    """The cells of the table under this header."""
    lines = page[page.index(header) :].split("\n\n", 1)[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_kind_of_record_in_the_log_is_documented_and_no_other() -> None:
    told = {(kind.strip("`"), key.strip("`")) for kind, _, key in _rows(LOG_PAGE.read_text(), "| Kind | Record |")}
    assert told == set(entry_changes._KINDS.values())


def test_every_action_of_the_log_is_documented_and_no_other() -> None:
    """Any noun.verb that the sources hold as a text of its own, of the nouns that the page tells of."""
    rows = _rows(LOG_PAGE.read_text(), "| Noun | Actions |")
    told = {action for _, actions in rows for action in re.findall(r"`([a-z.]+)`", actions)}
    nouns = "|".join(noun for noun, _ in rows)
    sources = [path for folder in ("commands", "evaluation", "registry") for path in (ROOT / folder).rglob("*.py")]
    texts = [path.read_text() for path in sources if path.name != "tables.py"]  # whose foreign keys look alike
    found = {m for text in texts for m in re.findall(rf'"((?:{nouns})\.[a-z]+)"', text)}
    assert found - {"registry.db", "log.pem", "log.lock", "case.jsonl"} == told


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), target
        if anchor:
            assert anchor in {_slug(title) for title in re.findall(r"^#+ (.+)$", found.read_text(), re.MULTILINE)}, (
                target
            )


def _slug(title: str) -> str:
    kept = re.sub(r"[^\w\s-]", "", title.lower())
    return re.sub(r"\s", "-", kept.strip())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_page_promises_what_nobody_can(page: Path) -> None:
    """Suppression is measured, never deletion; and nothing here makes anybody compliant."""
    text = page.read_text().lower()
    assert re.findall(r"\b(?:gdpr|ai act)[ -]compliant\b|\bguarantees? (?:deletion|compliance)\b", text) == []


@pytest.fixture(scope="session")
def warm() -> Iterator[Path]:
    """A folder whose `rasura` has its imports behind it."""
    prefix = "rasura-warm-"  # a socket's path is short
    with (
        tempfile.TemporaryDirectory(prefix=prefix) as folder,
        _tool("warm").start(Path(folder), _tool("session").environment()) as programs,
    ):
        yield programs


# One warm process for all of them, and what one page encodes is there for the next.
_ONE_AFTER_THE_OTHER = pytest.mark.xdist_group("sessions")


@pytest.mark.slow
@_ONE_AFTER_THE_OTHER
@pytest.mark.skipif(not FULL, reason="minutes: FULL=1 does it, and the next test with commands that are warm")
def test_the_sessions_of_the_readme_tell_the_truth_cold() -> None:
    """As a reader runs them: each command in a process that starts cold, and nothing that anybody computed before."""
    _check_page("README.md", [], dict(os.environ))


@pytest.mark.slow
@_ONE_AFTER_THE_OTHER
@pytest.mark.parametrize("page", SESSIONS)
def test_the_sessions_of_a_page_tell_the_truth(page: str, warm: Path, cache_of_the_run: Path) -> None:
    """Each command in a process of its own; what encoding the same lists gives is known from the pages before."""
    _check_page(page, ["--rasura", str(warm)], {**os.environ, "RASURA_CACHE": str(cache_of_the_run)})


def _check_page(page: str, options: list[str], environment: Mapping[str, str]) -> None:
    if not MODEL.exists():
        pytest.skip("needs examples/reference_model/pipeline, which the source distribution leaves out")
    command = [sys.executable, "docs/tools/session.py", page, "--check", *options]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_readme_has_a_session() -> None:
    assert "README.md" in SESSIONS


_WARM_AND_COLD = (
    ["--version"],
    ["init"],
    ["patch", "show", "nothing"],
    ["key", "list", "--json", "--registry", "elsewhere"],
    ["erase"],
    ["methods", "--json"],
)


@pytest.mark.slow
@_ONE_AFTER_THE_OTHER
def test_a_warm_command_is_the_cold_one(warm: Path, tmp_path: Path) -> None:
    """Streams, exit codes, working folder and environment; and nothing is left of the command before."""
    (tmp_path / "elsewhere").mkdir()
    for kind in ("warm", "cold"):
        (tmp_path / kind).mkdir()
    for arguments in (*_WARM_AND_COLD, ["init"]):  # the second finds the first's registry
        found = []
        for kind, programs in (("warm", warm), ("cold", Path(sys.executable).parent)):
            environment = {**_tool("session").environment(programs), "COLUMNS": "60"}
            done = subprocess.run(
                [programs / "rasura", *arguments],
                cwd=tmp_path / kind,
                env=environment,
                input="",
                capture_output=True,
                text=True,
                check=False,
            )
            here = str((tmp_path / kind).resolve())
            found.append((done.returncode, done.stdout.replace(here, "."), done.stderr.replace(here, ".")))
        assert found[0] == found[1], arguments


@_ONE_AFTER_THE_OTHER
def test_a_warm_command_runs_where_nobody_imported_anything(warm: Path, tmp_path: Path) -> None:
    """A child of the warm process, once; and by itself, where what is read at the imports differs."""
    probe = [str(warm / "rasura"), "--version"]
    environment = _tool("session").environment(warm)
    trace = {**environment, "PYTHONPROFILEIMPORTTIME": "1"}  # which an interpreter reads when it starts
    quiet = subprocess.run(probe, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
    loud = subprocess.run(probe, env=trace, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert (quiet.stdout, quiet.stderr) == (loud.stdout, "")
    assert "import time:" in loud.stderr
    assert "rasura.cli" in loud.stderr


def test_a_session_that_lies_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```console\n$ echo one 123456789abc\ntwo 123456789abc\n```\n")
    command = [sys.executable, "docs/tools/session.py", str(page), "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, "-two <id>" in done.stderr, "+one <id>" in done.stderr) == (1, True, True)


def test_a_session_is_rewritten_with_true_output_and_ids(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    told = "```console\n$ echo new 0123456789ab\nnew ffffffffffff\n$ echo has \\\n    ffffffffffff\n?\n$ false  # exit 1\n```\n"
    page.write_text(f"before\n\n{told}after\n")
    command = [sys.executable, "docs/tools/session.py", str(page)]
    subprocess.run(command, cwd=ROOT, check=True)
    true = told.replace("ffffffffffff", "0123456789ab").replace("?\n", "has 0123456789ab\n")
    assert page.read_text() == f"before\n\n{true}after\n"


def test_a_command_that_should_fail_and_does_not_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```console\n$ true  # exit 3\n```\n")
    command = [sys.executable, "docs/tools/session.py", str(page), "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, "expected exit 3, got 0" in done.stderr) == (1, True)
