"""Golden bytes of what leaves a log: written byte for byte, and read by us and by the script that imports nothing of us.

The log's key is the first of RFC 8032 §7.1, whose private half is public, hence good for nothing but tests.
"""

import importlib.util
import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from rasura.patches.types import Digest, PatchId
from rasura.registry._storage.records.records import Draft
from rasura.registry.evidence.proofs.bundle_lines import BundleLine, Head, write_bundle
from rasura.registry.evidence.proofs.log_bundle import read_log_bundle
from rasura.registry.evidence.proofs.proof_file import EntryProof, read_checkpoint, verify_proof
from rasura.registry.log.entries.entry import Placement, encode
from rasura.registry.log.merkle import WholeTree, hash_leaf
from rasura.registry.log.notes.signed_note import Checkpoint, VerifyKey, sign_note

ROOT = Path(__file__).parents[4]
FOLDER = ROOT / "tests" / "vectors" / "log"
KEY = Ed25519PrivateKey.from_private_bytes(
    bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
)
LOG = "rasura/log/00000000-0000-4000-8000-000000000000"
VKEY = VerifyKey(LOG, KEY.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
DOG, STATE = PatchId("ab" * 32), Digest("cd" * 32)
DRAFTS = (
    Draft("alice", "", "registry.init", "success"),
    Draft("alice", "ticket 118", "patch.add", "success", (DOG,), details={"concept": 'dog "☕"'}),
    Draft("bob", "ticket 118", "host.apply", "begun", (DOG,), before=STATE),
    Draft("bob", "ticket 118", "host.apply", "failed", (DOG,), before=STATE, error="host_write", closes=2),
    Draft("alice", "", "audit.checkpoint", "success", details={"size": 4}),
)
PART = (1, 3)


def bodies() -> list[bytes]:
    def place(index: int) -> Placement:
        return Placement(LOG, index, f"00000000-0000-4000-8000-{index:012}", NOON + timedelta(seconds=index))

    return [encode(draft, place(index)) for index, draft in enumerate(DRAFTS)]


def files() -> dict[str, bytes]:
    """What the functions that write such files make of these entries, by name."""
    entries = bodies()
    tree = WholeTree(map(hash_leaf, entries))
    note = str(sign_note(Checkpoint(LOG, tree.size, tree.root()).text, LOG, KEY))
    whole = Head(note, str(VKEY), whole=True, entries=len(entries), records=0)
    part = Head(note, str(VKEY), whole=False, entries=len(PART), records=0, consistency=(4, tree.prove_consistency(4)))
    return {
        "checkpoint": note.encode(),
        "entry-3.tlog-proof": EntryProof(3, entries[3], tree.prove_inclusion(3), note).to_bytes(),
        "whole.jsonl": b"".join(write_bundle(whole, (), [BundleLine(body, None) for body in entries])),
        "part.jsonl": b"".join(
            write_bundle(part, (), [BundleLine(entries[at], tree.prove_inclusion(at)) for at in PART])
        ),
    }


@pytest.mark.parametrize("name", ["checkpoint", "entry-3.tlog-proof", "part.jsonl", "whole.jsonl"])
def test_it_is_written_byte_for_byte(name: str) -> None:
    assert files()[name] == (FOLDER / name).read_bytes()


def test_every_golden_file_is_one_that_is_checked() -> None:
    assert sorted(path.name for path in FOLDER.iterdir()) == sorted(files())


def test_it_is_read() -> None:
    found = read_checkpoint((FOLDER / "checkpoint").read_bytes(), VKEY)
    assert (found.origin, found.size) == (LOG, len(DRAFTS))
    proven = verify_proof((FOLDER / "entry-3.tlog-proof").read_bytes(), VKEY)
    assert (proven.entry.index, proven.entry.error, proven.entry.closes) == (3, "host_write", 2)
    for name, indexes in (("whole.jsonl", (0, 1, 2, 3, 4)), ("part.jsonl", PART)):
        bundle = read_log_bundle(io.BytesIO((FOLDER / name).read_bytes()), vkey=VKEY)
        assert tuple(entry.index for entry in bundle.entries()) == indexes


def test_a_script_that_knows_nothing_of_us_reads_it() -> None:
    spec = importlib.util.spec_from_file_location("verify_log", ROOT / "examples" / "verify_log.py")
    assert spec is not None
    assert spec.loader is not None
    outsider = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(outsider)
    entries = [json.loads(body) for body in bodies()]
    for name, indexes in (("entry-3.tlog-proof", (3,)), ("whole.jsonl", range(5)), ("part.jsonl", PART)):
        assert outsider.verify((FOLDER / name).read_bytes(), str(VKEY)) == [entries[at] for at in indexes]
