"""A registry with a key, a base and signed patches on a tiny model: built once in a process, copied for each test.

    from support.registries.workshop import Workshop, workshop  # noqa: F401

    def test_something(workshop: Workshop) -> None:
        with workshop.open() as registry:
            deploy.apply(registry, workshop.host(), [workshop.dog], ALICE)

The patches are of three concepts that were erased together, and a rival that erases one of them in another way, so that
the two may not be applied together. The folder's path is full of characters that mean something somewhere.
"""

import atexit
import functools
import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.models.tiny import TinySpec, tiny_model

from rasura.patches.algebra.rank_rule import RankRule
from rasura.patches.erasers.request import EraseRequest
from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.patches.prompts.concept_prompts import Target
from rasura.patches.prompts.retain_set import RetainSet
from rasura.patches.types import PatchId
from rasura.registry._storage.records.records import Draft, EntryRecord, HostRecord
from rasura.registry.apply.receipt import Actor
from rasura.registry.erase.base_models import add_base
from rasura.registry.erase.erase import erase
from rasura.registry.registry import Registry
from rasura.registry.trust.keys.key_files import make_key

ALICE = Actor("alice", "ticket 7")
SPEC = TinySpec(dtype="float16", size="wide")
"""Of 4 cross-attentions: each layer of a model costs every test that writes, hashes, loads or compiles it."""
AWKWARD = "ä b%20c %s 猫"
_LOG = frozenset({"entry", "entry_patch", "checkpoint"})


@dataclass(frozen=True, slots=True)
class Workshop:
    """A folder with a registry and the model that its patches are for."""

    folder: Path
    dog: PatchId
    van_gogh: PatchId
    photo: PatchId
    rival: PatchId
    """Erases the dog, too."""

    @property
    def model(self) -> Path:
        return self.folder / "the model"

    @property
    def all(self) -> tuple[PatchId, PatchId, PatchId]:
        return self.dog, self.van_gogh, self.photo

    def open(self) -> Registry:
        return Registry.open(self.folder)

    def host(self) -> CheckpointHost:
        return CheckpointHost.open(self.model)

    def tables(self) -> dict[str, list[Any]]:
        """Every row of every table but those of the log."""
        self.open().close()  # which mends what a process left half written
        uri = (self.folder / ".rasura" / "registry.db").as_uri() + "?mode=ro"
        with closing(sqlite3.connect(uri, uri=True)) as connection:
            names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            wanted = sorted(set(names) - _LOG)
            return {name: sorted(map(repr, connection.execute(f'SELECT * FROM "{name}"'))) for name in wanted}

    def entries(self) -> tuple[EntryRecord, ...]:
        with self.open() as registry:
            return registry.entries(newest=False)

    @contextmanager
    def unchanged(self, *entries: str) -> Iterator[None]:
        """Neither model nor tables change inside; the log gets entries of these outcomes and errors, in this order."""
        model, tables, blobs, size = self.digests(), self.tables(), self._blobs(), len(self.entries())
        yield
        assert self.digests() == model
        assert self.tables() == tables
        assert self._blobs() == blobs
        found = [f"{entry.outcome} {entry.error or ''}".strip() for entry in self.entries()[size:]]
        assert found == list(entries)

    def digests(self) -> dict[str, str]:
        return digests(self.model)

    def _blobs(self) -> set[str]:
        return set(digests(self.folder / ".rasura" / "blobs"))


class Mortal(Registry):
    """Ctrl-C comes when the model is written and nobody has written that down."""

    def set_host(self, record: HostRecord, entry: Draft) -> EntryRecord:  # noqa: ARG002
        raise KeyboardInterrupt


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, by relative path; folders and links as what they are."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink() or not path.is_file():
            found[name] = "link" if path.is_symlink() else "folder"
        else:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    """A private copy."""
    return copy_of(workshop_template(), tmp_path / AWKWARD)


def copy_of(template: Workshop, folder: Path) -> Workshop:
    shutil.copytree(template.folder, folder)
    return Workshop(folder, template.dog, template.van_gogh, template.photo, template.rival)


@functools.cache
def workshop_template() -> Workshop:
    """The one that all are copied from; nobody writes to it."""
    folder = Path(tempfile.mkdtemp(prefix="rasura-workshop-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    tiny_model(folder / "the model", SPEC)
    with Registry.create(folder, actor="alice") as registry:
        make_key(registry, "alice", _draft("key.add"))
        add_base(registry, folder / "the model", "tiny", _draft("base.add"), silent)
        targets = Target("dog", "cat"), Target("van gogh", "painting"), Target("photo", "of")
        dog, van_gogh, photo = erased(registry, *targets)
        (rival,) = erased(registry, Target("dog", "painting"))
    return Workshop(folder, dog, van_gogh, photo, rival)


def request_for(*targets: Target) -> EraseRequest:
    """A request that is solved in a moment."""
    retained = RetainSet("retain.txt", ("painting", "cat", "a", "the"))
    rule = RankRule.parse("count:8")
    held_out = ("tree", "car")
    return EraseRequest(
        targets, retain=retained, templates=("{}", "a {}"), tokens="last", layers="kv", rule=rule, held_out=held_out
    )


def erased(registry: Registry, *targets: Target, base: str = "tiny") -> tuple[PatchId, ...]:
    draft = _draft("patch.erase")
    made = erase(registry, base, request_for(*targets), key=None, protect=(), draft=draft, progress=silent)
    return tuple(item.patch.patch_id for item in made)


def silent(stage: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


def start(arguments: Sequence[str], cwd: Path, **environment: str) -> "subprocess.Popen[str]":
    """`python …` in a process of its own, with this checkout's packages."""
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _draft(action: str) -> Draft:
    return Draft(ALICE.name, ALICE.reason, action, "success")
