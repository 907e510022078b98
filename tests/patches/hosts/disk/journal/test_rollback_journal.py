"""kill -9, full disks and damaged journals: the model is always the old one or the new one."""

import hashlib
import json
import os
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.crashes.crashing import NAMES, Attempt, Nursery, State, values
from support.crashes.soaking import KINDS, Kind, Soak
from support.models.tiny import TinySpec, tiny_model

from rasura.patches._io.byte_ranges import restore_range
from rasura.patches.errors import DigestMismatchError, DriftError, HostWriteError
from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.patches.hosts.disk.journal.journal_record import encode_head, read_record
from rasura.patches.types import Digest, ParamName

STATES: tuple[State, ...] = ("pristine", "doubled", "halved")


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[State, dict[ParamName, Digest]]:
    """The digests of each state, from a model that nothing ever happened to."""
    host = CheckpointHost.open(tiny_model(tmp_path_factory.mktemp("expected") / "model", SPEC))
    found: dict[State, dict[ParamName, Digest]] = {}
    for state in STATES:
        host.write(values(host, state))
        found[state] = host.digests(NAMES)
    assert len({tuple(digests.values()) for digests in found.values()}) == 3
    return found


SPEC = TinySpec(dtype="float16", sharded=True)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_model(tmp_path / "a model, 100%", SPEC)


def files(folder: Path) -> dict[str, str]:
    """SHA-256 of every file and the name of every folder below."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in folder.rglob("*")
    }


def put_in_state(folder: Path, state: State) -> None:
    host = CheckpointHost.open(folder)
    if state != "pristine":
        host.write(values(host, state))


def check_is_one_of(folder: Path, states: set[State], expected: dict[State, dict[ParamName, Digest]]) -> State:
    """The model is in one of these states, knows its originals, and leaves nothing behind when it is pristine."""
    host = CheckpointHost.open(folder)
    digests = host.digests(NAMES)
    found = [state for state in states if digests == expected[state]]
    assert found, f"neither of {states}"
    assert host.original_digests(NAMES) == expected["pristine"]
    assert host.kept() == (frozenset() if found[0] == "pristine" else frozenset(NAMES))
    left = sorted(path.name for path in (folder / ".rasura-host").glob("*"))
    assert left == ([] if found[0] == "pristine" else ["host.json", "originals", "staging"])
    assert (folder / ".rasura-host").exists() == (found[0] != "pristine")
    return found[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new"),
    [("pristine", "doubled"), ("doubled", "halved"), ("doubled", "pristine")],
)
def test_killed_at_every_step_it_is_the_old_or_the_new_model(
    old: State, new: State, tmp_path: Path, nursery: Nursery, expected: dict[State, dict[ParamName, Digest]]
) -> None:
    start = tiny_model(tmp_path / "start", SPEC)
    before = files(start)
    put_in_state(start, old)
    seen: list[State] = []
    for stop in range(1000):
        folder = tmp_path / "model"
        shutil.copytree(start, folder)
        outcome = nursery.run(Attempt(str(folder), new, stop=stop))
        assert not outcome.error, outcome
        seen.append(check_is_one_of(folder, {old, new}, expected))
        if seen[-1] == "pristine":
            assert files(folder) == before
        shutil.rmtree(folder)
        if not outcome.killed:
            break
    # Old up to the commit, new ever after.
    assert seen == sorted(seen, key=[old, new].index)
    assert seen.count(old) >= 12
    assert seen.count(new) >= 4


@pytest.mark.slow
@pytest.mark.parametrize("cut", [False, True], ids=["killed", "and the power goes"])
def test_one_of_several_that_are_kept_in_one_file_is_forgotten(
    cut: bool, tmp_path: Path, nursery: Nursery, expected: dict[State, dict[ParamName, Digest]]
) -> None:
    """Its file is written again without it: the others' way back is there at every step."""
    start = tiny_model(tmp_path / "start", TinySpec(dtype="float16"))  # NAMES[0] and NAMES[1] lie in one weight file
    put_in_state(start, "doubled")
    assert len(list((start / ".rasura-host/originals").iterdir())) == 2
    before = {name: expected["doubled"][name] for name in NAMES}
    after = {**before, NAMES[0]: expected["pristine"][NAMES[0]]}
    seen: list[bool] = []
    for step in range(200):
        folder = tmp_path / "model"
        shutil.copytree(start, folder)
        how = {"call": step, "seed": step} if cut else {"stop": step}
        outcome = nursery.run(Attempt(str(folder), "pristine", only=1, **how))
        assert not outcome.error, outcome
        host = CheckpointHost.open(folder)
        assert host.digests(NAMES) in (before, after)
        seen.append(host.digests(NAMES) == after)
        assert host.original_digests(NAMES) == {name: expected["pristine"][name] for name in NAMES}
        assert host.kept() == frozenset(NAMES[1:] if seen[-1] else NAMES)
        host.write(host.originals(NAMES), forget=NAMES)
        assert host.digests(NAMES) == {name: expected["pristine"][name] for name in NAMES}
        assert not (folder / ".rasura-host").exists()
        shutil.rmtree(folder)
        if not outcome.killed:
            break
    assert seen == sorted(seen)
    assert (seen.count(False) >= 8, seen.count(True) >= 4) == (True, True), seen


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_power_goes_in_every_call(kind: Kind, tmp_path: Path, nursery: Nursery) -> None:
    """Over a hundred times each, and with it what the disk had not yet; `make soak` does it ten thousand times."""
    soak = Soak(nursery, tmp_path, kind, seed=20)
    next(kills for kills in soak.rounds() if kills >= 120 and soak.every_call)
    assert soak.torn >= 10


