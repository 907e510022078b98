# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""`rasura evaluation`, and what `rasura patch show` says of evaluations."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta

import pytest
from support.commandline import rasura
from support.registries.registry_fixtures import EPOCH, draft
from support.registries.workshop import Workshop, start, workshop

from rasura.evaluation.report.recorded import record_evaluation
from rasura.patches._io import canonical_json
from rasura.patches._io.json_fields import JsonValue
from rasura.patches.types import PatchId
from rasura.registry._storage.records.records import EvaluationRecord
from rasura.registry.registry import Registry

SUMMARY = {"forget": "0.000", "retain": "1.000", "held_out": "0.979", "harmonic": "0.99", "attacked": "0.125"}
SCORES: list[JsonValue] = [
    {"group": "forget", "concept": "dog", "n": 48, "relative": True},
    {"group": "retain", "concept": "cat", "n": 48, "note": "a\x1b[2Jb"},
]


def recorded(shop: Workshop, stack: dict[PatchId, int], day: int = 0, **rest: JsonValue) -> EvaluationRecord:
    """On a day of its own, so that ages differ."""
    with Registry.open(shop.folder, now=lambda: EPOCH + timedelta(days=day)) as registry:
        fields: dict[str, JsonValue] = {
            "format": "rasura-evaluation/1",
            "base": registry.base("tiny").digest,
            "patches": {str(p): s for p, s in stack.items()},
            "judge": "a classifier",
            "summary": SUMMARY,
            "body": {"scores": SCORES},
            **rest,
        }
        record, new = record_evaluation(registry, canonical_json.dumps(fields), draft("evaluation.add"))
    assert new
    return record


def test_a_list_for_people(workshop: Workshop) -> None:
    old = recorded(workshop, {workshop.dog: 16}, day=1)
    new = recorded(workshop, {workshop.dog: 8, workshop.van_gogh: 16}, day=2, summary={"forget": "1", "other": "2"})
    run = rasura("evaluation", "list", cwd=workshop.folder)
    head, first, second = run.out.splitlines()
    assert head.split() == ["EVALUATION", "CONCEPTS", "JUDGE", "FORGET", "RETAIN", "HELD", "OUT", "HARMONIC"]
    assert first.split()[0] == new.digest[:12]
    assert "dog × 0.5" in first
    assert "van gogh" in first
    assert "van gogh ×" not in first
    assert first.split()[-4:] == ["1", "-", "-", "-"]
    assert [cell.strip() for cell in second.split("  ") if cell] == [
        old.digest[:12], "dog", "a classifier", "0.000", "1.000", "0.979", "0.99"
    ]  # fmt: skip
    one = rasura("evaluation", "list", "--patch", workshop.van_gogh[:8], cwd=workshop.folder)
    assert [line.split()[0] for line in one.out.splitlines()[1:]] == [new.digest[:12]]
    none = rasura("evaluation", "list", "--patch", workshop.photo, cwd=workshop.folder)
    assert len(none.out.splitlines()) == 1


def test_a_list_for_machines(workshop: Workshop) -> None:
    record = recorded(workshop, {workshop.dog: -8})
    (told,) = rasura("evaluation", "list", "--json", cwd=workshop.folder).data["evaluations"]
    assert told == {
        "digest": record.digest,
        "base": record.base,
        "patches": {workshop.dog: "-0.5"},
        "judge": "a classifier",
        "summary": SUMMARY,
        "added_at": EPOCH.isoformat(),
    }


def test_one_evaluation(workshop: Workshop) -> None:
    record = recorded(workshop, {workshop.dog: 16, workshop.photo: 4})
    run = rasura("evaluation", "show", record.digest[:8], cwd=workshop.folder)
    above, _, below = run.out.partition("\n\n")
    pairs = [line.split(maxsplit=1) for line in above.splitlines()]
    assert [name for name, _ in pairs] == [
        "evaluation", "base", "patch", "patch", "judge", "forget", "retain", "held", "harmonic", "attacked", "added"
    ]  # fmt: skip
    assert f"{workshop.dog} dog" in above
    assert f"{workshop.photo} photo × 0.25" in above
    assert below.splitlines() == [
        "CONCEPT  GROUP   N   RELATIVE  NOTE",
        "dog      forget  48  yes       -",
        "cat      retain  48  -         a\\u001b[2Jb",
    ]
    told = rasura("evaluation", "show", record.digest, "--json", cwd=workshop.folder).data
    assert (told["digest"], told["summary"], told["body"]) == (record.digest, SUMMARY, {"scores": SCORES})


@pytest.mark.parametrize("body", [{}, {"scores": []}, {"scores": [{}]}, {"scores": [{"n": [1]}]}, {"scores": "many"}])
def test_details_of_another_shape_are_not_shown(workshop: Workshop, body: JsonValue) -> None:
    record = recorded(workshop, {workshop.dog: 16}, body=body)
    run = rasura("evaluation", "show", record.digest, cwd=workshop.folder)
    assert (run.code, run.out.splitlines()[-1].split()[0]) == (0, "added")


