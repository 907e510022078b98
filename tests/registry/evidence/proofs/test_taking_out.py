"""A log that leaves the registry: proofs and bundles, checked by us and by a script that knows nothing of us."""

import importlib.util
import io
import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from support.registries.registry_fixtures import EPOCH, Place, draft, filled

from rasura.patches._io import canonical_json
from rasura.patches.errors import AuditError, InputError, NotFoundError, RasuraError
from rasura.patches.types import Digest, PatchId
from rasura.registry._storage.digests import sha256
from rasura.registry.evidence.proofs.bundle_lines import Head
from rasura.registry.evidence.proofs.choose_entries import EntryChoice, choose_entries, parse_moment
from rasura.registry.evidence.proofs.log_bundle import read_log_bundle
from rasura.registry.evidence.proofs.proof_file import EntryProof, verify_proof
from rasura.registry.evidence.proofs.take_out import (
    choose_indexes,
    export_bundle,
    export_checkpoint,
    export_entries,
    prove_entry,
    read_entry,
)
from rasura.registry.evidence.proofs.verify_file import verify_file
from rasura.registry.log.merkle import WholeTree, hash_leaf, hash_root, prove_consistency, prove_inclusion
from rasura.registry.log.notes.signed_note import Checkpoint, Note, NoteSignature, VerifyKey, sign_note
from rasura.registry.registry import Registry

ROOT = Path(__file__).parents[4]


@pytest.fixture(scope="module")
def outsider() -> ModuleType:
    """The script of the examples, which imports nothing of ours."""
    spec = importlib.util.spec_from_file_location("verify_log", ROOT / "examples" / "verify_log.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def full(made: Place) -> Place:
    """A registry with a bit of everything."""
    with made.open() as registry:
        filled(registry)
    return made


def bundle_of(registry: Registry, *indexes: int, kept: bytes | None = None) -> bytes:
    return b"".join(export_bundle(registry, indexes or None, kept=kept))


def key_of(registry: Registry) -> VerifyKey:
    return VerifyKey.parse(registry.log_vkey())


def read(data: bytes, key: VerifyKey | None = None, kept: bytes | None = None) -> list[int]:
    return [entry.index for entry in read_log_bundle(io.BytesIO(data), vkey=key, kept=kept).entries()]


# ── The tree ─────────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.integers(1, 200), st.data())
def test_a_tree_that_is_kept_proves_what_one_that_is_hashed_anew_proves(size: int, data: st.DataObject) -> None:
    leaves = [hash_leaf(bytes([n])) for n in range(size)]
    tree = WholeTree(leaves)
    index, older = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size))
    assert tree.size == size
    assert tree.root(older) == hash_root(leaves[:older])
    assert tree.prove_inclusion(index) == prove_inclusion(leaves, index)
    assert tree.prove_consistency(older) == prove_consistency(leaves, older)


def test_a_tree_has_no_leaf_and_no_size_past_its_end() -> None:
    tree = WholeTree([hash_leaf(b"a")])
    for wrong in (lambda: tree.prove_inclusion(1), lambda: tree.prove_consistency(2), lambda: tree.root(2)):
        with pytest.raises(AuditError):
            wrong()


# ── Proofs of one entry ──────────────────────────────────────────────────────────────────────────────────────────


def test_every_entry_can_be_proved(full: Place, outsider: ModuleType) -> None:
    with full.open() as registry:
        key = key_of(registry)
        for entry in registry.entries():
            data = prove_entry(registry, entry.index)
            found = verify_proof(data, key)
            assert found.entry == entry
            assert found.text.encode() == read_entry(registry, entry.index)[1]
            assert outsider.verify(data, str(key)) == [json.loads(found.text)]
            assert EntryProof.parse(data).to_bytes() == data


def test_there_is_no_proof_of_what_is_not_there(full: Place) -> None:
    with full.open() as registry:
        size = registry.head().size
        for make in (prove_entry, read_entry):
            with pytest.raises(NotFoundError, match=f"entries 0 to {size - 1}"):
                make(registry, size)


