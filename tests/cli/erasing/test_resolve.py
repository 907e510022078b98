# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""`rasura patch rebase`, `join` and `retarget` as people and machines see them."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.commandline import Run, rasura
from support.models.tiny import tiny_model
from support.registries.workshop import SPEC, Workshop, workshop

from rasura.patches.types import PatchId
from rasura.registry._storage.records.choices import StackRecord
from rasura.registry._storage.records.records import Draft

RETAIN = "painting\ncat\na\nthe\n"
ALIKE = ("--tokens", "last", "--layers", "kv", "--rank-rule", "count:8", "--template", "{}", "--template", "a {}")


@pytest.fixture
def home(workshop: Workshop) -> Path:
    (workshop.folder / "retain.txt").write_text(RETAIN)
    return workshop.folder


def erase(home: Path, *concepts: str) -> list[dict[str, Any]]:
    named = [word for concept in concepts for word in ("--concept", concept)]
    run = rasura("erase", "--base", "tiny", *named, "--retain", "retain.txt", *ALIKE, "--json", cwd=home)
    patches: list[dict[str, Any]] = run.data["patches"]
    return patches


def ids(home: Path, *concepts: str) -> list[str]:
    return [patch["id"] for concept in concepts for patch in erase(home, concept)]


def run(home: Path, *arguments: str | Path) -> Run:
    return rasura("patch", *arguments, cwd=home)


def test_rebase_says_what_was_gained_and_lost(home: Path) -> None:
    photo, of = ids(home, "photo", "of")
    done = run(home, "rebase", photo[:8], "--protect", of[:8], "--reason", "ticket 9", "--json")
    (made,) = done.data["patches"]
    assert (made["supersedes"], made["concept"], made["new"], made["protects"]) == (photo, "photo", True, [of])
    (pair,) = made["pairs"]
    assert (pair["other"], pair["concept"]) == (of, "of")
    assert pair["after"] < 0.05 < pair["before"]
    assert done.envelope["changed"] is True
    again = run(home, "rebase", photo, "--protect", of, "--json")
    assert (again.envelope["changed"], again.data["patches"]) == (False, [{**made, "new": False}])
    shown = run(home, "rebase", photo, "--protect", of)
    header, *rows = [line.split("  ") for line in shown.out.splitlines()]
    assert [cell.strip() for cell in header if cell] == ["OLD", "NEW", "CONCEPT", "NUMBER", "BEFORE", "AFTER"]
    assert all(row[0] == photo[:12] for row in rows)
    told = [word for row in rows for word in row]
    for number in ("residual", "leak retained", "leak held out", "free", "protected", f"on {of[:12]} of"):
        assert number in told
    (entry,) = rasura("audit", "log", "-n", "1", "--json", cwd=home).data["entries"]
    assert (entry["action"], entry["reason"]) == ("patch.rebase", "ticket 9")


def test_all_and_stacks(home: Path, workshop: Workshop) -> None:
    photo, of, van = ids(home, "photo", "of", "van")
    (made,) = run(home, "rebase", photo, "--protect", "all", "--json").data["patches"]
    assert {of, van} < set(made["protects"])
    assert photo not in made["protects"]
    with workshop.open() as registry:
        now, base = registry.now(), registry.base("tiny").digest
        record = StackRecord("live", base, {PatchId(photo): 16, PatchId(of): 8}, now, now)
        registry.add_stack(record, Draft("alice", "", "stack.create", "success"))
    (beside,) = run(home, "rebase", photo, "--onto-stack", "live", "--json").data["patches"]
    assert beside["protects"] == [of]
    wrong = run(home, "rebase", photo, "--onto-stack", "nothing", "--json")
    assert (wrong.code, wrong.envelope["error"]["code"]) == (8, "not_found")


