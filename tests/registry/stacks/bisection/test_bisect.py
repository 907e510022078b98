# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""Bisecting a stack: whichever patch is to blame is found, and whatever happens on the way can be taken back."""

import itertools
import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.commandline import rasura
from support.registries.workshop import ALICE, Mortal, Workshop, start, workshop

from rasura.patches._io import canonical_json
from rasura.patches.algebra.stack import Stack
from rasura.patches.algebra.strength import ONE, Strength
from rasura.patches.checks.policy import Policy
from rasura.patches.errors import ConflictError, DriftError, FormatError, InputError, NotFoundError
from rasura.patches.types import Digest, PatchId
from rasura.registry.apply import operations
from rasura.registry.apply.goal import Goal
from rasura.registry.apply.hosts import host_state
from rasura.registry.log.verify import verify_log
from rasura.registry.registry import Registry
from rasura.registry.stacks import edit
from rasura.registry.stacks.bisection import bisect, bisect_state
from rasura.registry.stacks.bisection.bisect import Step
from rasura.registry.stacks.bisection.bisect_state import Bisection
from rasura.registry.stacks.policy_file import put_in_force

MODEL = ("--model", "the model")


@pytest.fixture
def registry(workshop: Workshop) -> Iterator[Registry]:
    with workshop.open() as opened:
        edit.create(opened, "brand", dict.fromkeys(workshop.all, ONE), ALICE)
        yield opened


def applied(registry: Registry, workshop: Workshop) -> set[PatchId]:
    return set(host_state.present_set(registry, workshop.host()))


def begin(registry: Registry, workshop: Workshop) -> Step:
    return bisect.start(registry, "brand", workshop.model, ALICE)


@pytest.mark.parametrize("at", [0, 1, 2])
def test_whichever_is_to_blame_is_found_and_the_model_is_as_before(
    workshop: Workshop, registry: Registry, at: int
) -> None:
    operations.apply(registry, workshop.host(), [workshop.photo], ALICE, strength=Strength(-8))
    before = workshop.digests()
    culprit = workshop.all[at]
    step = begin(registry, workshop)
    assert applied(registry, workshop) == set(step.state.subset) != set()
    steps = 0
    while not step.state.over:
        judgement = "bad" if culprit in applied(registry, workshop) else "good"
        step = bisect.judge(registry, judgement, ALICE)  # type: ignore[arg-type]
        steps += 1
    assert step.state.suspects == (culprit,)
    assert steps <= math.ceil(math.log2(3))
    assert workshop.digests() == before
    with pytest.raises(ConflictError, match="is over"):
        bisect.judge(registry, "good", ALICE)
    bisect.reset(registry, ALICE)
    with pytest.raises(NotFoundError, match="no bisection"):
        bisect.reset(registry, ALICE)
    verify_log(registry)


def test_a_pair_to_blame_is_the_later_of_the_two(workshop: Workshop, registry: Registry) -> None:
    step = begin(registry, workshop)
    order = [patch_id for patch_id, _ in step.state.order]
    pair = {order[0], order[2]}
    while not step.state.over:
        bad = pair <= applied(registry, workshop)
        step = bisect.judge(registry, "bad" if bad else "good", ALICE)
    assert (step.state.suspects, step.state.good) == ((order[2],), 2)


def test_one_patch_is_found_without_a_step(workshop: Workshop, registry: Registry) -> None:
    edit.create(registry, "one", {workshop.dog: ONE}, ALICE)
    before = workshop.digests()
    step = bisect.start(registry, "one", workshop.model, ALICE)
    assert (step.state.over, step.state.suspects) == (True, (workshop.dog,))
    assert workshop.digests() == before
    assert begin(registry, workshop).state.testing is not None  # what is over is no hindrance


def test_skipping_leaves_several_suspects(workshop: Workshop, registry: Registry) -> None:
    step = begin(registry, workshop)
    for _ in range(2):
        assert not step.state.over
        step = bisect.judge(registry, "skip", ALICE)
    assert step.state.over
    assert len(step.state.suspects) == 3
    assert applied(registry, workshop) == set()