@pytest.mark.slow
def test_killed_while_it_recovers_it_recovers_later(
    tmp_path: Path, nursery: Nursery, expected: dict[State, dict[ParamName, Digest]]
) -> None:
    start = tiny_model(tmp_path / "start", SPEC)
    put_in_state(start, "doubled")
    crashed = tmp_path / "crashed"
    finished = 0
    for first in range(6, 100, 3):
        shutil.copytree(start, crashed)
        if not nursery.run(Attempt(str(crashed), "halved", stop=first)).killed:
            break
        for second in range(100):
            folder = tmp_path / "model"
            shutil.copytree(crashed, folder)
            again = nursery.run(Attempt(str(folder), None, stop=second))
            check_is_one_of(folder, {"doubled", "halved"}, expected)
            shutil.rmtree(folder)
            if not again.killed:
                finished += again.steps > 0
                break
        shutil.rmtree(crashed)
    assert finished >= 4


@pytest.mark.slow
def test_killed_at_random_moments_from_outside(
    model: Path, nursery: Nursery, expected: dict[State, dict[ParamName, Digest]]
) -> None:
    before = files(model)
    lengths = []
    ways: tuple[State, ...] = ("doubled", "halved", "doubled")
    for way in ways:  # the first may wait for what later ones find ready
        began = time.monotonic()
        assert not nursery.run(Attempt(str(model), way)).killed
        lengths.append(time.monotonic() - began)
    length = min(lengths)
    chance = random.Random(20)
    state: State = "doubled"
    killed = 0
    for _ in range(48):
        target = chance.choice([other for other in STATES if other != state])
        outcome = nursery.run(Attempt(str(model), target, delay=chance.uniform(0.2, 1.1) * length))
        killed += outcome.killed
        state = check_is_one_of(model, {state, target}, expected)
    assert killed >= 10
    put_in_state(model, "doubled")
    assert not nursery.run(Attempt(str(model), "pristine")).killed
    assert files(model) == before


@pytest.fixture
def torn(model: Path, nursery: Nursery) -> Path:
    """A doubled model whose halving was killed when half of the first range had been overwritten."""
    put_in_state(model, "doubled")
    for stop in range(100):
        nursery.run(Attempt(str(model), "halved", stop=stop))
        if (model / ".rasura-host/journal").exists() and not _all(model, "doubled"):
            return model
    raise AssertionError("no step tore it")


def _all(folder: Path, state: State) -> bool:
    """Whether every range holds its old bytes, read past the host, which would recover."""
    record, _ = read_record(folder / ".rasura-host/journal")
    return all(_now(folder, c.file, c.start, c.stop) == c.old for c in record.changes)


def _now(folder: Path, file: str, start: int, stop: int) -> str:
    return hashlib.sha256((folder / file).read_bytes()[start:stop]).hexdigest()


def test_a_torn_write_is_put_back_and_said_so(torn: Path, expected: dict[State, dict[ParamName, Digest]]) -> None:
    assert CheckpointHost.open(torn).recovered
    assert not CheckpointHost.open(torn).recovered
    assert check_is_one_of(torn, {"doubled"}, expected) == "doubled"


def test_a_host_that_was_open_before_the_crash_recovers_too(
    model: Path, nursery: Nursery, expected: dict[State, dict[ParamName, Digest]]
) -> None:
    host = CheckpointHost.open(model)
    for stop in range(100):
        nursery.run(Attempt(str(model), "doubled", stop=stop))
        if (model / ".rasura-host/journal").exists() and not _all(model, "pristine"):
            break
    assert host.digests(NAMES) == expected["pristine"]
    assert not (model / ".rasura-host").exists()


