# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""`rasura evaluate` on a tiny model: what it draws, records and writes, and what it refuses."""

import csv
import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.commandline import rasura
from support.judges import tiny_classifier, tiny_clip, tiny_onnx
from support.models.tiny import TinySpec, tiny_model
from support.registries.workshop import ALICE, SPEC, Workshop, workshop

from rasura.evaluation.attacks.budget import KINDS
from rasura.registry.apply import operations

ROWS: tuple[dict[str, Any], ...] = (
    {"prompt": "a dog", "group": "forget", "object": "dog"},
    {"prompt": "the dog", "group": "forget", "object": "dog", "kind": "template", "seed": 3},
    {"prompt": "a cat", "group": "retain", "object": "cat"},
    {"prompt": "a photo of a cat", "group": "retain", "object": "cat", "kind": "template"},
    {"prompt": "a cat, van gogh", "group": "held_out", "object": "cat"},
)
QUICK = ("--steps", "2", "--attack-steps", "2", "--attack-tries", "2", "--attack-tokens", "1")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_clip(tmp_path_factory.mktemp("clip") / "tiny-clip")


def prompts(shop: Workshop, rows: Sequence[dict[str, Any]] = ROWS) -> str:
    (shop.folder / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return "prompts.jsonl"


def evaluate(shop: Workshop, clip: Path, *more: str) -> list[str]:
    given = ["evaluate", "--base", "the model", "--prompts", prompts(shop), "--judge", f"clip:{clip}", *QUICK]
    return [*given, "--patch", shop.dog, *more]


def test_an_evaluation_is_drawn_once_and_recorded(workshop: Workshop, clip: Path) -> None:
    model = workshop.digests()
    line = evaluate(workshop, clip, "--out", "out", "--keep-pictures", "--json")
    run = rasura(*line, "--reason", "ticket 9", cwd=workshop.folder)
    data, out = run.data, workshop.folder / "out"
    assert (run.envelope["changed"], data["new"]) == (True, True)
    assert (data["drawn"]["pictures"], data["drawn"]["reused"]) == (10, 0)
    report = (out / "report.json").read_bytes()
    assert hashlib.sha256(report).hexdigest() == data["digest"]
    assert json.loads(report) == data["report"]
    assert data["report"]["patches"] == {workshop.dog: 16}
    assert [p["prompt"] for p in data["report"]["body"]["pictures"]] == [row["prompt"] for row in ROWS]
    with (out / "scores.csv").open(newline="") as file:
        assert [row["n"] for row in csv.DictReader(file)] == [str(s["n"]) for s in data["report"]["body"]["scores"]]
    with Image.open(out / "grid.png") as grid:
        assert grid.width > 5 * 128
    assert len(list((out / "pictures").iterdir())) == 10
    again = rasura(*line, cwd=workshop.folder)
    assert (again.envelope["changed"], again.data["digest"]) == (False, data["digest"])
    assert (again.data["drawn"]["pictures"], again.data["drawn"]["reused"]) == (0, 10)
    listed = rasura("evaluation", "list", "--patch", workshop.dog, "--json", cwd=workshop.folder).data["evaluations"]
    assert [item["digest"] for item in listed] == [data["digest"]]
    assert workshop.entries()[-1].reason == "ticket 9"
    assert rasura("audit", "verify", cwd=workshop.folder).code == 0
    assert workshop.digests() == model


def test_another_stack_draws_no_picture_of_the_base_again(workshop: Workshop, clip: Path) -> None:
    assert rasura(*evaluate(workshop, clip, "--json"), cwd=workshop.folder).data["drawn"]["reused"] == 0
    half = rasura(
        *evaluate(workshop, clip, "--json")[:-3], "--patch", f"{workshop.dog[:12]}=0.5", "--json", cwd=workshop.folder
    )
    assert half.data["report"]["patches"] == {workshop.dog: 8}
    assert (half.data["drawn"]["pictures"], half.data["drawn"]["reused"]) == (5, 5)


def test_what_is_applied_to_the_folder_does_not_matter(workshop: Workshop, clip: Path) -> None:
    first = rasura(*evaluate(workshop, clip, "--cache", "one", "--json"), cwd=workshop.folder).data
    with workshop.open() as registry:
        operations.apply(registry, workshop.host(), [workshop.dog, workshop.photo], ALICE)
    second = rasura(*evaluate(workshop, clip, "--cache", "two", "--json"), cwd=workshop.folder).data
    assert second["digest"] == first["digest"]
    assert second["drawn"]["pictures"] == 10


@pytest.mark.slow
def test_attacks_are_reported_with_their_ceiling(workshop: Workshop, clip: Path) -> None:
    line = evaluate(workshop, clip, "--attack", "all", "--seed", "5", "--json")
    first = rasura(*line, cwd=workshop.folder).data
    attacks = first["report"]["body"]["attacks"]
    ways = {(a["model"], a["attack"]) for a in attacks}
    assert {("base", "none"), ("patched", "none")} <= ways
    drawn = next(a for a in attacks if (a["model"], a["attack"]) == ("base", "none"))
    assert drawn["tries"] == 2
    if any(a["attack"] == "suffix" for a in attacks):  # the judge's opinion of random pictures decides that
        assert len(ways) == 2 * (1 + len(KINDS))
    assert rasura(*line, cwd=workshop.folder).data["digest"] == first["digest"]


def test_people_read_tables(workshop: Workshop, clip: Path) -> None:
    run = rasura(*evaluate(workshop, clip), cwd=workshop.folder)
    assert run.code == 0, run.err
    lines = run.out.splitlines()
    assert lines[0].startswith(f"{workshop.dog[:12]} 'dog' -> 'cat': strength 1, rank ")
    assert lines[1].startswith("judged by tiny-clip (CLIP ")
    assert lines[2].split() == ["GROUP", "ASKED", "KIND", "N", "BASE", "PATCHED", "95", "%"]
    assert lines[3].split()[:4] == ["forget", "dog", "direct", "1"]
    assert any(line.startswith("held out") for line in lines)
    assert lines[-2].startswith("drew 10 pictures, ")
    assert lines[-1].startswith("recorded as ")


def test_limits_decide_the_exit_code_and_stay_in_the_report(workshop: Workshop, clip: Path) -> None:
    bare = rasura(*evaluate(workshop, clip, "--json"), cwd=workshop.folder)
    change = bare.data["report"]["body"]["changes"][0]["change"]  # of the group forget
    assert (bare.data["limits"], "limits" in bare.data["report"]["body"]) == ([], False)
    kept = ("--min", f"forget_change={change}", "--max", f"forget_change={change}")
    run = rasura(*evaluate(workshop, clip, *kept, "--json"), cwd=workshop.folder)
    assert (run.code, run.envelope["ok"]) == (0, True)
    assert [(o["bound"], o["found"], o["kept"]) for o in run.data["limits"]] == [
        ("min", change, True),
        ("max", change, True),
    ]
    assert run.data["report"]["body"]["limits"] == run.data["limits"]
    assert {**run.data["report"], "body": {**run.data["report"]["body"], "limits": None}} == {
        **bare.data["report"],
        "body": {**bare.data["report"]["body"], "limits": None},
    }
    missed = ("--min", f"forget_change={float(change) + 0.001:.4f}", "--max", "attack_suffix=1")
    run = rasura(*evaluate(workshop, clip, *missed, "--json"), cwd=workshop.folder)
    assert (run.code, run.envelope["ok"], run.envelope["error"]) == (3, False, None)
    outcomes, digest = run.envelope["data"]["limits"], run.envelope["data"]["digest"]
    assert [(o["number"], o["bound"], o["kept"]) for o in outcomes] == [
        ("forget_change", "min", False),
        ("attack_suffix", "max", False),  # nobody attacked
    ]
    assert outcomes[1]["found"] is None
    assert rasura("evaluation", "show", digest, cwd=workshop.folder).code == 0
    read = rasura(*evaluate(workshop, clip, *missed), cwd=workshop.folder)
    assert read.code == 3
    rows = [" ".join(line.split()) for line in read.out.splitlines()]
    assert "LIMIT ALLOWED FOUND KEPT" in rows
    assert f"forget change ≥ {float(change) + 0.001:.4f} {change} NO" in rows
    assert "attack suffix ≤ 1 not measured NO" in rows


def test_an_onnx_model_judges_what_is_drawn(workshop: Workshop, clip: Path) -> None:
    colours = tiny_onnx(workshop.folder / "colours.onnx", 3)
    colours.with_suffix(".txt").write_text("red\ngreen\nblue\n")
    rows = [
        {"prompt": prompt, "group": group, "label": label}
        for prompt, group in (("a dog", "forget"), ("a cat", "retain"))
        for label in ("red", "green", "blue")
    ]
    line = ["evaluate", "--base", "the model", "--prompts", prompts(workshop, rows), "--patch", workshop.dog, *QUICK]
    data = rasura(*line, "--judge", "onnx:colours.onnx", "--json", cwd=workshop.folder).data
    assert data["report"]["judge"].startswith("colours.onnx (ONNX ")
    assert all(p["base"]["label"] in {"red", "green", "blue"} for p in data["report"]["body"]["pictures"])
    (workshop.folder / "list.csv").write_text(f"prompt,evaluation_seed\n{'dog ' * 90},7\na cat,8\n")
    given = ["--protocol", "csv", "--prompts", "list.csv", "--expect", "blue", "--group", "retain"]
    listed = rasura(*line, "--judge", "onnx:colours.onnx", *given, "--json", cwd=workshop.folder).data
    pictures = listed["report"]["body"]["pictures"]
    assert [(p["seed"], p["group"], p["wanted"]) for p in pictures] == [
        (7, "retain", {"label": "blue"}),
        (8, "retain", {"label": "blue"}),
    ]
    run = rasura(*line, "--judge", "onnx:colours.onnx:none.txt", "--json", cwd=workshop.folder)
    assert (run.code, run.envelope["error"]["code"]) == (8, "not_found")


def test_a_model_with_concepts_and_judge_beside_it_needs_no_prompts(workshop: Workshop) -> None:
    tiny_classifier(workshop.folder / "c", ("dog", "cat", "tree"), ("ink", "van gogh"))
    for path in (workshop.folder / "c").iterdir():
        shutil.copy(path, workshop.folder)
    concepts = {
        "objects": ["dog", "cat", "tree"],
        "superclass": {},
        "styles": ["ink", "van gogh"],
        "held_out": ["tree"],
        "with_article": {"dog": "a dog"},
        "evaluation_templates": ["{object}, {style}"],
    }
    (workshop.folder / "concepts.json").write_text(json.dumps(concepts))
    both = ("--patch", workshop.dog, "--patch", workshop.van_gogh)
    data = rasura("evaluate", "--base", "the model", *both, *QUICK, "--json", cwd=workshop.folder).data
    pictures = data["report"]["body"]["pictures"]
    assert {p["group"] for p in pictures} == {"forget", "retain", "held_out"}
    assert {p["kind"] for p in pictures} == {"direct", "template"}
    assert {"dog", "van gogh"} == {label for p in pictures if p["group"] == "forget" for label in p["wanted"].values()}
    run = rasura("evaluate", "--base", "the model", "--patch", workshop.photo, *QUICK, "--json", cwd=workshop.folder)
    assert (run.code, run.envelope["error"]["code"]) == (1, "input")
    assert "--prompts" in run.envelope["error"]["hint"]


def test_what_may_not_be(workshop: Workshop, clip: Path, tmp_path: Path) -> None:
    """Each refusal with its code; nothing is recorded."""
    line = evaluate(workshop, clip, "--json")
    other = tiny_model(tmp_path / "other", TinySpec(SPEC.dtype, SPEC.size, seed=9))
    (workshop.folder / "full").mkdir()
    (workshop.folder / "full" / "notes.txt").touch()
    (workshop.folder / "long.jsonl").write_text(json.dumps({**ROWS[0], "prompt": "dog " * 90}))
    (workshop.folder / "odd.jsonl").write_text(json.dumps({**ROWS[0], "group": "x"}))
    (workshop.folder / "plain.csv").write_text("prompt,seed\na dog,1\n")
    tiny_classifier(workshop.folder / "c", ("cat",))
    base = [*line[:3], *line[5:]]
    cases: list[tuple[list[str], int, str, str]] = [
        ([*line[:-3], "--json"], 1, "input", "no patch"),
        ([*line[:-3], "--patch", "f" * 12, "--json"], 8, "not_found", "ffff"),
        ([*line, "--patch", workshop.dog], 1, "input", "named twice"),
        ([*line[:-3], "--patch", f"{workshop.dog}=0", "--json"], 1, "strength", "strength 0"),
        ([*line[:-3], "--patch", f"{workshop.dog}=x", "--json"], 1, "strength", "number"),
        ([*line, "--base", str(other)], 5, "base_mismatch", "other weights"),
        ([*line, "--judge", "nowhere"], 8, "not_found", "classifier.json"),
        ([*line, "--judge", "clip:nowhere"], 8, "not_found", "CLIP"),
        ([*line, "--judge", "c"], 1, "input", "got 'dog'"),
        ([*line, "--prompts", "none.jsonl"], 8, "not_found", "none.jsonl"),
        ([*line, "--prompts", "odd.jsonl"], 1, "input", "odd.jsonl, line 1"),
        ([*line, "--prompts", "long.jsonl"], 1, "input", "92 tokens"),
        (base, 1, "input", "concepts.json"),
        ([*line, "--out", "full"], 7, "exists", "full"),
        ([*line, "--keep-pictures"], 2, "usage", "--out"),
        ([*line, "--expect", "dog"], 1, "input", "expected a protocol"),
        ([*line, "--protocol", "csv"], 1, "input", "should call"),
        ([*base, "--protocol", "csv", "--expect", "dog"], 1, "input", "a file of prompts"),
        ([*line, "--protocol", "i2p", "--expect", "dog", "--prompts", "plain.csv"], 1, "input", "column categories"),
        ([*line, "--min", "forget"], 2, "usage", "NAME=VALUE"),
        ([*line, "--min", "forget=0.1", "--min", "forget=0.2"], 2, "usage", "twice"),
        ([*line, "--min", "forgot=0.9"], 1, "input", "got 'forgot'"),
        ([*line, "--min", "forget=90"], 1, "input", "from 0 to 1, got '90'"),
        ([*line, "--max", "retain=nan"], 1, "input", "got 'nan'"),
        ([*line, "--min", "retain=0.9", "--max", "retain=0.8"], 1, "input", "up to the most"),
    ]
    size = len(workshop.entries())
    for arguments, code, kind, said in cases:
        run = rasura(*arguments, cwd=workshop.folder)
        error = run.envelope["error"]
        assert (run.code, error["code"]) == (code, kind), (arguments, error)
        assert said in error["message"], (said, error)
    assert [entry.action for entry in workshop.entries()[size:]] == ["base.add"]
    assert rasura("evaluation", "list", "--json", cwd=workshop.folder).data["evaluations"] == []


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("vae", "vae/config.json is missing"),
        ("vae/weights", "vae holds no weights"),
        ("index", "model_index.json names no vae"),
        ("scheduler", "scheduler/scheduler_config.json is missing"),
    ],
)
def test_a_model_that_cannot_draw_is_refused_by_a_dry_run_too(
    workshop: Workshop, clip: Path, broken: str, said: str
) -> None:
    place = workshop.model
    if broken == "index":
        index = json.loads((place / "model_index.json").read_text())
        (place / "model_index.json").write_text(json.dumps({n: v for n, v in index.items() if n != "vae"}))
    elif broken == "vae/weights":
        for path in (place / "vae").glob("*.safetensors"):
            path.unlink()
    else:
        shutil.rmtree(place / broken)
    line = evaluate(workshop, clip, "--json")
    planned = rasura(*line, "--dry-run", cwd=workshop.folder)
    run = rasura(*line, cwd=workshop.folder)
    assert planned.code == run.code != 0
    assert planned.envelope["error"]["message"] == run.envelope["error"]["message"]
    assert said in run.envelope["error"]["message"]