def test_subsets_that_the_composer_refuses_are_skipped(workshop: Workshop, registry: Registry) -> None:
    put_in_force(registry, Policy(pair=1e-12), ALICE)  # of two, one disturbs the other; one alone passes
    step = begin(registry, workshop)
    while not step.state.over:
        step = bisect.judge(registry, "good", ALICE)
    assert step.state.skipped == {2}
    assert len(step.state.suspects) == 2


# --- what may not be -------------------------------------------------------------------------------------------------


def test_there_is_one_bisection_at_a_time(workshop: Workshop, registry: Registry) -> None:
    with pytest.raises(NotFoundError) as missing:
        bisect.judge(registry, "good", ALICE)
    assert missing.value.hint == "rasura patch bisect start STACK --model MODEL"
    begin(registry, workshop)
    with workshop.unchanged(), pytest.raises(ConflictError, match="is going on") as caught:
        begin(registry, workshop)
    assert caught.value.hint == "rasura patch bisect reset"


def test_a_stack_without_patches_or_without_a_name(workshop: Workshop, registry: Registry) -> None:
    edit.create(registry, "empty", {}, ALICE)
    for name, error in (("empty", InputError), ("nobody", NotFoundError)):
        with workshop.unchanged(), pytest.raises(error):
            bisect.start(registry, name, workshop.model, ALICE)
    with workshop.unchanged(), pytest.raises(NotFoundError):
        bisect.start(registry, "brand", workshop.folder / "nowhere", ALICE)
    with pytest.raises(NotFoundError):
        bisect_state.load_bisection(registry)


@pytest.mark.parametrize("how", ["changed", "deleted"])
def test_a_stack_that_is_no_longer_the_same(workshop: Workshop, registry: Registry, how: str) -> None:
    before = workshop.digests()
    begin(registry, workshop)
    if how == "changed":
        edit.remove(registry, "brand", [workshop.dog], ALICE)
    else:
        edit.delete(registry, "brand", ALICE)
    with workshop.unchanged(), pytest.raises(ConflictError, match="not what it was"):
        bisect.judge(registry, "good", ALICE)
    bisect.reset(registry, ALICE)
    assert workshop.digests() == before


def test_a_model_that_somebody_moved_or_changed(workshop: Workshop, registry: Registry) -> None:
    begin(registry, workshop)
    operations.switch(registry, workshop.host(), Goal("x", None, dict.fromkeys(workshop.all, ONE)), ALICE)
    with workshop.unchanged(), pytest.raises(ConflictError, match="other patches than the bisection gave it"):
        bisect.judge(registry, "good", ALICE)
    host = workshop.host()
    name = host_state.list_touched(registry, [workshop.dog])[0]
    host.write({name: host.read([name])[name] * 2})
    for work in (lambda: bisect.judge(registry, "good", ALICE), lambda: bisect.reset(registry, ALICE)):
        with pytest.raises(DriftError):
            work()
    operations.revert(registry, workshop.host(), None, ALICE, force=True)
    bisect.reset(registry, ALICE)
    assert applied(registry, workshop) == set()


def test_a_model_that_is_gone_is_left(workshop: Workshop, registry: Registry) -> None:
    begin(registry, workshop)
    workshop.model.rename(workshop.folder / "elsewhere")
    with pytest.raises(NotFoundError) as caught:
        bisect.reset(registry, ALICE)
    assert caught.value.hint == "rasura patch bisect reset --leave"
    bisect.reset(registry, ALICE, leave=True)
    with pytest.raises(NotFoundError, match="no bisection"):
        bisect_state.load_bisection(registry)


def test_the_order_respects_what_patches_require(workshop: Workshop, registry: Registry, monkeypatch: Any) -> None:
    """A stack whose oldest patch requires its newest, which only a clock that was set back can make."""
    needs = {workshop.dog: (workshop.photo,), workshop.photo: (workshop.van_gogh,)}
    real = bisect.manifest_of  # type: ignore[attr-defined]

    monkeypatch.setattr(bisect, "manifest_of", lambda r, p: replace(real(r, p), requires=needs.get(p, ())))
    order = [p for p, _ in bisect._ordered(registry, registry.stack("brand"))]
    assert order == [workshop.van_gogh, workshop.photo, workshop.dog]


