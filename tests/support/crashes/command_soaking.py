"""Commands that are killed again and again, one registry living through it all; `make soak` does it for long.

    with CommandSoak.begun(folder, seed) as soak:
        soak.kill("apply", 10)

A command and the one that takes it back are killed in turns, in a call that changes files or after a random time. After
each kill the next look finds the old model or the new, a log that is whole, and an identity that can be used; after all
of them nothing is left open. Nothing is put right in between but by the commands themselves.
"""

import random
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from support.crashes.commands import CommandNursery, Ended, Typed
from support.hubserver import TOKEN, HubServer
from support.registries.workshop import Workshop, copy_of, digests, workshop_template

from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.registry.log.verify import verify_log
from rasura.registry.registry import Registry

__all__ = ["COMMANDS", "OLD_SCHEMA", "CommandSoak"]

COMMANDS: Final = (
    "erase", "apply", "apply --out", "takedown", "revert", "switch", "key new", "push", "pull", "init --upgrade",
)  # fmt: skip
OLD_SCHEMA: Final = (
    "DROP TABLE case_item; DROP TABLE case_record; DROP TABLE patch_signature; DROP TABLE stack_patch; DROP TABLE stack;"
    "DROP TABLE policy; DROP TABLE evaluation_patch; DROP TABLE evaluation; UPDATE alembic_version SET version_num = '0001'"
)
"""What makes the database that an older program made of one without stacks."""
_FINE: Final = frozenset({0, 7})  # done, or it was done already


@dataclass(frozen=True, slots=True)
class _Measured:
    """A command that ran to its end."""

    calls: int
    seconds: float


