"""`rasura takedown` and `rasura withdraw` on the reference model, as somebody types them on a busy afternoon."""

import hashlib
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.commandline import Run, rasura
from support.judges import tiny_clip
from support.registries.takedown_home import MODEL, RETAIN, make_home

from rasura.patches.algebra.strength import Strength
from rasura.patches.errors import CheckRefusedError, ConflictError
from rasura.patches.types import Digest
from rasura.registry._storage.records.records import Draft, EntryRecord, EvaluationRecord
from rasura.registry.registry import Registry
from rasura.registry.takedown.carry_out import carry_out
from rasura.registry.takedown.coverage import check_covers, find_covered
from rasura.registry.takedown.ground import Place, stand_on
from rasura.registry.takedown.plan import plan_takedown
from rasura.registry.takedown.wanted import WantedConcept

pytestmark = pytest.mark.usefixtures("encoded_once")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a registry, a key, a copy of the reference model, and lists."""
    return make_home(tmp_path_factory.mktemp("template") / "home")


@pytest.fixture
def home(template: Path, tmp_path: Path) -> Path:
    """A copy of it for one test."""
    return shutil.copytree(template, tmp_path / "home")


def digests(home: Path) -> dict[str, str]:
    files = [path for path in sorted((home / "model").rglob("*")) if path.is_file() and ".rasura" not in path.parts]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def takedown(home: Path, *words: str, model: str = "model") -> Run:
    return rasura("takedown", "--model", model, *words, "--yes", "--json", cwd=home)


def first(home: Path, concept: str = "dog", anchor: str = "cat") -> Run:
    return takedown(
        home, "--concept", concept, "--anchor", anchor, "--retain", "retain.txt", "--templates", "objects.txt"
    )


def erased(home: Path) -> dict[str, str]:
    """What status finds by hashing: concept and what it becomes."""
    applied = rasura("patch", "status", "--model", "model", "--json", cwd=home).data["applied"]
    with Registry.open(home) as registry:
        return {registry.patch(i).concepts[0]: i for i in applied}


def entries(home: Path) -> tuple[EntryRecord, ...]:
    with Registry.open(home) as registry:
        return registry.entries(newest=False)


def motions(home: Path) -> list[str]:
    return [e.action for e in entries(home) if e.outcome in {"begun", "done"} and e.host]


def by_concept(run: Run) -> dict[str, dict[str, Any]]:
    return {item["concept"]: item for item in run.data["made"]}


def test_an_afternoon(home: Path) -> None:
    before = digests(home)
    dog = first(home)
    assert by_concept(dog).keys() == {"dog"}
    assert (dog.envelope["changed"], dog.data["done"], dog.data["looked_at"]) == (True, True, False)

    # A style after an object: templates that name the dog would meet its erasure.
    neon = takedown(home, "--concept", "neon", "--anchor", "cartoon", "--templates", "styles.txt")
    assert erased(home).keys() == {"dog", "neon"}
    assert by_concept(neon)["neon"]["templates"] == 6

    # What the dog became is to be erased now: the dog gets another anchor, in the same motion.
    cat = takedown(home, "--concept", "cat", "--anchor", "penguin", "--templates", "objects.txt")
    made = by_concept(cat)
    assert {name: made[name]["anchor"] for name in ("dog", "cat")} == {"dog": "penguin", "cat": "penguin"}
    assert made["dog"]["supersedes"] != by_concept(dog)["dog"]["id"]  # but the one that neon's takedown solved
    assert made["neon"]["templates"] == 5  # "a cat in {} style" went
    assert erased(home).keys() == {"dog", "neon", "cat"}
    assert any("dog becomes penguin now: cat is to be erased" in note for note in cat.data["notices"])

    # Asked again, nothing happens.
    size, state = len(entries(home)), digests(home)
    again = takedown(home, "--concept", "CAT", "--anchor", "penguin")
    assert (again.envelope["changed"], again.data["already"]) == (False, {"CAT": erased(home)["cat"]})
    assert (len(entries(home)), digests(home)) == (size, state)

    # One motion a takedown; nothing was ever taken out without a successor.
    assert motions(home) == ["patch.switch"] * 6

    back = rasura("withdraw", "dog", "--model", "model", "--yes", "--json", cwd=home)
    assert back.data["withdrawn"] == [made["dog"]["id"]]
    assert erased(home).keys() == {"neon", "cat"}
    assert rasura("withdraw", "dog", "--model", "model", "--yes", "--json", cwd=home).envelope["changed"] is False

    rest = rasura("withdraw", "neon", erased(home)["cat"][:12], "--model", "model", "--yes", "--json", cwd=home)
    assert rest.data["pristine"] is True
    assert digests(home) == before
    assert rasura("audit", "verify", cwd=home).code == 0


def test_a_near_neighbour_is_covered_and_never_comes_back_by_accident(home: Path) -> None:
    first(home, "car", "airplane")
    red = takedown(home, "--concept", "red car")
    (cover,) = red.data["covered"]
    assert (cover["concept"], cover["concept_of"], red.data["made"]) == ("red car", "car", [])
    assert float(cover["left"]) < 0.3
    size = len(entries(home))
    again = takedown(home, "--concept", "red car")
    assert (again.envelope["changed"], len(entries(home))) == (False, size)

    # The car comes back, and the red car gets a patch of its own in the same motion.
    back = rasura("withdraw", "car", "--model", "model", "--yes", "--json", cwd=home)
    assert by_concept(back)["red car"]["anchor"] == "airplane"
    assert erased(home).keys() == {"red car"}
    assert any("car may not be as the base draws it" in note for note in back.data["notices"])
    assert rasura("withdraw", "red car", "--model", "model", "--yes", "--json", cwd=home).data["pristine"] is True
    assert rasura("audit", "verify", cwd=home).code == 0


def test_another_name_of_what_is_erased_is_covered_and_not_kept(home: Path) -> None:
    rasura("base", "add", "model", "--name", "small", cwd=home)
    how = ("--anchor", "airplane", "--retain", "retain.txt", "--templates", "objects.txt", "--also-called", "bus")
    (car,) = rasura("erase", "--base", "small", "--concept", "car", *how, "--json", cwd=home).data["patches"]
    assert rasura("patch", "apply", car["id"], "--model", "model", cwd=home).code == 0
    (cover,) = takedown(home, "--concept", "bus").data["covered"]
    assert (cover["concept"], cover["concept_of"]) == ("bus", "car")
    (home / "more.txt").write_text(RETAIN + "bus\n")
    dog = ("--concept", "dog", "--anchor", "cat", "--templates", "objects.txt", "--retain", "more.txt", "--dry-run")
    assert any("not retained" in note and "bus" in note for note in takedown(home, *dog).data["notices"])


@pytest.mark.parametrize("anchor", ["dog", "big dog", "Puppy"])
def test_what_is_erased_is_no_anchor(home: Path, anchor: str) -> None:
    """A rose that becomes a dog would draw dogs again; by any name that the dog was erased with."""
    start = ("--concept", "dog", "--anchor", "frog", "--also-called", "puppy")
    takedown(home, *start, "--retain", "retain.txt", "--templates", "objects.txt")
    size, state = len(entries(home)), digests(home)
    words = ("--concept", "rose", "--anchor", anchor, "--templates", "objects.txt")
    run = rasura("takedown", "--model", "model", *words, "--yes", "--json", cwd=home)
    error = run.envelope["error"]
    assert (run.code, error["code"]) == (1, "input")
    name = "puppy" if anchor == "Puppy" else "dog"
    assert f"rose would become {anchor}, and {name} is what {erased(home)['dog'][:12]} erases" in error["message"]
    assert (len(entries(home)), digests(home)) == (size + 1, state)  # the refusal is logged
    again = rasura(*shlex.split(error["hint"])[1:], "--json", cwd=home)
    assert by_concept(again)["rose"]["anchor"] not in {"dog", "puppy"}


def test_erase_says_where_an_anchor_is_what_a_protected_patch_erases(home: Path) -> None:
    """It is no takedown: nothing says that both will stand on one model."""
    rasura("base", "add", "model", cwd=home)
    how = ("--retain", "retain.txt", "--templates", "objects.txt", "--json")
    lion = rasura("erase", "--base", "model", "--concept", "lion", "--anchor", "frog", *how, cwd=home)
    rose = ("--concept", "rose", "--anchor", "lion", "--protect", "all", "--dry-run")
    said = rasura("erase", "--base", "model", *rose, *how, cwd=home).data["notices"]
    patch_id = lion.data["patches"][0]["id"][:12]
    wanted = f"rose becomes lion, and lion is what {patch_id} erases: where both are applied, lion is drawn again"
    assert wanted in said


def test_an_older_patch_that_draws_what_is_erased_is_solved_anew(home: Path) -> None:
    """Put there by hand, side by side: the next takedown gives it another anchor."""
    how = ("--retain", "retain.txt", "--templates", "objects.txt", "--json")
    (home / "loose.toml").write_text("[limits]\npair = 1.0\nstack = inf\nkept = 9.0\n")
    rasura("policy", "set", "loose.toml", cwd=home)
    rasura("base", "add", "model", cwd=home)
    for concept, anchor in (("rose", "lion"), ("lion", "frog")):
        words = ("--base", "model", "--concept", concept, "--anchor", anchor)
        (made,) = rasura("erase", *words, *how, cwd=home).data["patches"]
        rasura("patch", "apply", made["id"], "--model", "model", cwd=home)
    assert erased(home).keys() == {"rose", "lion"}
    run = takedown(home, "--concept", "car", "--anchor", "airplane", "--templates", "objects.txt")
    anchor = by_concept(run)["rose"]["anchor"]
    assert anchor != "lion"
    assert f"rose becomes {anchor} now: lion is erased" in run.data["notices"]
    assert erased(home).keys() == {"rose", "lion", "car"}


def test_another_anchor_takes_the_place_of_the_first_in_one_motion(home: Path) -> None:
    before = digests(home)
    first(home)
    old = erased(home)["dog"]
    run = takedown(home, "--concept", "dog", "--anchor", "penguin", "--templates", "objects.txt")
    made = by_concept(run)["dog"]
    assert (made["anchor"], made["supersedes"], run.data["already"]) == ("penguin", old, {})
    assert erased(home) == {"dog": made["id"]}
    assert motions(home) == ["patch.switch"] * 4
    assert rasura("withdraw", "dog", "--model", "model", "--yes", "--json", cwd=home).data["pristine"] is True
    assert digests(home) == before


def test_a_covered_concept_may_be_withdrawn(home: Path) -> None:
    first(home, "car", "airplane")
    takedown(home, "--concept", "red car")
    back = rasura("withdraw", "red car", "--model", "model", "--yes", "--json", cwd=home)
    assert (back.data["uncovered"], back.data["withdrawn"]) == (["red car"], [])
    rasura("withdraw", "car", "--model", "model", "--yes", cwd=home)
    assert erased(home) == {}  # nothing remembers the red car


def test_a_file_of_requests_in_one_motion(home: Path) -> None:
    (home / "requests.csv").write_text(
        "concept,anchor,templates,ticket,received-at,requester,deadline\n"
        "dog,penguin,objects.txt,T-1,2026-11-02,Ada,2026-11-30\n"
        "neon,cartoon,styles.txt,T-2,2026-11-03,Bob,\n"
    )
    run = takedown(home, "--file", "requests.csv", "--retain", "retain.txt")
    assert by_concept(run).keys() == {"dog", "neon"}
    assert motions(home) == ["patch.switch"] * 2
    noted = {e.details.get("ticket"): e for e in entries(home) if e.action == "patch.erase"}
    assert noted["T-1"].details["requester"] == "Ada"
    assert noted["T-1"].details["deadline"] == "2026-11-30"
    assert "deadline" not in noted["T-2"].details


def test_a_ticket_that_is_a_case_belongs_to_it(home: Path) -> None:
    (home / "requests.csv").write_text(
        "concept,anchor,templates,ticket,received-at,requester,deadline\n"
        "dog,penguin,objects.txt,T-1,2026-11-02,Ada Person,2026-11-30\n"
        "neon,cartoon,styles.txt,T-2,2026-11-03,Bob,\n"
    )
    assert rasura("case", "open", "T-1", "--deadline", "48h", "--requester", "Ada Person", cwd=home).code == 0
    takedown(home, "--file", "requests.csv", "--retain", "retain.txt")
    cases = [(e.action, e.details.get("ticket"), e.details.get("case")) for e in entries(home)]
    assert ("patch.erase", "T-1", "T-1") in cases
    assert ("patch.erase", "T-2", None) in cases
    assert [case for action, _, case in cases if action == "patch.switch"] == ["T-1", "T-1"]
    asked = {e.details.get("ticket"): e.details.get("requester") for e in entries(home) if e.action == "patch.erase"}
    assert asked == {"T-1": None, "T-2": "Bob"}
    assert rasura("case", "show", "T-1", "--json", cwd=home).data["acted_entry"] is not None


def test_a_stack_is_the_ground_and_moves_no_model(home: Path) -> None:
    first(home)
    dog = erased(home)["dog"]
    rasura("stack", "create", "prod", dog, cwd=home)
    state = digests(home)
    run = rasura(
        "takedown", "--stack", "prod", "--concept", "pig", "--anchor", "frog", "--templates", "objects.txt", "--yes",
        cwd=home,
    )  # fmt: skip
    assert run.code == 0, run.err
    assert digests(home) == state
    assert f"next: rasura patch switch prod --model {home / 'model'}" in run.out
    shown = rasura("stack", "show", "prod", "--json", cwd=home).data
    assert len(shown["patches"]) == 2
    switched = rasura("patch", "switch", "prod", "--model", "model", cwd=home)
    assert switched.code == 0, switched.err
    assert erased(home).keys() == {"dog", "pig"}


def test_an_anchor_that_draws_the_target_is_refused_with_the_command_that_would_do(home: Path) -> None:
    state = digests(home)
    words = (
        "--model", "model", "--concept", "dog", "--concept", "car", "--anchor", "big dog", "--anchor", "airplane",
        "--retain", "retain.txt", "--templates", "objects.txt",
    )  # fmt: skip
    run = rasura("takedown", *words, "--yes", "--json", cwd=home)
    assert run.code == 3
    error = run.envelope["error"]
    assert "erasing 'dog' to 'big dog' erases little or nothing" in error["message"]
    anchor = error["details"]["anchors"][0]
    typed = shlex.join(word if word != "big dog" else anchor for word in words)
    assert error["hint"] == f"rasura takedown --json {typed} --yes"
    assert digests(home) == state
    with Registry.open(home) as registry:
        assert registry.patches() == ()
    again = rasura(*shlex.split(error["hint"])[1:], cwd=home)
    assert by_concept(again)["dog"]["anchor"] == anchor
    assert not any("dog" in note and "pictures may show" in note for note in again.data["notices"])


def test_auto_passes_over_what_draws_the_target_and_a_misspelt_word_is_said(home: Path) -> None:
    (home / "near.txt").write_text("big dog\nblack dog\nanimal\n" + RETAIN)
    run = takedown(
        home, "--concept", "dog", "--concept", "neno", "--retain", "near.txt", "--templates", "objects.txt",
        "--templates", "styles.txt",
    )  # fmt: skip
    assert by_concept(run)["dog"]["anchor"] in RETAIN.split()
    assert any("hardly knows 'neno'" in note for note in run.data["notices"])
    assert not any("hardly knows 'dog'" in note for note in run.data["notices"])


def test_an_older_patch_that_erases_little_does_not_stop_a_takedown(home: Path) -> None:
    """Signed under another policy; solved anew beside a new one, it is said."""
    lenient(home)
    first(home, "dog", "animal")
    (home / "default.toml").write_text("")
    assert rasura("policy", "set", "default.toml", cwd=home).code == 0
    lion = takedown(home, "--concept", "lion", "--anchor", "penguin", "--templates", "objects.txt")
    assert lion.data["done"] is True
    assert by_concept(lion)["dog"]["anchor"] == "animal"  # solved anew, because the two disturb each other
    assert any("'animal' is near 'dog'" in note for note in lion.data["notices"])


def test_a_policy_may_demand_that_somebody_looked(home: Path) -> None:
    (home / "looked.toml").write_text("[evaluation]\nrequired = true\n")
    assert rasura("policy", "set", "looked.toml", cwd=home).code == 0
    state = digests(home)
    refused = first(home)
    assert refused.code == 3
    assert digests(home) == state
    with Registry.open(home) as registry:  # the patch is there to be looked at
        (record,) = registry.patches()
        assert refused.envelope["error"]["hint"] == f"rasura evaluate --base model --patch {record.patch_id[:12]}"
        report = b"somebody looked"
        digest = Digest(hashlib.sha256(report).hexdigest())
        seen = EvaluationRecord(digest, record.base, {record.patch_id: 16}, "a judge", {}, registry.now())
        registry.add_evaluation(seen, report, Draft("bob", "", "evaluation.add", "success"))
    assert first(home).data["done"] is True
    assert erased(home) == {"dog": record.patch_id}


def lenient(home: Path) -> None:
    """Anchors may be what they like."""
    (home / "lenient.toml").write_text("[limits]\nalike = 1.0\n")
    assert rasura("policy", "set", "lenient.toml", cwd=home).code == 0


def test_a_judge_that_still_sees_it_stops_the_takedown(home: Path) -> None:
    lenient(home)
    state = digests(home)
    run = rasura(
        "takedown", "--model", "model", "--concept", "dog", "--anchor", "animal", "--retain", "retain.txt",
        "--templates", "objects.txt", "--judge", MODEL, "--pictures", "1", "--yes", cwd=home,
    )  # fmt: skip
    assert run.code == 3, run.out
    assert "dog" in run.err
    assert digests(home) == state
    with Registry.open(home) as registry:
        assert registry.patches() == ()


def test_a_judge_looks_before_the_model_is_moved(home: Path) -> None:
    run = rasura(
        "takedown", "--model", "model", "--concept", "dog", "--anchor", "cat", "--retain", "retain.txt",
        "--templates", "objects.txt", "--judge", MODEL, "--pictures", "2", "--yes", "--json", cwd=home,
    )  # fmt: skip
    assert run.data["seen"] == [{"concept": "dog", "n": 2, "before": 2, "after": 0, "erased": True}]
    assert run.data["looked_at"] is True
    kept = run.data["kept"]
    words = RETAIN.split()
    assert [k["concept"] in words for k in kept] == [True] * 4
    assert len({k["concept"] for k in kept}) == 4
    assert [(k["n"], k["before"] <= 2, k["still_seen"]) for k in kept] == [(2, True, True)] * 4


def test_a_clip_judge_chooses_among_what_the_plan_names(home: Path) -> None:
    tiny_clip(home / "clip")
    run = rasura(
        "takedown", "--model", "model", "--concept", "dog", "--anchor", "cat", "--retain", "retain.txt",
        "--templates", "objects.txt", "--judge", "clip:clip", "--pictures", "1", "--dry-run", "--json", cwd=home,
    )  # fmt: skip
    assert [(seen["concept"], seen["n"]) for seen in run.data["seen"]] == [("dog", 1)]


def test_a_plan_of_another_state_moves_nothing(home: Path) -> None:
    """Somebody else's takedown between the plan and the motion is never undone by it."""
    first(home)
    draft = Draft("alice", "", "takedown.plan", "success")
    wanted = [WantedConcept("pig", "frog", ("{}", "a {}"))]
    with Registry.open(home) as registry:
        plan = plan_takedown(
            registry, Place(home / "model"), wanted, retain=None, templates=(), draft=draft, progress=lambda *_: None
        )
        takedown(home, "--concept", "apple", "--anchor", "banana", "--templates", "objects.txt")
        state, there = digests(home), erased(home)
        with pytest.raises(ConflictError, match="changed since that was planned"):
            carry_out(registry, plan, key=None, draft=draft, progress=lambda *_: None)
        assert (digests(home), erased(home)) == (state, there)
        rasura("stack", "create", "prod", there["dog"], cwd=home)
        plan = plan_takedown(
            registry, Place(stack="prod"), wanted, retain=None, templates=(), draft=draft, progress=lambda *_: None
        )
        rasura("stack", "add", "prod", there["apple"], cwd=home)
        with pytest.raises(ConflictError, match="stack prod changed"):
            carry_out(registry, plan, key=None, draft=draft, progress=lambda *_: None)
        assert set(registry.stack("prod").patches) == {there["dog"], there["apple"]}


