"""What a long audit log costs: verifying it, reading a page of it, adding to it, proving one entry of it.

`python benchmarks/registry/log.py [--entries 10000 1000000]` prints a Markdown table: rates and seconds of CPU, each
taken in a process of its own, and the most memory that the process had. The log is real: every entry is canonical, has
a leaf in the tree and a checkpoint that the registry's key signed, and replaying it gives the tables. It goes round in
sevens: a patch is applied to a model, *begun* and *done*, and taken off, *begun* and *done*; another motion begins and
fails; and a patch is pushed. Each names a patch, those that begin the signer and the policy, and those that are done
the model's record after them.
"""

import argparse
import hashlib
import json
import os
import platform
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from rasura.patches.types import Digest, ParamName
from rasura.registry._storage.records.base_records import BaseParameter, BaseRecord
from rasura.registry._storage.records.records import Draft, HostRecord
from rasura.registry._storage.records.validation import instant
from rasura.registry.evidence.proofs.choose_entries import EVERYTHING, choose_entries
from rasura.registry.evidence.proofs.take_out import prove_entry
from rasura.registry.log.entries.record_digest import fingerprint
from rasura.registry.log.log_key import LastSigned
from rasura.registry.log.merkle import Frontier, GrowingTree, hash_leaf
from rasura.registry.log.notes.signed_note import Checkpoint, sign_note
from rasura.registry.log.verify import verify_log
from rasura.registry.registry import Registry
from rasura.registry.trust.keys.key_files import make_key