# --- interrupted -----------------------------------------------------------------------------------------------------


def test_interrupted_in_a_step_it_can_only_be_reset(workshop: Workshop, registry: Registry) -> None:
    operations.apply(registry, workshop.host(), [workshop.photo], ALICE)
    before = workshop.digests()
    with Mortal.open(workshop.folder) as mortal, pytest.raises(KeyboardInterrupt):
        begin(mortal, workshop)
    for judgement in ("good", "bad", "skip"):
        with workshop.unchanged(), pytest.raises(ConflictError, match="interrupted in the middle of a step"):
            bisect.judge(registry, judgement, ALICE)
    bisect.reset(registry, ALICE)
    assert workshop.digests() == before
    verify_log(registry)


def test_interrupted_on_the_way_back_it_can_be_reset(workshop: Workshop, registry: Registry) -> None:
    before = workshop.digests()
    step = begin(registry, workshop)
    last = bisect.judge(registry, "good", ALICE) if step.state.testing == 1 else step
    assert last.state.testing == 2
    with Mortal.open(workshop.folder) as mortal, pytest.raises(KeyboardInterrupt):
        bisect.judge(mortal, "good", ALICE)
    with pytest.raises(ConflictError, match="interrupted"):
        bisect.judge(registry, "good", ALICE)
    bisect.reset(registry, ALICE)
    assert workshop.digests() == before
    verify_log(registry)


def test_a_killed_run_can_be_reset(workshop: Workshop, registry: Registry) -> None:
    before = workshop.digests()
    begin(registry, workshop)
    typed = ["-m", "rasura", "patch", "bisect", "run", "--", "sh", "-c", "touch here; exec sleep 9 >/dev/null 2>&1"]
    process = start(typed, workshop.folder)
    while process.poll() is None and not (workshop.folder / "here").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert rasura("patch", "bisect", "reset", cwd=workshop.folder).code == 0
    assert workshop.digests() == before


# --- commands that judge ---------------------------------------------------------------------------------------------