def test_names_of_scores_stay_inside_their_column(workshop: Workshop) -> None:
    record = recorded(workshop, {workshop.dog: 16}, body={"scores": [{"a\x1b[2J\u202e": 1}]})
    run = rasura("evaluation", "show", record.digest, cwd=workshop.folder)
    assert run.code == 0
    assert "\x1b" not in run.out
    assert "\u202e" not in run.out


def test_a_patch_names_its_newest_evaluations(workshop: Workshop) -> None:
    def shown() -> list[str]:
        run = rasura("patch", "show", workshop.dog, cwd=workshop.folder)
        lines = run.out.splitlines()
        added = next(i for i, line in enumerate(lines) if line.startswith("added"))
        return [" ".join(line.split()) for line in lines[added + 1 :]]

    assert shown() == []
    alone = recorded(workshop, {workshop.dog: 16})
    recorded(workshop, {workshop.photo: 16})
    told = "forget 0.000, retain 1.000, held out 0.979, harmonic 0.99"
    assert shown() == [f"evaluated {alone.digest[:12]} 2026-01-31: {told} (a classifier)"]
    both = recorded(workshop, {workshop.dog: 16, workshop.photo: 16}, day=1, summary={})
    assert shown()[0] == f"evaluated {both.digest[:12]} 2026-02-01: no scores (a classifier, with 1 other patch)"
    more = [recorded(workshop, {workshop.dog: strength}, day=strength) for strength in range(2, 7)]
    lines = shown()
    assert [line.split()[1] for line in lines[:5]] == [record.digest[:12] for record in reversed(more)]
    assert lines[5:] == [f"… and 2 more: rasura evaluation list --patch {workshop.dog[:12]}"]
    data = rasura("patch", "show", workshop.dog, "--json", cwd=workshop.folder).data
    assert [told["digest"] for told in data["evaluations"]] == [r.digest for r in [*reversed(more), both, alone]]


def test_what_is_missing_or_damaged_has_its_exit_code(workshop: Workshop) -> None:
    record = recorded(workshop, {workshop.dog: 16})
    unknown = rasura("evaluation", "show", "ffff", cwd=workshop.folder)
    assert (unknown.code, unknown.err.splitlines()[-1]) == (8, "hint: rasura evaluation list")
    assert rasura("evaluation", "list", "--patch", "ffff", cwd=workshop.folder).code == 8
    with workshop.open() as registry:
        path = registry.blobs.path(record.digest)
    path.chmod(0o600)
    path.write_bytes(b"{}")
    assert rasura("evaluation", "show", record.digest, "--json", cwd=workshop.folder).code == 4
    path.unlink()
    gone = rasura("evaluation", "show", record.digest, "--json", cwd=workshop.folder)
    assert (gone.code, gone.envelope["error"]["code"]) == (8, "not_found")
    assert rasura("evaluation", "list", cwd=workshop.folder).code == 0


def test_no_tensors_are_imported(workshop: Workshop) -> None:
    record = recorded(workshop, {workshop.dog: 16})
    script = (
        "import sys\n"
        "try:\n    from rasura.cli import main\n    main()\n"
        "finally:\n    print(*sorted({m.split('.')[0] for m in sys.modules}), file=sys.stderr)\n"
    )
    for typed in (["evaluation", "show", record.digest], ["evaluation", "list"], ["patch", "show", workshop.dog]):
        process = start(["-c", script, *typed], workshop.folder)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, "a classifier" in out) == (0, True), err
        assert set(err.split()) & {"torch", "numpy", "diffusers", "transformers", "alembic"} == set()


def test_an_older_registry_is_upgraded_from_the_command_line(workshop: Workshop) -> None:
    with closing(sqlite3.connect(workshop.folder / ".rasura" / "registry.db")) as connection:
        connection.executescript(
            "DROP TABLE case_item; DROP TABLE case_record; DROP TABLE patch_signature; DROP TABLE stack_patch; DROP TABLE stack; DROP TABLE policy;"
            "DROP TABLE evaluation_patch; DROP TABLE evaluation; UPDATE alembic_version SET version_num = '0001'"
        )
    deep = workshop.folder / "a" / "b"
    deep.mkdir(parents=True)
    old = rasura("patch", "list", cwd=deep)
    assert (old.code, old.err.splitlines()[-1]) == (1, "hint: rasura init --upgrade")
    done = rasura("init", "--upgrade", "--json", cwd=deep)
    assert (done.data["from"], done.data["location"]) == ("0001", str(workshop.folder / ".rasura"))
    assert done.envelope["changed"] is True
    again = rasura("init", "--upgrade", "--json", cwd=deep)
    assert (again.data["from"], again.envelope["changed"]) == (None, False)
    assert workshop.entries()[-1].action == "registry.upgrade"
    assert rasura("audit", "verify", cwd=deep).code == 0
    assert not (deep / ".rasura").exists()