BATCH: Final = 20_000
BEGIN: Final = datetime(2026, 1, 1, tzinfo=UTC)
TESTS: Final = 20
MEGABYTE: Final = 1024
ROUND: Final = (
    ("patch.apply", "begun", False),
    ("patch.apply", "done", True),
    ("patch.revert", "begun", False),
    ("patch.revert", "done", True),
    ("patch.apply", "begun", False),
    ("patch.apply", "failed", True),
    ("patch.push", "success", False),
)
"""Action, outcome, and whether it ends the entry before it."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What the entries tell of: a log, a model in it, the digest of its record, and a key that signs patches."""

    origin: str
    host: str
    record: str
    key_id: str

    def write(self, index: int) -> tuple[Any, ...]:
        """The columns of an entry, and the patch that it names."""
        action, outcome, closes = ROUND[index % len(ROUND)]
        patch = hashlib.sha256(b"%d" % (index // len(ROUND) % 1000)).hexdigest()
        at = BEGIN + timedelta(seconds=index)
        value: dict[str, Any] = {
            "v": 1,
            "log": self.origin,
            "index": index,
            "id": str(uuid.UUID(int=index)),
            "type": action,
            "time": instant(at),
            "actor": {"name": "alice"},
            "reason": {"text": f"ticket {index}"},
            "outcome": {"status": outcome} if outcome != "failed" else {"status": outcome, "error": "host"},
            "patches": [patch],
            "details": {"policy": patch, "signers": self.key_id} if outcome == "begun" else {"parameters": 64},
            "changes": [],
        }
        if outcome == "done":
            moved = {patch: 16 if action == "patch.apply" else 0}
            value["changes"] = [{"kind": "host", "id": self.host, "record": self.record, "applied": moved}]
        if action != "patch.push":
            value |= {"host": self.host, "base": patch, "effect": {"before": patch, "after": patch}}
        if closes:
            value["closes"] = index - 1
        body = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
        host = value.get("host")
        return index, hash_leaf(body), body, instant(at), action, outcome, host, value.get("closes"), patch


def found(registry: Registry) -> Scene:
    """A registry with a key, a base and a model; its log ends where a round of entries can begin."""

    def draft(action: str) -> Draft:
        return Draft("alice", "", action, "success")

    key = make_key(registry, "alice", draft("key.add"))
    digest = Digest(hashlib.sha256(b"base").hexdigest())
    parameter = BaseParameter(ParamName("to_k.weight"), "F16", (320, 768), digest, {})
    registry.add_base(BaseRecord(digest, "base", "bench", digest, digest, (parameter,), BEGIN), draft("base.add"))
    host = HostRecord(str(uuid.UUID(int=7)), "/model", digest, {}, digest, BEGIN)
    registry.set_host(host, Draft("alice", "", "patch.revert", "success", host=host.host_id))
    while registry.head().size % len(ROUND):
        registry.note(draft("log.checkpoint"))
    return Scene(registry.origin, host.host_id, fingerprint(registry.host(host.host_id)), key.key_id)


def build(folder: Path, entries: int) -> dict[str, float]:
    """A registry whose log has about so many entries."""
    with Registry.create(folder, actor="alice") as registry:
        scene, size = found(registry), registry.head().size
        entries -= entries % len(ROUND)
        key = load_pem_private_key((registry.location.keys / "log.pem").read_bytes(), None)
        assert isinstance(key, Ed25519PrivateKey)
        with closing(sqlite3.connect(folder / ".rasura" / "registry.db")) as database:
            data = database.execute("SELECT frontier FROM checkpoint WHERE size = ?", (size,)).fetchone()[0]
            tree = Frontier.from_bytes(size, data)
            for start in range(size, entries, BATCH):
                rows = [scene.write(index) for index in range(start, min(start + BATCH, entries))]
                notes = []
                for row in rows:
                    tree = tree.append(row[1])
                    note = sign_note(Checkpoint(scene.origin, tree.size, tree.root()).text, scene.origin, key)
                    notes.append((tree.size, str(note), tree.to_bytes()))
                database.executemany("INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?, ?, ?)", [row[:8] for row in rows])
                database.executemany("INSERT INTO entry_patch VALUES (?, 0, ?)", [(row[0], row[8]) for row in rows])
                database.executemany("INSERT INTO checkpoint VALUES (?, ?, ?)", notes)
                database.commit()
        registry.log_key.remember(LastSigned(Checkpoint(scene.origin, tree.size, tree.root())))
    with Registry.open(folder) as registry:
        registry.note(Draft("alice", "", "log.checkpoint", "success"))  # after which the index of the log is on disk
    return {"size": (folder / ".rasura" / "registry.db").stat().st_size / MEGABYTE**2}


def grow_tree(_: Path, entries: int) -> dict[str, float]:
    """Leaves, and the root after each."""
    leaves = [hash_leaf(str(index).encode()) for index in range(entries)]
    tree, begun = GrowingTree(), time.process_time()
    for leaf in leaves:
        tree.append(leaf)
        tree.root()
    return {"tree": entries / (time.process_time() - begun)}


def verify_all(folder: Path, entries: int) -> dict[str, float]:
    """Everything that `rasura audit verify` does."""
    with Registry.open(folder) as registry:
        begun = time.process_time()
        assert verify_log(registry).size > entries - len(ROUND)
        return {"verify": entries / (time.process_time() - begun)}


def verify_every_signature(folder: Path, entries: int) -> dict[str, float]:
    """The same with `--every-signature`."""
    with Registry.open(folder) as registry:
        begun = time.process_time()
        assert verify_log(registry, closely=None).signatures > entries - len(ROUND)
        return {"signatures": entries / (time.process_time() - begun)}


def list_all(folder: Path, entries: int) -> dict[str, float]:
    """Everything that `rasura audit log` reads, a page at a time."""
    with Registry.open(folder) as registry:
        begun = time.process_time()
        assert sum(1 for _ in choose_entries(registry, EVERYTHING)) > entries - len(ROUND)
        return {"list": entries / (time.process_time() - begun)}


def read_page(folder: Path, entries: int) -> dict[str, float]:
    """The newest fifty entries, and fifty in the middle."""
    with Registry.open(folder) as registry:
        registry.entries(limit=1)
        begun = time.process_time()
        for _ in range(TESTS):
            registry.entries(limit=50)
            registry.entries(limit=50, after=entries // 2)
        return {"page": (time.process_time() - begun) / (2 * TESTS)}


def add_entries(folder: Path, _: int) -> dict[str, float]:
    """Entries that begin and end something, each in a transaction of its own."""
    spent = []
    with Registry.open(folder) as registry:
        draft = Draft("alice", "", "patch.apply", "begun", host=str(uuid.uuid4()))
        registry.note(draft)
        for _ in range(TESTS):
            begun = time.process_time()
            entry = registry.note(draft)
            registry.note(Draft("alice", "", "patch.apply", "failed", host=draft.host, closes=entry.index))
            spent.append((time.process_time() - begun) / 2)
    return {"append": statistics.median(spent)}


def prove_one(folder: Path, entries: int) -> dict[str, float]:
    """The proof of an entry in the middle."""
    with Registry.open(folder) as registry:
        begun = time.process_time()
        prove_entry(registry, entries // 2)
        return {"prove": time.process_time() - begun}


MEASURES: Final[Mapping[str, Callable[[Path, int], dict[str, float]]]] = {
    each.__name__: each
    for each in (build, grow_tree, verify_all, verify_every_signature, list_all, read_page, add_entries, prove_one)
}


def measure(name: str, folder: Path, entries: int) -> dict[str, float]:
    """What a measure gives in a process of its own, and the memory that it took, in MB."""
    own = [sys.executable, __file__, "--measure", name, "--folder", str(folder), "--entries", str(entries)]
    done = subprocess.run(own, check=True, capture_output=True, text=True, env=dict(os.environ))
    found: dict[str, float] = json.loads(done.stdout)
    return found


def peak_memory() -> float:
    """The most that this process had, in MB; what `getrusage` gives is also what the process had that began it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / MEGABYTE


def print_row(entries: int) -> None:
    """One size's line of the table."""
    found: dict[str, float] = {}
    memory: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as place:
        for name in MEASURES:
            got = measure(name, Path(place), entries)
            memory[name] = got.pop("memory")
            found |= got
    print(
        f"| {entries:,}, {found['size']:,.0f} MB | {found['tree']:,.0f}/s "
        f"| {found['verify']:,.0f}/s, {memory['verify_all']:.0f} MB "
        f"| {found['signatures']:,.0f}/s, {memory['verify_every_signature']:.0f} MB "
        f"| {found['list']:,.0f}/s, {memory['list_all']:.0f} MB "
        f"| {found['page'] * 1000:.1f} ms | {found['append'] * 1000:.1f} ms "
        f"| {found['prove']:.2f} s, {memory['prove_one']:.0f} MB |",
        flush=True,
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--measure", choices=MEASURES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        found = MEASURES[given.measure](given.folder, given.entries[0])
        print(json.dumps({**found, "memory": peak_memory()}))
        return
    sizes = " ".join(map(str, given.entries))
    command = f"python benchmarks/registry/log.py --entries {sizes} > docs/benchmarks/log.md"
    print(f"# A long audit log\n\nWritten by `{command}`.\n")
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, ", end="")
    print(f"SQLite {sqlite3.sqlite_version}; rates and times are of CPU, one thread.\n")
    print("| entries | tree alone | `audit verify` | with `--every-signature` | `audit log`, all of it ", end="")
    print("| 50 entries | append one | `audit prove` |\n|---:|---:|---:|---:|---:|---:|---:|---:|")
    for entries in given.entries:
        print_row(entries)


if __name__ == "__main__":
    main()
