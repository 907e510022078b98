"""Hundreds of kills, or `make soak SOAK=10000` of them: whatever is left, the next command finds the old or new model.

    for round in Soak(nursery, folder, kind, seed).rounds(): …

One model lives through all of it. Each round moves it from the state that it is in to another one, in a process that
dies in one of the calls that change files; each second time what the disk had not yet is lost, and each third time the
process that puts things right dies as well. The first rounds take every call of three moves in turn (a first patch,
another set, the last one out), the later ones any call of any move.

After that whole commands are killed, a tenth as often (`support.crashes.command_soaking`).
"""

import argparse
import hashlib
import itertools
import random
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args

from support.crashes.command_soaking import COMMANDS, CommandSoak
from support.crashes.crashing import NAMES, Attempt, Nursery, Outcome, State, values
from support.models.single_files import single_file
from support.models.tiny import TinySpec, tiny_model

from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.patches.types import Digest, ParamName

__all__ = ["KINDS", "Kind", "Soak"]

Kind = Literal["folder", "sharded", "file"]
KINDS: tuple[Kind, ...] = get_args(Kind)
STATES: tuple[State, ...] = get_args(State)
MARK = "<!-- table: soak -->"
"""Before the table of commands in a page."""
MOVES: tuple[tuple[State, State], ...] = (("pristine", "doubled"), ("doubled", "halved"), ("doubled", "pristine"))


class Soak:
    """One model and all that it goes through."""

    def __init__(self, nursery: Nursery, place: Path, kind: Kind, seed: int) -> None:
        self.kills = 0
        self.every_call = False
        """Whether the first rounds are over."""
        self.torn = 0
        """Kills after which half a write had to be put right."""
        self._nursery = nursery
        self._chance = random.Random(f"{kind} {seed}")
        spec = TinySpec(dtype="float16", sharded=kind == "sharded")
        self._model = tiny_model(place / "model", spec)
        if kind == "file":
            (place / "checkpoints").mkdir()
            self._model = single_file(self._model, place / "checkpoints/model.safetensors")
        self._place = place
        self._files = self._fingerprints()
        self._digests = {state: self._digests_of(state) for state in STATES}
        self._state: State = "pristine"

    def rounds(self) -> Iterator[int]:
        """Live on; what comes is how often a process was killed so far. Raises AssertionError where a promise broke."""
        for old, new in MOVES:
            for call in itertools.count():
                self._go(old)
                outcome = self._round(new, call, self._chance.randrange(2**32) if call % 2 else None)
                yield self.kills
                if not outcome.killed:
                    break
        self.every_call = True
        while True:
            new = self._chance.choice([state for state in STATES if state != self._state])
            seed = self._chance.randrange(2**32) if self._chance.random() < 0.5 else None
            self._round(new, self._chance.randint(0, 60), seed)
            yield self.kills

    def _round(self, new: State, call: int, seed: int | None) -> Outcome:
        old = self._state
        outcome = self._attempt(new, call, seed)
        while outcome.killed and self._chance.random() < 0.3:
            if not self._attempt(None, self._chance.randint(0, 12), seed).killed:
                break
        self._state = self._found({new} if not outcome.killed else {old, new}, f"{old} to {new}, call {call}, {seed}")
        return outcome

    def _attempt(self, state: State | None, call: int, seed: int | None) -> Outcome:
        outcome = self._nursery.run(Attempt(str(self._model), state, call=call, seed=seed))
        assert not outcome.error, outcome
        self.kills += outcome.killed
        return outcome

    def _found(self, states: set[State], what: str) -> State:
        """The state that the next command finds; it is one of these."""
        host = CheckpointHost.open(self._model)
        self.torn += host.recovered
        digests = host.digests(NAMES)
        found = [state for state in states if digests == self._digests[state]]
        assert found, f"{what}: neither of {states}"
        assert host.original_digests(NAMES) == self._digests["pristine"], what
        assert host.kept() == (frozenset() if found[0] == "pristine" else frozenset(NAMES)), what
        if found[0] == "pristine":
            assert self._fingerprints() == self._files, what
        return found[0]

    def _go(self, state: State) -> None:
        """Undisturbed, and then the power goes: what was done stays done."""
        if self._state != state:
            assert self._nursery.run(Attempt(str(self._model), state, call=-1, seed=self._chance.randrange(99))).killed
            self._state = self._found({state}, f"to {state}, undisturbed")

    def _digests_of(self, state: State) -> dict[ParamName, Digest]:
        host = CheckpointHost.open(self._model)
        original = host.originals(NAMES)
        host.write(values(host, state))
        digests = host.digests(NAMES)
        host.write(original, forget=NAMES)
        return digests

    def _fingerprints(self) -> dict[str, str]:
        return {
            str(path.relative_to(self._place)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
            for path in self._place.rglob("*")
        }


def main() -> None:
    """`python tests/support/crashes/soaking.py [--kills N] [--commands N] [--seed S] [--only NAME …] [--write PAGE]`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10_000)
    parser.add_argument("--commands", type=int, help="kills of commands [default: a tenth of the others]")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--only", nargs="+", choices=COMMANDS, default=COMMANDS, help="commands [default: all]")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the table of commands into a page")
    chosen = parser.parse_args()
    say = sys.stdout.write
    say(f"{chosen.kills} kills; to see them again: --seed {chosen.seed}\n")
    begun, done = time.monotonic(), 0
    with tempfile.TemporaryDirectory() as place, Nursery.started() as nursery:
        for kind in KINDS if chosen.kills else ():
            (Path(place) / kind).mkdir()
            soak = Soak(nursery, Path(place) / kind, kind, chosen.seed)
            for kills in soak.rounds():
                if kills % 100 == 0 or kills >= chosen.kills / len(KINDS):
                    say(f"\r{kind:8} {done + kills:6} kills, {time.monotonic() - begun:6.0f} s ")
                    sys.stdout.flush()
                if kills >= chosen.kills / len(KINDS):
                    break
            done += soak.kills
            say(f" {soak.torn} of them in the middle of a write: each time the old or the new model\n")
    if kills := chosen.kills // 10 if chosen.commands is None else chosen.commands:
        rows = _kill_commands(kills, chosen.seed, tuple(chosen.only))
        if chosen.write is not None:
            table = "\n".join(rows)
            found = re.compile(re.escape(MARK) + r"\n(\n(\|.*\n)+)?")
            page, count = found.subn(lambda _: f"{MARK}\n\n{table}\n", chosen.write.read_text(encoding="utf-8"))
            assert count == 1, f"{chosen.write} has no {MARK}"
            chosen.write.write_text(page, encoding="utf-8")


def _kill_commands(kills: int, seed: int, names: tuple[str, ...]) -> list[str]:
    each, rows = -(-kills // len(names)), ["| command | killed | seconds |", "|---|---:|---:|"]
    sys.stdout.write("\n" + "\n".join(rows) + "\n")
    with tempfile.TemporaryDirectory() as place, CommandSoak.begun(Path(place), seed) as soak:
        for name in names:
            begun = time.monotonic()
            rows.append(f"| `{name}` | {soak.kill(name, each)} | {time.monotonic() - begun:.0f} |")
            sys.stdout.write(f"{rows[-1]}\n")
            sys.stdout.flush()
    return rows


if __name__ == "__main__":
    main()