def test_join_says_how_well_concepts_are_told_apart(home: Path) -> None:
    photo, of = ids(home, "photo", "of")
    data = run(home, "join", photo, of, "--json").data
    assert [made["supersedes"] for made in data["patches"]] == [photo, of]
    together = erase(home, "photo", "of")
    assert [made["measured"] for made in data["patches"]] == [made["measured"] for made in together]
    judged = data["conditioning"]
    assert float(judged["condition"]) >= 1
    assert set(judged["left"]) == {"photo", "of"}
    assert judged["groups"] == []
    alone = run(home, "join", photo, "--json")
    assert (alone.code, alone.envelope["error"]["hint"]) == (1, "rasura patch rebase ID")


def test_erase_says_which_concepts_can_hardly_be_told_apart(home: Path) -> None:
    """Long words of one letter, of which one has one more."""
    command = ("erase", "--base", "tiny", "--retain", "retain.txt", *ALIKE)
    alone = rasura(*command, "--concept", "dog", "--json", cwd=home).data
    assert alone["conditioning"] is None
    named = [word for times in (19, 20) for word in ("--concept", f"{times * 'a'}b")]
    close = rasura(*command, "--concept", "dog", *named, "--json", cwd=home).data
    judged = close["conditioning"]
    assert [group["concepts"] for group in judged["groups"]] == [[f"{19 * 'a'}b", f"{20 * 'a'}b"]]
    assert float(judged["condition"]) >= float(judged["groups"][0]["condition"]) > 100
    assert float(judged["left"]["dog"]) > 0.1
    (said,) = [notice for notice in close["notices"] if "can hardly be told apart" in notice]
    assert "as one concept" in said
    assert "can hardly be told apart" in rasura(*command, *named, cwd=home).out


def test_retarget_end_to_end(home: Path, workshop: Workshop, tmp_path: Path) -> None:
    second = tmp_path / "second"
    shutil.copytree(workshop.model, second)
    shutil.rmtree(second / "unet")
    shutil.copytree(tiny_model(tmp_path / "scratch", replace(SPEC, seed=5)) / "unet", second / "unet")
    (photo,) = ids(home, "photo")
    data = run(home, "retarget", photo[:8], "--base", second, "--json").data
    assert (data["from"], data["responses"], data["base"], data["new"]) == (photo, "weights", "second", True)
    assert data["fit"] < 1e-4
    assert data["seconds"] < 5
    assert data["own_promise"]["after"] < 1e-5
    assert data["measured"]["residual"] != data["before"]["residual"]
    shown = run(home, "retarget", photo, "--base", "second")
    assert "responses from weights" in shown.out
    assert "own promise" in shown.out
    assert run(home, "apply", data["id"], "--model", second, "--json").data["applied"] == {data["id"]: "1"}
    assert run(home, "revert", data["id"], "--model", second, "--json").data["pristine"] is True
    wrong = run(home, "apply", photo, "--model", second, "--json")
    assert (wrong.code, wrong.envelope["error"]["code"]) == (5, "base_mismatch")


def test_erase_protects_what_rebase_would(home: Path) -> None:
    """`--protect all` is every patch of the base, of another concept, that no other supersedes."""
    photo, of = ids(home, "photo", "of")
    newer = run(home, "rebase", photo, "--protect", of, "--json").data["patches"][0]["id"]
    tiny_model(home / "other", replace(SPEC, seed=3))
    words = ("--concept", "style", "--retain", "retain.txt", *ALIKE, "--json")
    (foreign,) = rasura("erase", "--base", "other", *words, cwd=home).data["patches"]
    (made,) = rasura("erase", "--base", "tiny", *words, "--protect", "all", cwd=home).data["patches"]
    guarded = set(made["one_sided"])
    assert {of, newer} <= guarded
    assert not guarded & {photo, foreign["id"], made["id"]}


def test_erase_onto_a_stack_or_a_model(home: Path) -> None:
    photo, of = ids(home, "photo", "of")
    rasura("stack", "create", "prod", photo, of, cwd=home)
    words = ("erase", "--base", "tiny", "--concept", "style", "--retain", "retain.txt", *ALIKE, "--json")
    (made,) = rasura(*words, "--onto-stack", "prod", cwd=home).data["patches"]
    assert set(made["one_sided"]) == {photo, of}
    (bare,) = rasura(*words, "--onto-stack", "@the model", cwd=home).data["patches"]
    assert bare["one_sided"] == []