def test_a_cover_that_would_be_lost_is_refused(home: Path) -> None:
    first(home, "car", "airplane")
    takedown(home, "--concept", "red car")
    with Registry.open(home) as registry:
        ground = stand_on(registry, Place(home / "model"), Draft("alice", "", "base.add", "success"), lambda *_: None)
        (cover,) = find_covered(registry, ground)
        (car,) = ground.patches.values()
        check_covers(ground, [cover], {"car": (car, Strength.parse("1"))})
        check_covers(ground, [cover], {})
        with pytest.raises(CheckRefusedError, match=r"red car \(erased with car; .* would be left"):
            check_covers(ground, [cover], {"car": (car, Strength.parse("0.5"))})


def test_a_dry_run_writes_nothing(home: Path) -> None:
    first(home)
    size, state = len(entries(home)), digests(home)
    run = rasura(
        "takedown", "--model", "model", "--concept", "pig", "--anchor", "frog", "--templates", "objects.txt",
        "--dry-run", "--json", cwd=home,
    )  # fmt: skip
    assert (run.data["done"], run.data["changes"], run.envelope["changed"]) == (False, True, False)
    assert (len(entries(home)), digests(home)) == (size, state)
    with Registry.open(home) as registry:
        assert len(registry.patches()) == 1


def test_what_stands_in_the_way_is_said_and_logged(home: Path) -> None:
    state = digests(home)
    bare = takedown(home, "--concept", "dog", "--anchor", "cat")
    assert (bare.code, "no retain list is known" in bare.envelope["error"]["message"]) == (1, True)
    assert bare.envelope["error"]["hint"] == (
        "rasura takedown --model model --concept dog --anchor cat --retain FILE --yes"
    )
    assert entries(home)[-1].outcome in {"failed", "refused"}
    assert entries(home)[-1].details["concepts"] == "dog"
    (home / "strict.toml").write_text("[limits]\ncapacity = 0.01\n")
    strict = takedown(
        home, "--concept", "dog", "--anchor", "cat", "--retain", "retain.txt", "--templates", "objects.txt",
        "--policy", "strict.toml",
    )  # fmt: skip
    assert strict.code == 3
    assert "dog cannot be erased beside what @model has" in strict.envelope["error"]["message"]
    assert digests(home) == state
    with Registry.open(home) as registry:
        assert registry.patches() == ()


