"""What lists cost beside many patches: a page of `patch list`, `patch show`, a page of `audit log`, `status`.

`python benchmarks/registry/catalogue.py [--patches 1200 12000]` prints a Markdown table: seconds of CPU beyond imports,
each command in a process of its own that has run it once on a registry with one patch, and the most memory that it had.
Every patch has a manifest of its own under its own identity, a row, and an entry of the log that tells of it; one in
ten supersedes the one before it. Nobody reads tensors here, and there are none.
"""

import argparse
import json
import os
import platform
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from rasura.patches.format.manifest import Manifest
from rasura.patches.types import Digest, KeyId, PatchId
from rasura.registry._storage.records.records import Draft, PatchRecord
from rasura.registry._storage.records.validation import instant
from rasura.registry.log.entries.entry import Placement, encode
from rasura.registry.log.entries.entry_changes import encode_change
from rasura.registry.log.log_key import LastSigned
from rasura.registry.log.merkle import Frontier, hash_leaf
from rasura.registry.log.notes.signed_note import Checkpoint, sign_note
from rasura.registry.registry import Registry
from rasura.registry.trust.keys.key_files import make_key

BEGIN: Final = datetime(2026, 1, 1, tzinfo=UTC)
VECTOR: Final = Path(__file__).parents[2] / "tests" / "vectors" / "patch_v2" / "manifest.json"
COMMANDS: Final = (
    ("patch", "list", "--limit", "50"),
    ("patch", "list"),
    ("patch", "show", "PATCH"),
    ("audit", "log", "--limit", "50"),
    ("status",),
)
_RUN: Final = """
import contextlib, io, json, pathlib, sys, time
from rasura.cli import main
def run(words):
    sys.argv = ["rasura", *words]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        main()
small, large = map(json.loads, sys.argv[1:])
run(small)
begun = time.process_time()
run(large)
used = time.process_time() - begun
lines = pathlib.Path("/proc/self/status").read_text().splitlines()  # ru_maxrss would begin with the parent's
most = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
print(f"{used:.2f} s, {most // 1024} MiB")
print(*sorted({"torch", "numpy"} & set(sys.modules)))
"""


def make_records(count: int, key_id: KeyId) -> list[tuple[PatchRecord, bytes]]:
    """Patches and their manifests, the oldest first."""
    template = Manifest.from_bytes(VECTOR.read_bytes())
    made: list[tuple[PatchRecord, bytes]] = []
    for number in range(count):
        old = (made[-1][0].patch_id,) if number % 10 == 9 else ()
        concept = replace(template.concept, text=f"thing {number}")
        manifest = replace(template, concept=concept, supersedes=old)
        data = manifest.to_bytes()
        record = PatchRecord(
            patch_id=manifest.patch_id,
            concepts=(concept.text,),
            anchor=concept.anchor,
            method=template.eraser.name,
            base=template.base.sha256,
            basis=None,
            retain_set=None,
            key_id=key_id,
            files={"manifest.json": Digest(manifest.patch_id)},
            size=len(data),
            added_at=BEGIN + timedelta(seconds=number),
            source="bench",
        )
        made.append((record, data))
    return made


def build(folder: Path, count: int) -> PatchId:
    """A registry of so many patches; the identifier of one in the middle."""
    with Registry.create(folder, actor="alice") as registry:
        key = make_key(registry, "alice", Draft("alice", "", "key.add", "success"))
        made = make_records(count, key.key_id)
        for record, data in made:  # as the blob store would, without waiting for the disk each time
            path = registry.blobs.path(record.files["manifest.json"])
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
        signed = _write_rows(folder, registry, [record for record, _ in made])
        registry.log_key.remember(LastSigned(signed))
    with Registry.open(folder) as registry:
        registry.note(Draft("alice", "", "log.checkpoint", "success"))  # after which the index of the log is on disk
    return made[count // 2][0].patch_id


def _write_rows(folder: Path, registry: Registry, records: list[PatchRecord]) -> Checkpoint:
    origin, size = registry.origin, registry.head().size
    private = load_pem_private_key((registry.location.keys / "log.pem").read_bytes(), None)
    assert isinstance(private, Ed25519PrivateKey)
    with closing(sqlite3.connect(folder / ".rasura" / "registry.db")) as database, database:
        data = database.execute("SELECT frontier FROM checkpoint WHERE size = ?", (size,)).fetchone()[0]
        tree = Frontier.from_bytes(size, data)
        for record in records:
            draft = Draft("alice", "", "patch.add", "success", patches=(record.patch_id,))
            place = Placement(origin, tree.size, f"00000000-0000-4000-8000-{tree.size:012x}", record.added_at)
            body, at = encode(draft, place, [encode_change(record)]), instant(record.added_at)
            row = (tree.size, hash_leaf(body), body, at, draft.action, draft.outcome, None, None)
            database.execute("INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
            database.execute("INSERT INTO entry_patch VALUES (?, 0, ?)", (tree.size, record.patch_id))
            tree = tree.append(hash_leaf(body))
            note = str(sign_note(Checkpoint(origin, tree.size, tree.root()).text, origin, private))
            database.execute("INSERT INTO checkpoint VALUES (?, ?, ?)", (tree.size, note, tree.to_bytes()))
            columns = (record.patch_id, record.anchor, record.method, record.base, None, None, record.key_id)
            database.execute(
                "INSERT INTO patch VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (*columns, record.size, at, record.source)
            )
            database.execute("INSERT INTO patch_concept VALUES (?, 0, ?)", (record.patch_id, record.concepts[0]))
            database.execute(
                "INSERT INTO patch_file VALUES (?, ?, ?)", (record.patch_id, "manifest.json", record.patch_id)
            )
    return Checkpoint(origin, tree.size, tree.root())


def measure(words: tuple[str, ...], places: list[tuple[Path, PatchId]]) -> tuple[str, str]:
    """What a command takes beside many patches, after it ran beside one, and what it imported."""
    typed = [
        json.dumps([patch if word == "PATCH" else word for word in words] + ["--registry", str(folder)])
        for folder, patch in places
    ]
    done = subprocess.run([sys.executable, "-c", _RUN, *typed], check=True, capture_output=True, text=True)
    taken, libraries = done.stdout.splitlines()
    return taken, libraries


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patches", type=int, nargs="+", default=[1200, 12000])
    counts = parser.parse_args().patches
    given = " ".join(map(str, counts))
    print("# Many patches\n")
    print(f"Written by `python benchmarks/registry/catalogue.py --patches {given} > docs/benchmarks/catalogue.md`.\n")
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, ", end="")
    print(f"SQLite {sqlite3.sqlite_version}; seconds of CPU beyond imports, most memory.\n")
    names = ["the first `patch list -n 50`", *(f"`rasura {' '.join(words)}`" for words in COMMANDS), "torch or numpy"]
    print(f"| patches | {' | '.join(names)} |\n|---:|{'---:|' * (len(names) - 1)}---|")
    with tempfile.TemporaryDirectory() as place:
        small = Path(place) / "one"
        small.mkdir()
        one = small, build(small, 1)
        for count in counts:
            folder = Path(place) / str(count)
            folder.mkdir()
            many = folder, build(folder, count)
            found = [measure(words, [one, many]) for words in (COMMANDS[0], *COMMANDS)]
            libraries = {library for _, library in found} - {""}
            cells = [taken for taken, _ in found]
            print(f"| {count:,} | {' | '.join(cells)} | {' '.join(sorted(libraries)) or 'neither'} |", flush=True)


if __name__ == "__main__":
    main()