class CommandSoak:
    """A registry, its model, and all that they go through."""

    def __init__(self, nursery: CommandNursery, shop: Workshop, hub: HubServer, seed: int) -> None:
        self.kills = dict.fromkeys(COMMANDS, 0)
        self._nursery = nursery
        self._shop = shop
        self._hub = hub
        self._chance = random.Random(seed)
        self._count = 0
        (shop.folder / "keep.txt").write_text("painting\ncat\na\nthe\n")
        self._registry = shop.folder / ".rasura"
        self._bare = shutil.copytree(self._registry, shop.folder.parent / "bare")  # an older schema has no stacks
        for name, patch in (("one", shop.dog), ("other", shop.van_gogh)):
            self._done("stack", "create", name, patch)
        self._pristine = shutil.copytree(self._registry, shop.folder.parent / "registry")

    @classmethod
    @contextmanager
    def begun(cls, folder: Path, seed: int) -> Iterator[Self]:
        """One in a folder, with a Hub of its own."""
        (folder / "hub").mkdir()
        shop = copy_of(workshop_template(), folder / "work")
        variables = {"HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0", "HF_HOME": str(folder / "hf")}
        with HubServer(folder / "hub", xet=False) as hub, CommandNursery.started(**variables) as nursery:
            yield cls(nursery, shop, hub, seed)

    def kill(self, name: str, kills: int) -> int:
        """Kill one of `COMMANDS` so often; gives how often it was. Raises AssertionError where a promise broke."""
        model = ("--model", "the model")
        match name:
            case "apply" | "revert":  # each is the way back of the other; the kills of one count for it alone
                self._motions(
                    name,
                    ("patch", "apply", self._shop.dog, *model),
                    ("patch", "revert", "--all", "--yes", *model),
                    kills,
                )
            case "switch":
                self._motions(
                    name,
                    ("patch", "switch", "one", "--yes", *model),
                    ("patch", "switch", "other", "--yes", *model),
                    kills,
                )
            case "takedown":
                asked = ("--concept", "of", "--anchor", "cat", "--retain", "keep.txt", "--yes", *model)
                self._motions(name, ("takedown", *asked), ("withdraw", "of", "--yes", *model), kills)
            case "apply --out":
                self._copies(kills)
            case _:
                self._once(name, kills)
        return self.kills[name]

    def _motions(self, name: str, there: tuple[str, ...], back: tuple[str, ...], kills: int) -> None:
        self._done(*there)
        new = self._content()
        self._done(*back)
        old = self._content()
        measured = {there: self._measure(there), back: self._measure(back)}
        state, wanted = old, name if name != "revert" else ""
        while self.kills[name] < kills:
            command = there if state == old else back
            own = wanted == name or command is back
            ended = self._kill(command, measured[command])
            self.kills[name] += ended.killed and own
            state = self._look({tuple(old.items()): old, tuple(new.items()): new}, f"{name}: {command}")
        if state == new:
            self._done(*back)
        self._settled(name)

    def _copies(self, kills: int) -> None:
        command = ("patch", "apply", self._shop.dog, "--model", "the model", "--out", "copy")
        out = self._shop.folder / "copy"
        self._done(*command)
        new = _weights(out)
        shutil.rmtree(out)
        measured, old = self._measure(command, lambda: shutil.rmtree(out)), self._content()
        while self.kills["apply --out"] < kills:
            self.kills["apply --out"] += self._kill(command, measured).killed
            if out.exists():
                assert _weights(out) == new, "apply --out: neither nothing nor the patched model"
                shutil.rmtree(out)
            self._look({tuple(old.items()): old}, "apply --out")
        self._settled("apply --out")

    def _once(self, name: str, kills: int) -> None:
        """Commands that do a thing once: another thing each time, and tried again until it is done."""
        old = self._content()
        seen: dict[str, _Measured] = {}
        while self.kills[name] < kills:
            self._count += 1
            command = self._prepare(name)
            if not seen:
                seen[name] = self._measure(command, lambda: None)
                continue
            for _ in range(6):
                ended = self._kill(command, seen[name])
                self.kills[name] += ended.killed
                self._look({tuple(old.items()): old}, f"{name}: {command}", old_schema=name == "init --upgrade")
                if not ended.killed:
                    break
            self._done(*command)
        self._settled(name)

    def _prepare(self, name: str) -> tuple[str, ...]:
        at, shop = str(self._count), self._shop
        remote = ("--endpoint", self._hub.url)
        match name:
            case "erase":
                self._restore()
                asked = ("--concept", "of", "--anchor", "cat", "--retain", "keep.txt", "--licence", f"L{at}")
                return ("erase", "--base", "tiny", *asked)
            case "key new":
                return ("key", "new", f"key{at}")
            case "push":
                return ("push", shop.photo, f"acme/killed-{at}", "--license", "mit", *remote)
            case "pull":
                source = f"acme/pulled-{at}"
                self._restore()
                self._done("push", shop.photo, source, "--license", "mit", *remote)
                self._lose_patch()
                return ("pull", source, *remote)
            case "init --upgrade":
                self._restore(self._bare)
                with closing(sqlite3.connect(self._registry / "registry.db")) as connection:
                    connection.executescript(OLD_SCHEMA)
                return ("init", "--upgrade")
        raise AssertionError(name)

    def _restore(self, kept: Path | None = None) -> None:
        """The registry as it was at first: what is killed next does its thing for the first time."""
        shutil.rmtree(self._registry)
        shutil.copytree(kept or self._pristine, self._registry)

    def _lose_patch(self) -> None:
        """Another registry, which trusts the key and has none of the patches."""
        pem = self._shop.folder / "alice.pub"
        if not pem.exists():
            self._done("key", "export", "alice", "-o", str(pem))
        shutil.rmtree(self._registry)
        self._done("init")
        self._done("key", "trust", str(pem), "--name", "alice")

    def _kill(self, command: tuple[str, ...], measured: _Measured) -> Ended:
        if self._chance.random() < 0.5:
            typed = Typed((*command, "--json"), str(self._shop.folder), call=self._chance.randrange(measured.calls))
        else:
            delay = self._chance.uniform(0.3, 1.0) * measured.seconds
            typed = Typed((*command, "--json"), str(self._shop.folder), delay=delay)
        ended = self._nursery.run(typed)
        assert ended.killed or ended.code in _FINE, (command, ended)
        return ended

    def _look(
        self, states: dict[tuple[tuple[str, str], ...], dict[str, str]], what: str, *, old_schema: bool = False
    ) -> dict[str, str]:
        """The state that the next look finds; it is one of these, and the log is whole."""
        CheckpointHost.open(self._shop.model)  # which puts the model right
        found = states.get(tuple(self._content().items()))
        assert found is not None, f"{what}: neither the old model nor the new"
        if not old_schema and (self._registry / "registry.db").exists():
            with Registry.open(self._shop.folder) as registry:
                verify_log(registry)
        return found

    def _settled(self, what: str) -> None:
        self._done("doctor")
        with Registry.open(self._shop.folder) as registry:
            assert registry.unfinished() == (), what
            verify_log(registry)
            named = {key.name for key in registry.keys() if key.owned}
        private = {path.name.removesuffix(".signer.pem") for path in (self._registry / "keys").glob("*.signer.pem")}
        assert private == named, what

    def _measure(self, command: tuple[str, ...], clear: Callable[[], object] = lambda: None) -> _Measured:
        begun = time.monotonic()
        ended = self._done(*command)
        clear()
        return _Measured(max(1, ended.calls), time.monotonic() - begun)

    def _done(self, *command: str) -> Ended:
        ended = self._nursery.run(Typed((*command, "--json"), str(self._shop.folder)))
        assert not ended.killed, command
        assert ended.code in _FINE, (command, ended.out, ended.err)
        return ended

    def _content(self) -> dict[str, str]:
        return _weights(self._shop.model)


def _weights(folder: Path) -> dict[str, str]:
    return {
        name: digest
        for name, digest in digests(folder).items()
        if name.endswith(".safetensors") and "rasura" not in name
    }