@given(st.binary(min_size=1, max_size=200), st.data())
def test_putting_back_writes_only_what_differs(old: bytes, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(old)))
    stop = data.draw(st.integers(start, len(old)))
    torn = old[:start] + data.draw(st.binary(min_size=stop - start, max_size=stop - start)) + old[stop:]
    with tempfile.TemporaryFile() as file:
        file.write(b"before" + torn + b"after")
        file.flush()
        restore_range(file.fileno(), 6, [old[: len(old) // 3], old[len(old) // 3 :]])
        file.seek(0)
        assert file.read() == b"before" + old + b"after"


def test_an_unnamed_journal_is_discarded(model: Path, expected: dict[State, dict[ParamName, Digest]]) -> None:
    put_in_state(model, "doubled")
    (model / ".rasura-host/journal.tmp").write_bytes(b"rasura journal 1 and then the power went")
    assert not CheckpointHost.open(model).recovered
    check_is_one_of(model, {"doubled"}, expected)


def _flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def _cut(path: Path, at: int) -> None:
    path.write_bytes(path.read_bytes()[:at])


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: _flip(path, 3),  # the magic
        lambda path: _flip(path, 17),  # the length
        lambda path: _flip(path, 200),  # the head
        lambda path: _flip(path, len(encode_head(read_record(path)[0])) - 1),  # its sum
        lambda path: _flip(path, len(encode_head(read_record(path)[0])) + 5),  # old bytes that are needed
        lambda path: _cut(path, 0),
        lambda path: _cut(path, 100),
        lambda path: _cut(path, len(encode_head(read_record(path)[0])) + 100),
    ],
    ids=["magic", "length", "head", "sum", "bytes", "empty", "cut head", "cut bytes"],
)
def test_a_damaged_journal_is_refused_and_nothing_is_touched(torn: Path, damage: Callable[[Path], None]) -> None:
    damage(torn / ".rasura-host/journal")
    before = files(torn)
    for _ in range(2):
        with pytest.raises(DigestMismatchError, match=r"damaged; the weights .* may be half written") as caught:
            CheckpointHost.open(torn)
        assert "fresh copy" in caught.value.hint
        assert files(torn) == before


def test_damage_where_no_byte_is_needed_does_no_harm(
    torn: Path, expected: dict[State, dict[ParamName, Digest]]
) -> None:
    journal = torn / ".rasura-host/journal"
    _flip(journal, journal.stat().st_size - 1)  # the last range was not overwritten yet
    assert CheckpointHost.open(torn).recovered
    check_is_one_of(torn, {"doubled"}, expected)


def test_a_model_that_took_the_place_of_a_torn_one_is_not_overwritten(torn: Path) -> None:
    weights = torn / "text_encoder/model.safetensors"
    weights.write_bytes((2).to_bytes(8, "little") + b"{}")
    before = files(torn)
    with pytest.raises(DriftError, match="another file took its place"):
        CheckpointHost.open(torn)
    assert files(torn) == before


@pytest.mark.parametrize("file", ["../victim", "unet/../../victim", "/etc/victim", ".rasura-host/host.json"])
def test_a_strangers_journal_writes_nowhere_else(file: str, torn: Path) -> None:
    journal = torn / ".rasura-host/journal"
    victim = torn.parent / "victim"
    victim.write_bytes(b"x" * 100)
    head = {
        "files": [{"file": file, "size": 100, "data_start": 0, "header": hashlib.sha256(b"").hexdigest()}],
        "changes": [{"file": file, "new": "0" * 64, "old": "0" * 64, "staged": "", "start": 0, "stop": 4}],
        "forget": [],
    }
    text = json.dumps(head, sort_keys=True, separators=(",", ":")).encode()
    prefix = b"rasura journal 1" + len(text).to_bytes(8, "little") + text
    journal.write_bytes(prefix + hashlib.sha256(prefix).digest() + b"evil")
    with pytest.raises(DigestMismatchError, match="damaged"):
        CheckpointHost.open(torn)
    assert victim.read_bytes() == b"x" * 100


@pytest.mark.parametrize("limit", [0, 300, 5_000, 30_000, 60_000, 133_000, 170_000])
def test_a_write_that_fails_half_way_changes_nothing(
    limit: int, model: Path, nursery: Nursery, expected: dict[State, dict[ParamName, Digest]]
) -> None:
    """RLIMIT_FSIZE makes staging, the journal, or a range far inside a weight file fail, depending on the limit."""
    moves: tuple[tuple[State, State], ...] = (("pristine", "doubled"), ("doubled", "halved"))
    for old, new in moves:
        before = files(model)
        outcome = nursery.run(Attempt(str(model), new, file_limit=limit))
        assert outcome.error == "HostWriteError", outcome
        assert "nothing was changed" in outcome.message
        assert "space" in outcome.hint
        assert files(model) == before
        check_is_one_of(model, {old}, expected)
        put_in_state(model, new)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "none", disk], capture_output=True, check=False)
    if made.returncode:
        pytest.skip(f"needs leave to mount: {made.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk_changes_nothing(small_disk: Path, expected: dict[State, dict[ParamName, Digest]]) -> None:
    model = tiny_model(small_disk / "model", SPEC)
    free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_bsize
    (small_disk / "ballast").write_bytes(b"\0" * (free - 20_000))  # leaves room for one original, not for three
    before = files(model)
    host = CheckpointHost.open(model)
    with pytest.raises(HostWriteError, match=r"No space left .*; nothing was changed") as caught:
        host.write(values(host, "doubled"))
    assert "free some space" in caught.value.hint
    assert files(model) == before
    (small_disk / "ballast").unlink()
    host.write(values(host, "doubled"))
    check_is_one_of(model, {"doubled"}, expected)