def test_no_byte_of_a_proof_can_be_another(full: Place, outsider: ModuleType) -> None:
    with full.open() as registry:
        key, data = key_of(registry), prove_entry(registry, 4)
    for at in range(len(data)):
        for bit in (0, 4):
            forged = data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
            with pytest.raises(RasuraError):
                verify_proof(forged, key)
            with pytest.raises((ValueError, LookupError, TypeError)):
                outsider.verify(forged, str(key))


def test_a_proof_is_worth_its_key(full: Place, tmp_path: Path) -> None:
    with full.open() as registry, Registry.create(tmp_path, actor="mallory") as other:
        (tmp_path / "proof").write_bytes(prove_entry(other, 0))
        with pytest.raises(AuditError, match="expected a signature by"):
            verify_file(tmp_path / "proof", vkey=key_of(registry))
        with pytest.raises(AuditError, match="does not name the log's key"):
            verify_file(tmp_path / "proof")
        assert verify_file(tmp_path / "proof", vkey=key_of(other)).pinned


# ── Bundles ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_whole_log_and_a_part_of_it(full: Place, outsider: ModuleType, tmp_path: Path) -> None:
    with full.open() as registry:
        size, key = registry.head().size, key_of(registry)
        whole, part = bundle_of(registry), bundle_of(registry, 0, 3, 5)
        assert read(whole) == read(whole, key) == list(range(size))
        assert read(part) == read(part, key) == [0, 3, 5]
        for data in (whole, part):
            assert [e["index"] for e in outsider.verify(data, str(key))] == read(data)
        (tmp_path / "whole").write_bytes(whole)
        found = verify_file(tmp_path / "whole", vkey=key)
        assert (found.whole, found.count, found.checkpoint.size, found.pinned) == (True, size, size, True)
        assert found.shown == registry.entries(newest=False)
        assert not verify_file(tmp_path / "whole").pinned


def test_what_an_entry_tells_of_can_be_read(full: Place) -> None:
    with full.open() as registry:
        record = registry.patches()[0]
        entry = next(e for e in registry.entries() if e.action == "patch.add" and e.patches == (record.patch_id,))
        bundle = read_log_bundle(io.BytesIO(bundle_of(registry, entry.index)))
        assert list(bundle.entries()) == [entry]
        said = json.loads(bundle.records["patch", record.patch_id])
        assert said["files"] == dict(record.files)
        assert said["concepts"] == list(record.concepts)
        assert set(bundle.records) == {("patch", record.patch_id), *((k, i) for k, i in bundle.records if k != "patch")}


def test_no_byte_of_a_bundle_can_be_another(full: Place) -> None:
    """Every byte of a small one; of a whole log every 29th, with another bit each time."""
    if full.url is not None:
        pytest.skip("one database is enough")
    with full.open() as registry:
        key, small, whole = key_of(registry), bundle_of(registry, 1), bundle_of(registry)
    assert b'"record":' in small
    for data, pinned, step in ((small, key, 1), (small, None, 3), (whole, key, 29)):
        for at in range(0, len(data), step):
            forged = data[:at] + bytes([data[at] ^ 1 << at % 7]) + data[at + 1 :]
            with pytest.raises(RasuraError):
                read(forged, pinned)


def doubled(lines: list[bytes]) -> list[bytes]:
    return [*lines, lines[-1]]


def last_twice(lines: list[bytes]) -> list[bytes]:
    return [*lines[:-2], lines[-1], lines[-1]]


def swapped(lines: list[bytes]) -> list[bytes]:
    return [*lines[:-2], lines[-1], lines[-2]]


def cut(lines: list[bytes]) -> list[bytes]:
    return lines[:-1]


def without_first(lines: list[bytes]) -> list[bytes]:
    return lines[1:]