def test_where_no_room_is_left_the_method_for_many_concepts_is_offered(home: Path) -> None:
    first(home)
    (home / "strict.toml").write_text("[limits]\ncapacity = 0.01\n")
    refused = takedown(home, "--concept", "pig", "--anchor", "frog", "--policy", "strict.toml")
    assert refused.code == 3
    words = shlex.split(refused.envelope["error"]["hint"])
    assert words[:4] == ["rasura", "takedown", "--dry-run", "--model"]
    assert words[5:] == ["--method", "joint", "--concept", "dog", "--concept", "pig"]
    offered = rasura(*words[1:4], "model", *words[5:], "--yes", "--json", cwd=home)  # fmt: skip
    assert (offered.code, offered.data["changes"]) == (0, True)


@pytest.mark.parametrize(
    "words",
    [
        ("takedown", "--concept", "dog"),
        ("takedown", "--model", "model", "--stack", "x", "--concept", "dog"),
        ("takedown", "--model", "model"),
        ("takedown", "--model", "model", "--concept", "dog", "--file", "x.csv"),
        ("takedown", "--model", "model", "--concept", "dog", "--anchor", "a", "--anchor", "b"),
        ("withdraw", "dog"),
    ],
)
def test_a_command_that_says_too_little_or_too_much(home: Path, words: tuple[str, ...]) -> None:
    assert rasura(*words, "--yes", cwd=home).code == 2


def test_nobody_is_there_to_ask(home: Path) -> None:
    run = rasura(
        "takedown", "--model", "model", "--concept", "dog", "--anchor", "cat", "--retain", "retain.txt",
        "--templates", "objects.txt", "--json", cwd=home,
    )  # fmt: skip
    assert run.code == 2
    assert erased(home) == {}


def test_a_withdrawal_of_what_was_never_erased(home: Path) -> None:
    first(home)
    run = rasura("withdraw", "cta", "--model", "model", "--yes", cwd=home)
    assert run.code == 8
    assert "expected one of what is, dog" in run.err
