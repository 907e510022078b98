"""What a long audit log costs: verifying it, reading a page of it, adding to it, proving one entry of it.

`python benchmarks/log.py [--entries 10000 1000000]` prints a Markdown table: seconds of CPU, each in a process of its
own, and the most memory that the process had. The log is real: every entry is canonical, has a leaf in the tree and a
checkpoint that the registry's key signed. Entries are of three kinds: a motion that begins, the same that fails, and a
patch that was pushed; each names a patch.
"""

import argparse
import hashlib
import json
import os
import platform
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from rasura.registry._storage.records.records import Draft
from rasura.registry._storage.records.validation import instant
from rasura.registry.evidence.proofs.choose_entries import EVERYTHING, choose_entries
from rasura.registry.evidence.proofs.take_out import prove_entry
from rasura.registry.log.log_key import LastSigned
from rasura.registry.log.merkle import Frontier, GrowingTree, hash_leaf
from rasura.registry.log.notes.signed_note import Checkpoint, sign_note
from rasura.registry.log.verify import verify_log
from rasura.registry.registry import Registry

BATCH: Final = 20_000
BEGIN: Final = datetime(2026, 1, 1, tzinfo=UTC)
HOST: Final = str(uuid.UUID(int=7))
TESTS: Final = 20
MEGABYTE: Final = 1024


def make_entries(origin: str, start: int, end: int) -> Iterator[tuple[Any, ...]]:
    """The columns of entries, and the patch that each names."""
    for index in range(start, end):
        kind = index % 3
        patch = hashlib.sha256(str(index % 1000).encode()).hexdigest()
        at = BEGIN + timedelta(seconds=index)
        action, outcome = (("patch.apply", "begun"), ("patch.apply", "failed"), ("patch.push", "success"))[kind]
        host, closes = (HOST if kind < 2 else None), (index - 1 if kind == 1 else None)
        value: dict[str, Any] = {
            "v": 1,
            "log": origin,
            "index": index,
            "id": str(uuid.UUID(int=index)),
            "type": action,
            "time": instant(at),
            "actor": {"name": "alice"},
            "reason": {"text": f"ticket {index}"},
            "outcome": {"status": outcome} if kind != 1 else {"status": outcome, "error": "host"},
            "patches": [patch],
            "details": {"policy": patch, "parameters": 64} if kind < 2 else {"repo": "acme/patches"},
            "changes": [],
        }
        if host is not None:
            value |= {"host": host, "base": patch, "effect": {"before": patch, "after": patch}}
        if closes is not None:
            value["closes"] = closes
        body = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
        yield index, hash_leaf(body), body, instant(at), action, outcome, host, closes, patch


def build(folder: Path, entries: int) -> None:
    """A registry whose log has so many entries."""
    with Registry.create(folder, actor="alice") as registry:
        origin, size = registry.origin, registry.head().size
        while size % 3:  # so that what begins is followed by its end
            registry.note(Draft("alice", "", "log.checkpoint", "success"))
            size += 1
        key = load_pem_private_key((registry.location.keys / "log.pem").read_bytes(), None)
        assert isinstance(key, Ed25519PrivateKey)
        with closing(sqlite3.connect(folder / ".rasura" / "registry.db")) as database:
            data = database.execute("SELECT frontier FROM checkpoint WHERE size = ?", (size,)).fetchone()[0]
            tree = Frontier.from_bytes(size, data)
            for start in range(size, entries, BATCH):
                rows = list(make_entries(origin, start, min(start + BATCH, entries)))
                notes = []
                for row in rows:
                    tree = tree.append(row[1])
                    note = sign_note(Checkpoint(origin, tree.size, tree.root()).text, origin, key)
                    notes.append((tree.size, str(note), tree.to_bytes()))
                database.executemany("INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?, ?, ?)", [row[:8] for row in rows])
                database.executemany("INSERT INTO entry_patch VALUES (?, 0, ?)", [(row[0], row[8]) for row in rows])
                database.executemany("INSERT INTO checkpoint VALUES (?, ?, ?)", notes)
                database.commit()
        registry.log_key.remember(LastSigned(Checkpoint(origin, tree.size, tree.root())))
    with Registry.open(folder) as registry:
        registry.note(Draft("alice", "", "log.checkpoint", "success"))  # after which the index of the log is on disk


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
        assert verify_log(registry).size >= entries
        return {"verify": entries / (time.process_time() - begun)}


def verify_every_signature(folder: Path, entries: int) -> dict[str, float]:
    """The same with `--every-signature`."""
    with Registry.open(folder) as registry:
        begun = time.process_time()
        assert verify_log(registry, closely=None).signatures >= entries
        return {"signatures": entries / (time.process_time() - begun)}


def list_all(folder: Path, entries: int) -> dict[str, float]:
    """Everything that `rasura audit log` reads, a page at a time."""
    with Registry.open(folder) as registry:
        begun = time.process_time()
        assert sum(1 for _ in choose_entries(registry, EVERYTHING)) >= entries
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
    for each in (grow_tree, verify_all, verify_every_signature, list_all, read_page, add_entries, prove_one)
}


def measure(name: str, folder: Path, entries: int) -> dict[str, float]:
    """What a measure gives in a process of its own, and the memory that it took, in MB."""
    own = [sys.executable, __file__, "--measure", name, "--folder", str(folder), "--entries", str(entries)]
    done = subprocess.run(own, check=True, capture_output=True, text=True, env=dict(os.environ))
    found: dict[str, float] = json.loads(done.stdout)
    return found


def print_row(folder: Path, entries: int) -> None:
    """One size's line of the table."""
    found: dict[str, float] = {}
    memory: dict[str, float] = {}
    for name in MEASURES:
        got = measure(name, folder, entries)
        memory[name] = got.pop("memory")
        found |= got
    print(
        f"| {entries:,} | {found['tree']:,.0f}/s | {found['verify']:,.0f}/s, {memory['verify_all']:.0f} MB "
        f"| {found['signatures']:,.0f}/s | {found['list']:,.0f}/s, {memory['list_all']:.0f} MB "
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
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MEGABYTE
        print(json.dumps({**found, "memory": peak}))
        return
    sizes = " ".join(map(str, given.entries))
    print(f"# A long audit log\n\nWritten by `python benchmarks/log.py --entries {sizes} > docs/benchmarks/log.md`.\n")
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, ", end="")
    print(f"SQLite {sqlite3.sqlite_version}; rates and times are of CPU, one thread.\n")
    print("| entries | tree alone | `audit verify` | with `--every-signature` | `audit log`, all of it ", end="")
    print("| 50 entries | append one | `audit prove` |\n|---:|---:|---:|---:|---:|---:|---:|---:|")
    for entries in given.entries:
        with tempfile.TemporaryDirectory() as place:
            build(Path(place), entries)
            print_row(Path(place), entries)


if __name__ == "__main__":
    main()