def counted_down(lines: list[bytes]) -> list[bytes]:
    head = json.loads(lines[0])
    head["entries"] -= 1
    return [json.dumps(head, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() + b"\n", *lines[1:-1]]


@pytest.mark.parametrize("attack", [doubled, last_twice, swapped, cut, without_first, counted_down])
def test_no_line_of_a_bundle_can_be_another(full: Place, attack: Callable[[list[bytes]], list[bytes]]) -> None:
    with full.open() as registry:
        bundles = [bundle_of(registry), bundle_of(registry, 3, 5, 6)]
    for data in bundles:
        if attack is counted_down and data is bundles[1]:
            continue  # a part of a log may have fewer entries; who makes it chooses them
        with pytest.raises(RasuraError):
            read(b"".join(attack(data.splitlines(keepends=True))))


def test_a_bundle_of_another_registry_is_refused_by_the_key_that_was_kept(full: Place, tmp_path: Path) -> None:
    with full.open() as registry, Registry.create(tmp_path, actor="mallory") as other:
        forged = bundle_of(other)
        assert read(forged) == [0]
        with pytest.raises(AuditError, match="expected a log of key"):
            read(forged, key_of(registry))


def test_a_bundle_continues_what_was_kept(made: Place) -> None:
    with made.open() as registry:
        old = export_checkpoint(registry)
        filled(registry)
        key = key_of(registry)
        assert read(bundle_of(registry), key, old) == list(range(registry.head().size))
        assert read(bundle_of(registry, 2, 4, kept=old), key, old) == [2, 4]
        with pytest.raises(AuditError, match="no proof that it continues"):
            read(bundle_of(registry, 2, 4), key, old)
        now = export_checkpoint(registry)
        assert read(bundle_of(registry, 2), key, now) == [2]
        late = bundle_of(registry, 2)
        registry.note(draft("test.more"))
        with pytest.raises(AuditError, match="kept checkpoint"):
            read(late, key, export_checkpoint(registry))


def test_a_log_that_was_rewritten_is_not_taken_out(full: Place) -> None:
    """Neither whole nor in part: what leaves is what was signed, or nothing."""
    if full.url is not None:
        pytest.skip("one database is enough")

    with full.open() as registry:
        body = read_entry(registry, 3)[1]
    with sqlite3.connect(full.folder / "registry.db") as db:
        db.execute("PRAGMA foreign_keys = OFF")
        for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            db.execute(f'DROP TRIGGER "{name}"')
        db.execute("UPDATE entry SET body = ? WHERE position = 3", (body.replace(b"alice", b"bobby"),))
    db.close()
    opened = pytest.raises(RasuraError)
    with opened, full.open() as registry:
        list(export_entries(registry))
    with pytest.raises(RasuraError), full.open() as registry:
        prove_entry(registry, 1)


# ── A log that was handed on ─────────────────────────────────────────────────────────────────────────────────────


def hand_on(registry: Registry) -> VerifyKey:
    registry.rotate_log_key(draft("log.rotate"))
    registry.note(draft("test.more"))
    return key_of(registry)


def test_whoever_pinned_an_older_key_follows_it_to_the_present_one(
    full: Place, outsider: ModuleType, tmp_path: Path
) -> None:
    with full.open() as registry:
        kept, keys = export_checkpoint(registry), [key_of(registry)]
        keys += [hand_on(registry), hand_on(registry)]
        size = registry.head().size
        files = {
            "whole": bundle_of(registry),
            "part": bundle_of(registry, 1, 4, kept=kept),
            "proof": prove_entry(registry, 2),
            "of a rotation": prove_entry(registry, size - 2),
        }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        for key in keys:
            old = kept if name in {"whole", "part"} else None
            found = verify_file(tmp_path / name, vkey=key, kept=old)
            assert (found.key, found.replaced, found.pinned) == (keys[-1], key != keys[-1], True)
            assert [entry["index"] for entry in outsider.verify(data, str(key))] == [e.index for e in found.shown]
    assert verify_file(tmp_path / "whole").replaced is False


def test_a_file_that_was_taken_out_in_the_moment_of_a_rotation_holds_for_both_keys(full: Place) -> None:
    with full.open() as registry:
        old = key_of(registry)
        registry.rotate_log_key(draft("log.rotate"))
        for key in (old, key_of(registry)):
            assert verify_proof(prove_entry(registry, 0), key).signer.key == key_of(registry)
            assert read(bundle_of(registry, 0), key) == [0]


def _forge(link: dict[str, object], mallory: Ed25519PrivateKey, victim: str, *, first: bool) -> VerifyKey:
    """A link of which mallory signs both sides, with the victim's key named as the old one or the new."""
    entry = json.loads(str(link["entry"]))
    name = entry["log"]
    own = VerifyKey(name, mallory.public_key().public_bytes_raw())
    entry["details"] = {"old": victim, "new": str(own)} if first else {"old": str(own), "new": victim}
    entry["index"] = 0
    body = json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    tree = Checkpoint(name, 1, hash_leaf(body.encode()))
    signed = sign_note(tree.text, name, mallory)
    fake = NoteSignature(name, VerifyKey.parse(victim).key_id, signed.signatures[0].value)
    lines = (*signed.signatures, fake)
    link.update(entry=body, proof=[], checkpoint=str(Note(signed.text, lines)), consistency=[])
    return own


@pytest.mark.parametrize("first", [True, False], ids=["handed on by the victim", "handed to the victim"])
@pytest.mark.parametrize("fake", [True, False], ids=["with a signature that is none", "without the signature"])
def test_a_forged_rotation_is_refused_in_every_file(
    full: Place, outsider: ModuleType, *, first: bool, fake: bool
) -> None:
    mallory = Ed25519PrivateKey.generate()
    with full.open() as registry:
        victim = str(key_of(registry))
        hand_on(registry)
        lines = bundle_of(registry, 0).splitlines(keepends=True)
    head = json.loads(lines[0])
    (link,) = head["links"]
    own = _forge(link, mallory, victim, first=first)
    if not fake:
        link["checkpoint"] = "".join(link["checkpoint"].splitlines(keepends=True)[:-1])
    tree = Checkpoint(own.name, 1, hash_leaf(link["entry"].encode()))
    head.update(checkpoint=str(sign_note(tree.text, own.name, mallory)), vkey=str(own) if first else victim)
    body = json.dumps({"entry": link["entry"], "proof": []}, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    forged = canonical_json.dumps(head) + b"\n" + body.encode() + b"\n"
    proof = EntryProof(0, link["entry"].encode(), (), head["checkpoint"], Head.parse(canonical_json.dumps(head)).links)
    pinned = VerifyKey.parse(victim)
    for attempt in (lambda: read(forged, pinned), lambda: verify_proof(proof.to_bytes(), pinned)):
        with pytest.raises(AuditError):
            attempt()
    for data in (forged, proof.to_bytes()):
        with pytest.raises((ValueError, LookupError)):
            outsider.verify(data, victim)


@pytest.mark.parametrize("what", ["a link is missing", "links in another order", "another tree", "one key signed"])
def test_links_that_are_no_chain_are_refused(full: Place, outsider: ModuleType, what: str) -> None:
    with full.open() as registry:
        first = key_of(registry)
        hand_on(registry)
        last = hand_on(registry)
        data = bundle_of(registry, 0)
    head, *rest = data.splitlines(keepends=True)
    said = json.loads(head)
    if what == "a link is missing":
        del said["links"][1]
    elif what == "links in another order":
        said["links"].reverse()
    elif what == "another tree":
        said["links"][0]["consistency"] = said["links"][1]["consistency"]
    else:
        note = said["links"][0]["checkpoint"].splitlines(keepends=True)
        said["links"][0]["checkpoint"] = "".join(note[:-1])
    forged = b"".join([canonical_json.dumps(said) + b"\n", *rest])
    assert read(data, first) == read(data, last) == [0]
    for key in (first, last):
        with pytest.raises(AuditError):
            read(forged, key)
        with pytest.raises((ValueError, LookupError)):
            outsider.verify(forged, str(key))


def test_no_byte_of_a_link_can_be_another(full: Place) -> None:
    if full.url is not None:
        pytest.skip("one database is enough")
    with full.open() as registry:
        first = key_of(registry)
        hand_on(registry)
        head, rest = bundle_of(registry, 0).split(b"\n", 1)
    start = head.index(b'"links":')
    for at in range(start, head.index(b'"records":'), 3):
        forged = head[:at] + bytes([head[at] ^ 1 << at % 7]) + head[at + 1 :] + b"\n" + rest
        with pytest.raises(RasuraError):
            read(forged, first)


# ── Choosing ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_entries_are_chosen_by_what_they_say(full: Place) -> None:
    with full.open() as registry:
        every = registry.entries(newest=False)

        def chosen(**which: object) -> list[int]:
            choice = EntryChoice(**which)  # type: ignore[arg-type]
            found = [entry.index for entry in choose_entries(registry, choice, newest=False)]
            assert found == [entry.index for entry, _ in export_entries(registry, choice)]
            assert choose_indexes(registry, choice) == (tuple(found) if which else None)
            return found

        assert chosen() == [entry.index for entry in every]
        assert chosen(type="patch") == chosen(type="patch.add") == [3, 4]
        assert chosen(actor="tester") == [0]
        assert chosen(concept=" Van  Gogh") == [e.index for e in every if every[3].patches[0] in e.patches]
        assert chosen(patch=every[4].patches[0]) == [4]
        assert chosen(model="/models/a") == [e.index for e in every if e.host]
        assert chosen(since=every[2].time, until=every[4].time) == [2, 3]
        limited = choose_entries(registry, EntryChoice(), limit=2)
        assert [entry.index for entry in limited] == [every[-1].index, every[-2].index]


def test_what_is_not_there_is_said(full: Place) -> None:
    with full.open() as registry:
        for choice in (EntryChoice(model="/nowhere"), EntryChoice(concept="nobody")):
            with pytest.raises(NotFoundError):
                choose_indexes(registry, choice)
        with pytest.raises(InputError, match="no entry"):
            choose_indexes(registry, EntryChoice(patch=PatchId(Digest(sha256(b"none")))))
        with pytest.raises(InputError, match="at least one entry"):
            list(export_bundle(registry, []))


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-11-29", datetime(2026, 11, 29, tzinfo=UTC)),
        ("2026-11-29T14:00", datetime(2026, 11, 29, 14, tzinfo=UTC)),
        ("2026-11-29T14:00+02:00", datetime(2026, 11, 29, 12, tzinfo=UTC)),
        ("3d", EPOCH.replace(day=28)),
        ("90m", EPOCH.replace(hour=10, minute=30)),
    ],
)
def test_times_as_people_write_them(text: str, time: datetime) -> None:
    assert parse_moment(text, EPOCH) == time


@pytest.mark.parametrize("text", ["", "yesterday", "3y", "-3d", "9" * 400 + "d", "²d", "2026-13-01", "d"])
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="expected 2026-11-29"):
        parse_moment(text, EPOCH)


# ── Alone ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_script_runs_where_there_is_no_rasura(full: Place, tmp_path: Path) -> None:
    with full.open() as registry:
        (tmp_path / "bundle").write_bytes(bundle_of(registry))
        key = str(key_of(registry))
        size = registry.head().size
    script = (ROOT / "examples" / "verify_log.py").read_text()
    (tmp_path / "verify_log.py").write_text(script)
    run = [sys.executable, "-I", "verify_log.py", "bundle", key]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == f"sound: {size} entries"
    assert "rasura" not in {
        line.split()[1].split(".")[0] for line in script.splitlines() if line.startswith(("import ", "from "))
    }