def test_a_command_judges_to_the_end(workshop: Workshop, registry: Registry) -> None:
    culprit = workshop.van_gogh
    begin(registry, workshop)
    script = f"\"$PYTHON\" -m rasura patch status --model 'the model' --json | grep -q {culprit} && exit 3; exit 0"
    variables = {"PYTHON": sys.executable, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = rasura("patch", "bisect", "run", "--json", "--", "sh", "-c", script, cwd=workshop.folder, variables=variables)
    assert run.data["suspects"] == [culprit]
    assert run.data["finished"] is True
    assert applied(registry, workshop) == set()


@pytest.mark.parametrize(("code", "judged"), [(0, "good"), (125, "skip"), (1, "bad"), (124, "bad"), (127, "bad")])
def test_exit_codes(code: int, judged: str) -> None:
    assert bisect._judgement(code) == judged


@pytest.mark.parametrize("code", [128, 255, -9, -2])
def test_any_other_end_of_a_command_stops_and_can_go_on(workshop: Workshop, registry: Registry, code: int) -> None:
    begin(registry, workshop)
    with workshop.unchanged(), pytest.raises(InputError, match="expected an exit code from 0 to 127"):
        bisect.run(registry, lambda: code, ALICE, lambda _: None)
    seen: list[Step] = []
    step = bisect.run(registry, lambda: 1, ALICE, seen.append)
    assert (step.state.over, seen[-1]) == (True, step)


def test_a_command_that_cannot_be_run_is_not_bad(workshop: Workshop, registry: Registry) -> None:
    begin(registry, workshop)
    with workshop.unchanged():
        run = rasura("patch", "bisect", "run", "./no-such-program", "--json", cwd=workshop.folder)
    assert (run.code, run.envelope["error"]["code"]) == (1, "input")


def test_people_are_told_what_was_found(workshop: Workshop, registry: Registry) -> None:
    told = rasura("patch", "bisect", "start", "brand", *MODEL, cwd=workshop.folder)
    assert "the model has the first 1 of 3 patches" in told.out
    assert "about 2 steps left" in told.out
    assert "the first 2 of 3" in rasura("patch", "bisect", "good", cwd=workshop.folder).out
    end = rasura("patch", "bisect", "good", cwd=workshop.folder)
    assert end.code == 0
    assert end.out.startswith("first bad patch: ")
    assert "the 2 before it are good together; that it is bad by itself was not tried" in end.out
    again = rasura("patch", "bisect", "bad", cwd=workshop.folder)
    assert (again.code, again.err.splitlines()[-1]) == (7, "hint: rasura patch bisect reset")


# --- halving and the file --------------------------------------------------------------------------------------------


def state(count: int, good: int = 0, bad: int | None = None, **rest: Any) -> Bisection:
    order = tuple((PatchId(f"{i:064x}"), ONE) for i in range(count))
    return Bisection("brand", Digest("b" * 64), "/m", Stack(), order, good, bad or count, **rest)


@given(st.integers(1, 300), st.data())
def test_halving_finds_any_turn_in_log_steps(count: int, data: st.DataObject) -> None:
    turn = data.draw(st.integers(1, count))  # the first so many are bad

    found, steps = state(count), 0
    while (tried := found.next()) is not None:
        found = replace(found, bad=tried) if tried >= turn else replace(found, good=tried)
        steps += 1
    assert found.suspects == (found.order[turn - 1][0],)
    assert steps <= math.ceil(math.log2(count)) if count > 1 else steps == 0


@given(st.integers(1, 40), st.sets(st.integers(1, 40)), st.data())
def test_halving_with_skips_ends_and_keeps_the_culprit(count: int, skips: set[int], data: st.DataObject) -> None:
    turn = data.draw(st.integers(1, count))

    found = state(count)
    for _ in range(count + 1):
        tried = found.next()
        if tried is None:
            break
        if tried in skips:
            found = replace(found, skipped=found.skipped | {tried})
        else:
            found = replace(found, bad=tried) if tried >= turn else replace(found, good=tried)
    assert found.next() is None
    assert found.order[turn - 1][0] in found.suspects


@given(st.integers(2, 9), st.data())
def test_the_file_reads_back(count: int, data: st.DataObject) -> None:
    good = data.draw(st.integers(0, count - 2))
    bad = data.draw(st.integers(good + 2, count))
    testing = data.draw(st.none() | st.integers(good + 1, bad - 1))
    skipped = data.draw(st.frozensets(st.integers(1, count)))
    written = state(count, good, bad, testing=testing, skipped=skipped, reached=data.draw(st.booleans()))
    assert Bisection.from_bytes(written.to_bytes()) == written


GOOD = state(4, 1, 4, testing=2, skipped=frozenset({3})).to_bytes()


def forged(change: Callable[[Any], object]) -> bytes:
    document = json.loads(GOOD)
    change(document)
    return canonical_json.dumps(document)


BAD = {
    "empty": b"",
    "no JSON": b"half",
    "a later format": forged(lambda d: d.update(format="rasura-bisect/2")),
    "more": forged(lambda d: d.update(x=1)),
    "no order": forged(lambda d: d.update(order=[])),
    "a patch twice": forged(lambda d: d["order"].append(d["order"][0])),
    "good beyond bad": forged(lambda d: d.update(good=4)),
    "bad beyond the end": forged(lambda d: d.update(bad=5)),
    "tried outside": forged(lambda d: d.update(testing=4)),
    "strength 0": forged(lambda d: d["order"][0].update(strength=0)),
    "before by name": forged(lambda d: d["before"].update(dog=16)),
    "skipped twice": forged(lambda d: d.update(skipped=[3, 3])),
    "an empty location": forged(lambda d: d.update(location="")),
}


@pytest.mark.parametrize("name", BAD)
def test_another_file_is_no_bisection(name: str) -> None:
    with pytest.raises(FormatError):
        Bisection.from_bytes(BAD[name])


def test_a_damaged_file_is_a_typed_error(workshop: Workshop, registry: Registry) -> None:
    (workshop.folder / ".rasura" / "bisect.json").write_bytes(GOOD[:-1])
    for arguments in (("good",), ("reset",), ("start", "brand", *MODEL)):
        run = rasura("patch", "bisect", *arguments, "--json", cwd=workshop.folder)
        assert (run.code, run.envelope["error"]["code"]) == (4, "format")
