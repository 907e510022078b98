"""The registry on SQLite and PostgreSQL: what goes in comes out, twice is once, and nothing is half done."""

import hashlib
import sqlite3
import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from support.registries.registry_fixtures import (
    EPOCH,
    HOST,
    Clock,
    Place,
    add_patch,
    base,
    basis,
    digest,
    draft,
    evaluation,
    files_of,
    filled,
    host,
    key,
    patch,
    retain_set,
)

from rasura.patches.errors import (
    AmbiguousIdError,
    BusyError,
    DigestMismatchError,
    ExistsError,
    InputError,
    NoRegistryError,
    NotFoundError,
    RegistryError,
)
from rasura.patches.types import Digest, PatchId
from rasura.registry._resources import keys
from rasura.registry._storage.database.database import _ADVISORY_LOCK
from rasura.registry._storage.location import Location
from rasura.registry._storage.records.base_records import BasisRecord, RetainSetRecord
from rasura.registry.log.log_key import LastSigned
from rasura.registry.log.verify import verify_log
from rasura.registry.registry import EntryFilter, NewPatch, Registry, find_location

# ── Places ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_new_registry_says_so(registry: Registry) -> None:
    (entry,) = registry.entries()
    assert (entry.index, entry.action, entry.actor, entry.time) == (
        0,
        "registry.create",
        "tester",
        EPOCH + timedelta(seconds=2),
    )
    assert not [*registry.keys(), *registry.bases(), *registry.patches(), *registry.hosts()]
    assert registry.keys_folder.stat().st_mode & 0o777 == 0o700
    assert (registry.keys_folder / "log.pem").stat().st_mode & 0o777 == 0o600


def test_a_registry_is_made_once(place: Place) -> None:
    place.create().close()
    with pytest.raises(ExistsError):
        place.create()
    with place.open() as registry:
        assert len(registry.entries()) == 1


def test_a_postgresql_database_holds_one_registry(place: Place, tmp_path: Path) -> None:
    if place.url is None:
        pytest.skip("SQLite's file lies in the folder")
    place.create().close()
    with pytest.raises(ExistsError, match="got a registry"):
        Registry.create(place.url, home=tmp_path / "second")
    assert not (tmp_path / "second").exists()


def test_what_is_written_is_there_after_opening_again(made: Place) -> None:
    with made.open() as registry:
        first = filled(registry)
    with made.open() as registry:
        assert registry.key("alice") == key()
        assert registry.base("sd14") == base()
        assert _referred_to(registry) == {retain_set(), basis()}
        assert registry.patch(first.patch_id) == first
        assert registry.host(HOST) == host(first)
        assert registry.evaluations() == (evaluation(first),)
        assert registry.patch_files(first.patch_id) == files_of("van gogh")


def test_nothing_is_no_registry(tmp_path: Path) -> None:
    for location in (tmp_path, tmp_path / "nowhere", tmp_path / ".rasura"):
        with pytest.raises(NoRegistryError) as caught:
            Registry.open(location)
        assert caught.value.hint == "rasura init"
    assert not any(tmp_path.iterdir())


def test_an_empty_file_is_no_registry(tmp_path: Path) -> None:
    (tmp_path / ".rasura").mkdir()
    (tmp_path / ".rasura" / "registry.db").touch()
    with pytest.raises(NoRegistryError):
        Registry.open(tmp_path)


def test_other_files_are_no_registry(tmp_path: Path) -> None:
    (tmp_path / ".rasura").mkdir()
    (tmp_path / ".rasura" / "registry.db").write_bytes(b"This is no database.\n" * 500)
    with pytest.raises(RegistryError, match="not a database"):
        Registry.open(tmp_path)


def test_the_nearest_registry_is_found_upwards(tmp_path: Path) -> None:
    Registry.create(tmp_path).close()
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (tmp_path / "a" / ".rasura").mkdir()  # a folder of that name without a database is passed by
    assert find_location(inner) == tmp_path / ".rasura"
    with Registry.open(find_location(inner)) as registry:
        assert registry.location.folder == tmp_path / ".rasura"
    Registry.create(inner).close()
    assert find_location(inner) == inner / ".rasura"


def test_no_registry_up_to_the_root(tmp_path: Path) -> None:
    with pytest.raises(NoRegistryError, match=r"expected a \.rasura folder"):
        find_location(tmp_path)


@pytest.mark.parametrize("url", ["mysql://server/db", "sqlite:///x.db", "https://example.org"])
def test_other_databases_are_refused(url: str) -> None:
    with pytest.raises(InputError, match="postgresql"):
        Location.of(url)


def test_a_url_must_say_where_blobs_go(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="blobs"):
        Location.of("postgresql://user:secret@server/db")
    assert Location.of("postgresql://server/db", tmp_path).folder == tmp_path


def test_a_password_is_never_shown(tmp_path: Path) -> None:
    url = f"postgresql://user:secret@127.0.0.1:1/db?blobs={tmp_path / 'home'}"
    with pytest.raises(RegistryError) as caught:
        Registry.create(url)
    assert "secret" not in str(caught.value) + caught.value.hint + str(Location.of(url))
    assert not any(tmp_path.iterdir())


# ── Keys ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_key_is_found_by_name_id_and_abbreviation(registry: Registry) -> None:
    assert registry.add_key(key(), draft("key.add"))
    assert registry.add_key(key("bob", trusted=False), draft("key.add"))
    assert registry.keys() == (key(), key("bob", trusted=False))
    for ref in ("alice", key().key_id, key().key_id[:4], key().key_id[:8].upper()):
        assert registry.key(ref) == key()
    with pytest.raises(NotFoundError):
        registry.key("carol")


def test_a_key_added_twice_is_one(registry: Registry) -> None:
    registry.add_key(key(), draft("key.add"))
    assert not registry.add_key(key(added_at=EPOCH + timedelta(days=1)), draft("key.add"))
    assert len(registry.entries()) == 2


def test_names_and_keys_belong_together(registry: Registry) -> None:
    registry.add_key(key(), draft("key.add"))
    with pytest.raises(ExistsError, match="here as alice"):
        registry.add_key(replace(key(), name="alicia"), draft("key.add"))
    with pytest.raises(ExistsError, match="another key"):
        registry.add_key(replace(key("bob"), name="alice"), draft("key.add"))
    assert registry.keys() == (key(),)
    assert len(registry.entries()) == 2


def test_trust_is_given_and_taken(registry: Registry) -> None:
    registry.add_key(key(trusted=False), draft("key.add"))
    assert registry.set_trusted("alice", trusted=True, entry=draft("key.trust"))
    assert registry.key("alice").trusted
    assert not registry.set_trusted("alice", trusted=True, entry=draft("key.trust"))
    assert registry.set_trusted("alice", trusted=False, entry=draft("key.distrust"))
    assert not registry.key("alice").trusted
    assert [e.action for e in registry.entries(limit=2)] == ["key.distrust", "key.trust"]


def test_a_revocation_keeps_its_first_date(registry: Registry) -> None:
    registry.add_key(key(), draft("key.add"))
    assert registry.revoke_key("alice", EPOCH, draft("key.revoke"))
    assert not registry.revoke_key("alice", EPOCH + timedelta(days=9), draft("key.revoke"))
    assert registry.key("alice").revoked_at == EPOCH


# ── Bases ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_base_is_found_with_its_parameters(registry: Registry) -> None:
    assert registry.add_base(base(), draft("base.add"))
    for ref in ("sd14", base().digest, base().digest[:6]):
        assert registry.base(ref) == base()
    (summary,) = registry.bases()
    assert (summary.name, summary.digest, summary.source) == ("sd14", base().digest, "org/sd14")
    assert registry.entries(limit=1)[0].base == base().digest


def test_weights_and_names_belong_together(registry: Registry) -> None:
    registry.add_base(base(), draft("base.add"))
    assert not registry.add_base(replace(base(), source="elsewhere"), draft("base.add"))
    with pytest.raises(ExistsError, match="here as sd14"):
        registry.add_base(replace(base(), name="mine"), draft("base.add"))
    with pytest.raises(ExistsError, match="other weights"):
        registry.add_base(replace(base("sd15"), name="sd14"), draft("base.add"))
    assert registry.base("sd14").source == "org/sd14"


def test_retain_sets_and_spaces(registry: Registry) -> None:
    """They come with the patches that refer to them, once, and keep the name that they have here."""

    def add(concept: str, prompts: RetainSetRecord) -> None:
        record = patch(concept, basis=basis().digest, retain_set=prompts.digest)
        new = NewPatch(record, files_of(concept), draft("patch.add"), basis(), prompts)
        assert all(registry.add_patches([new]))

    add("van gogh", retain_set())
    add("mickey mouse", replace(retain_set(), name="again"))
    assert _referred_to(registry) == {retain_set(), basis()}
    with pytest.raises(ExistsError, match="the name coco belongs to other prompts"):
        add("dog", replace(retain_set("x"), name="coco"))
    assert _referred_to(registry) == {retain_set(), basis()}


def _referred_to(registry: Registry) -> set[RetainSetRecord | BasisRecord]:
    with registry.reading() as session:
        return {r for r in registry.records(session) if isinstance(r, RetainSetRecord | BasisRecord)}


# ── Patches ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_patch_comes_with_what_it_refers_to(registry: Registry) -> None:
    registry.add_key(key(), draft("key.add"))
    record = patch(basis=basis().digest, retain_set=retain_set().digest, key_id=key().key_id)
    assert registry.add_patch(record, files_of("van gogh"), draft("patch.add"), basis=basis(), retain_set=retain_set())
    assert registry.patches() == (record,)
    entry = registry.entries(limit=1)[0]
    assert (entry.patches, entry.base) == ((record.patch_id,), record.base)
    assert _referred_to(registry) == {retain_set(), basis()}


def test_a_patch_without_what_it_refers_to_is_refused(registry: Registry) -> None:
    for missing in ("basis", "retain_set", "key_id"):
        with pytest.raises(NotFoundError, match="expected its"):
            registry.add_patch(patch(**{missing: digest("nowhere")}), files_of("van gogh"), draft("patch.add"))
    assert registry.patches() == ()
    assert len(registry.entries()) == 1


def test_a_patch_added_twice_is_one(registry: Registry) -> None:
    record = add_patch(registry)
    assert not registry.add_patch(
        replace(record, source="hub"), files_of("van gogh"), draft("patch.add"), basis=basis()
    )
    assert registry.patch(record.patch_id).source == "made here"
    assert _referred_to(registry) == set()
    assert len(registry.entries()) == 2


def test_a_patch_signed_anew_is_the_same_patch(registry: Registry) -> None:
    record = add_patch(registry)
    files = {**files_of("van gogh"), "model.sig": b"signature of van gogh"[::-1]}
    anew = replace(record, files={name: _sha256(data) for name, data in files.items()})
    assert not registry.add_patch(anew, files, draft("patch.add"))
    assert registry.patch(record.patch_id) == record


def test_an_identity_with_other_content_is_refused(registry: Registry) -> None:
    record = add_patch(registry)
    files = {**files_of("van gogh"), "manifest.json": files_of("van gogh")["manifest.json"][::-1]}
    with pytest.raises(ExistsError, match=r"another manifest\.json"):
        registry.add_patch(replace(record, files={n: _sha256(d) for n, d in files.items()}), files, draft("patch.add"))


@pytest.mark.parametrize("damage", ["changed", "missing", "extra", "size"])
def test_files_must_be_those_of_the_record(registry: Registry, damage: str) -> None:
    record, files = patch(), files_of("van gogh")
    if damage == "changed":
        files["manifest.json"] = files["manifest.json"][::-1]
    elif damage == "missing":
        del files["model.sig"]
    elif damage == "extra":
        files["setup.py"] = b""
    else:
        record = replace(record, size=record.size + 1)
    with pytest.raises(DigestMismatchError):
        registry.add_patch(record, files, draft("patch.add"))
    assert registry.patches() == ()
    assert len(registry.entries()) == 1


def new_patch(concept: str, **rest: object) -> NewPatch:
    return NewPatch(patch(concept, **rest), files_of(concept), draft("patch.add"))


def test_patches_added_together_have_an_entry_each(registry: Registry) -> None:
    add_patch(registry, "second")
    before = len(registry.entries())
    new = [new_patch("first"), new_patch("second"), new_patch("third"), new_patch("first")]
    assert registry.add_patches(new) == (True, False, True, False)
    entries = registry.entries(newest=False)[before:]
    assert [entry.patches for entry in entries] == [(new[0].record.patch_id,), (new[2].record.patch_id,)]
    assert entries[0].time < entries[1].time
    assert registry.add_patches(new) == (False,) * 4
    assert registry.add_patches([]) == ()
    assert verify_log(registry).size == before + 2


@pytest.mark.parametrize("damage", ["conflict", "key", "files", "blob", "entry"])
def test_patches_added_together_are_all_there_or_none(registry: Registry, damage: str) -> None:
    conflict = new_patch("second")
    if damage == "conflict":  # the identity is here, with another manifest
        files = {**conflict.files, "manifest.json": conflict.files["manifest.json"][::-1]}
        record = replace(conflict.record, files={name: _sha256(data) for name, data in files.items()})
        registry.add_patch(record, files, draft("patch.add"))
    elif damage == "key":
        conflict = new_patch("second", key_id=digest("nowhere"))
    elif damage == "files":
        conflict = replace(conflict, files={**conflict.files, "manifest.json": b"{}"})
    elif damage == "blob":
        registry.blobs.path(conflict.record.files["manifest.json"]).mkdir(parents=True)
    else:  # the row is good, and the log cannot carry the entry: the last thing that can go wrong before the commit
        conflict = replace(conflict, entry=draft("patch.add", details={"long": "x" * 70_000}))
    patches, entries, memory = registry.patches(), registry.entries(), registry.log_key.recall()
    with pytest.raises((ExistsError, NotFoundError, DigestMismatchError, RegistryError, InputError)):
        registry.add_patches([new_patch("first"), conflict, new_patch("third")])
    assert (registry.patches(), registry.entries()) == (patches, entries)
    assert registry.log_key.recall() == memory
    assert registry.add_patches([new_patch("first"), new_patch("third")]) == (True, True)
    assert verify_log(registry).size == len(entries) + 2


def test_a_crash_around_the_commit_of_several_patches_is_no_alarm(registry: Registry) -> None:
    """What is on disk before the commit and after it, until the memory is settled: the intention explains both."""
    before = registry.head()
    registry.add_patches([new_patch("first"), new_patch("second")])
    after = registry.head()
    assert registry.log_key.recall() == LastSigned(after)
    registry.log_key.remember(LastSigned(before, after))  # the crash came after the commit
    verify_log(registry)
    registry.log_key.remember(LastSigned(after, replace(after, size=after.size + 2, root=bytes(32))))  # or before it
    verify_log(registry)
    assert registry.add_patches([new_patch("third"), new_patch("fourth")]) == (True, True)
    assert verify_log(registry).size == after.size + 2


def test_patches_are_listed_by_age_concept_and_base(registry: Registry) -> None:
    young = patch("young", added_at=EPOCH + timedelta(days=1))
    old = patch("old", base=digest("other"))
    for record, name in ((young, "young"), (old, "old")):
        registry.add_patch(record, files_of(name), draft("patch.add"))
    assert registry.patches() == (old, young)
    assert registry.patches(concept="young style") == (young,)
    assert registry.patches(concept="Young") == ()
    assert registry.patches(base=digest("other")) == (old,)


def test_an_abbreviation_names_one_patch_or_none(registry: Registry) -> None:
    alike = [replace(patch(str(i)), patch_id=PatchId(f"abcd{i}" + "0" * 59)) for i in range(9)]
    for i, record in enumerate(alike):
        registry.add_patch(record, files_of(str(i)), draft("patch.add"))
    assert registry.resolve_patch("abcd3") == registry.resolve_patch("ABCD3000") == alike[3].patch_id
    assert registry.resolve_patch(alike[3].patch_id) == alike[3].patch_id
    with pytest.raises(AmbiguousIdError) as caught:
        registry.resolve_patch("abcd")
    assert caught.value.details["candidates"] == [p.patch_id for p in alike[:8]]
    assert "abcd00000000" in caught.value.message
    for nothing in ("abce", "abc", "", "abc%", "____", "0" * 65, "xyzw", "abcd\n"):
        with pytest.raises(NotFoundError) as missing:
            registry.resolve_patch(nothing)
        assert not isinstance(missing.value, AmbiguousIdError)


def test_a_damaged_blob_is_not_given_out(registry: Registry) -> None:
    record = add_patch(registry)
    path = registry.blobs.path(record.files["manifest.json"])
    path.chmod(0o600)
    path.write_bytes(b"{}")
    with pytest.raises(DigestMismatchError):
        registry.patch_files(record.patch_id)


@pytest.mark.parametrize("text", ["naïve café ☕", "'; DROP TABLE patch; --", "a%b_c", "\u202egnp.exe", "x" * 512])
def test_any_concept_is_kept_as_it_is(registry: Registry, text: str) -> None:
    record = patch("van gogh", concepts=(text,), anchor=text, source=text)
    registry.add_patch(record, files_of("van gogh"), draft("patch.add"))
    assert registry.patches(concept=text) == (record,)


@pytest.mark.parametrize("text", ["", "a\0b", "\ud800", "x" * 513])
def test_what_no_database_can_keep_is_refused_at_the_door(text: str) -> None:
    with pytest.raises(InputError):
        patch(concepts=(text,))


# ── Hosts ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_host_follows_its_stack(registry: Registry) -> None:
    registry.add_base(base(), draft("base.add"))
    first, second = add_patch(registry, "first"), add_patch(registry, "second")
    assert registry.find_host("/models/a") is None
    for record in (host(first), host(first, second, strength=-64), host(second), host()):
        entry = registry.set_host(record, draft("stack.apply", "done"))
        assert entry.host == HOST
        assert registry.host("/models/a") == registry.host(HOST) == record
    assert registry.hosts(patch=first.patch_id) == ()
    registry.set_host(host(first), draft("stack.apply", "done"))
    assert registry.hosts(patch=first.patch_id) == registry.hosts() == (host(first),)


def test_a_host_that_moves_is_the_same_host(registry: Registry) -> None:
    registry.add_base(base(), draft("base.add"))
    registry.set_host(host(), draft("host.add"))
    registry.set_host(host(location="/models/b"), draft("host.move"))
    assert [h.location for h in registry.hosts()] == ["/models/b"]


def test_one_location_has_one_host(registry: Registry) -> None:
    registry.add_base(base(), draft("base.add"))
    registry.set_host(host(), draft("host.add"))
    other = host(host_id=HOST.replace("1", "2"))
    with pytest.raises(ExistsError, match=HOST):
        registry.set_host(other, draft("host.add"))
    assert registry.hosts() == (host(),)


def test_a_host_needs_its_base_and_patches(registry: Registry) -> None:
    with pytest.raises(NotFoundError, match="base"):
        registry.set_host(host(), draft("host.add"))
    registry.add_base(base(), draft("base.add"))
    with pytest.raises(NotFoundError, match="patch"):
        registry.set_host(host(patch()), draft("stack.apply", "done"))
    assert registry.hosts() == ()


@pytest.mark.parametrize("strength", [0, 65, -65, True, 1.0])
def test_strengths_are_sixteenths_up_to_four(strength: int) -> None:
    with pytest.raises(InputError):
        host(patch(), strength=strength)


# ── The log ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_refusals_are_logged(registry: Registry) -> None:
    written = registry.note(draft("stack.apply", "refused", error="check_refused", details={"pair": "a b", "n": 3}))
    assert registry.entries(limit=1) == (written,)
    assert (written.error, dict(written.details), written.reason) == (
        "check_refused",
        {"pair": "a b", "n": 3},
        "because",
    )


@pytest.mark.parametrize("outcome", ["refused", "failed", "begun"])
def test_a_change_is_no_refusal(registry: Registry, outcome: str) -> None:
    with pytest.raises(InputError, match="success or done"):
        registry.add_key(key(), draft("key.add", outcome))
    assert registry.keys() == ()


def test_a_bad_entry_undoes_its_change(registry: Registry) -> None:
    with pytest.raises(InputError):
        registry.add_key(key(), draft("NO GOOD"))
    assert registry.keys() == ()
    assert registry.add_key(key(), draft("key.add"))


def test_entries_are_filtered_and_paged(registry: Registry) -> None:
    first = filled(registry)
    newest = registry.entries()
    assert [e.index for e in newest] == list(range(len(newest)))[::-1]
    assert registry.entries(newest=False) == newest[::-1]
    assert registry.entries(limit=3) + registry.entries(limit=99, after=newest[2].index) == newest
    assert registry.entries(newest=False, after=5, limit=2) == newest[::-1][6:8]
    assert {e.action for e in registry.entries(EntryFilter(patch=first.patch_id))} == {
        "patch.add",
        "evaluation.add",
        "stack.apply",
    }
    assert [e.outcome for e in registry.entries(EntryFilter(host=HOST))] == ["done", "begun"]
    assert [e.index for e in registry.entries(EntryFilter(action="key.add"))] == [1]
    assert [e.action for e in registry.entries(EntryFilter(outcome="begun"))] == ["stack.apply"]
    assert registry.entries(EntryFilter(since=newest[1].time)) == newest[:2]
    assert registry.entries(EntryFilter(action="nothing")) == ()


def test_what_was_begun_waits_for_its_end(registry: Registry) -> None:
    other = HOST.replace("1", "2")
    begun = registry.note(draft("stack.apply", "begun", host=HOST))
    elsewhere = registry.note(draft("stack.apply", "begun", host=other))
    registry.note(draft("stack.apply", "refused", host=HOST))
    assert registry.unfinished() == (begun, elsewhere)
    assert registry.unfinished(HOST) == (begun,)
    done = registry.note(draft("stack.apply", "done", host=HOST))
    assert done.closes == begun.index
    assert registry.unfinished(HOST) == ()
    registry.note(draft("stack.apply", "failed", host=other, closes=elsewhere.index))
    assert registry.unfinished() == ()


def test_an_end_needs_a_beginning(registry: Registry) -> None:
    begun = registry.note(draft("stack.apply", "begun", host=HOST))
    registry.note(draft("stack.apply", "failed", host=HOST, closes=begun.index))
    for index in (0, begun.index, 99):
        with pytest.raises(NotFoundError, match="begun and not ended"):
            registry.note(draft("stack.apply", "failed", closes=index))


def test_ten_thousand_patches_fit_one_entry(registry: Registry) -> None:
    many = tuple(PatchId(digest(i)) for i in range(10_000))
    registry.note(draft("stack.check", "refused", patches=many))
    assert registry.entries(limit=1)[0].patches == many


# ── Several at once ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_reader_sees_one_state(made: Place) -> None:
    with made.open() as registry, made.open() as other, registry.reading() as session:
        assert keys.every(session) == ()
        if made.url is not None:  # a SQLite without WAL lets the writer wait until the reader is done
            other.add_key(key(), draft("key.add"))
        assert keys.every(session) == ()


def test_readers_do_not_stop_writers_for_good(made: Place) -> None:
    with made.open() as registry:
        with registry.reading() as session:
            session.connection()
            failed = _try_writing(made) if made.url is None else None
        assert failed is None or isinstance(failed, BusyError)
        assert registry.add_key(key(), draft("key.add"))


def test_a_writer_waits_and_then_says_who_is_in_the_way(made: Place) -> None:
    with made.open() as registry:
        held, release = threading.Event(), threading.Event()

        def hold() -> None:
            with registry.log_key.locked(5):
                held.set()
                release.wait(20)

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait(20)
        error = _try_writing(made)
        release.set()
        thread.join()
        assert isinstance(error, BusyError)
        assert error.exit_code == 7
        assert registry.add_key(key(), draft("key.add"))


def test_a_database_held_by_another_program_is_busy(made: Place) -> None:
    if made.url is not None:
        pytest.skip("SQLite's lock")
    with sqlite3.connect(made.folder / "registry.db", isolation_level=None) as intruder:
        intruder.execute("BEGIN IMMEDIATE")
        assert isinstance(_try_writing(made), BusyError)
        intruder.execute("ROLLBACK")
    intruder.close()
    assert _try_writing(made) is None


def test_a_postgresql_writer_waits_in_line(made: Place) -> None:
    if made.url is None:
        pytest.skip("PostgreSQL's lock")
    import psycopg

    with psycopg.connect(made.url) as intruder:
        intruder.execute("SELECT pg_advisory_xact_lock(%s)", (_ADVISORY_LOCK,))
        assert isinstance(_try_writing(made), BusyError)
    assert _try_writing(made) is None


# ── Disks ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_readers_open_needs_no_right_to_write(made: Place) -> None:
    with made.open() as registry:
        record = filled(registry)
    before = {path: path.stat().st_mtime_ns for path in made.folder.rglob("*")}
    with made.open() as registry:
        assert registry.patch(record.patch_id[:6]) == record
        assert registry.entries()
    assert {path: path.stat().st_mtime_ns for path in made.folder.rglob("*")} == before


def test_a_log_key_that_is_gone_leaves_a_registry_to_read(made: Place) -> None:
    with made.open() as registry:
        record = filled(registry)
        (registry.keys_folder / "log.pem").unlink()
        assert registry.patch(record.patch_id) == record
        with pytest.raises(RegistryError, match="only be read"):
            registry.add_key(key("bob"), draft("key.add"))
        assert registry.keys() == (key(),)


def test_a_failed_creation_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> object:
        raise InputError("the clock stands still")

    with pytest.raises(InputError):
        Registry.create(tmp_path / "new", now=broken)  # type: ignore[arg-type]
    assert not any((tmp_path / "new").iterdir())
    Registry.create(tmp_path / "new", now=Clock()).close()


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / ".rasura").write_text("mine")
    with pytest.raises(ExistsError):
        Registry.create(tmp_path)
    with pytest.raises(RegistryError, match="cannot make"):
        Registry.create(tmp_path / ".rasura" / "deeper" / "still")
    assert (tmp_path / ".rasura").read_text() == "mine"


def _try_writing(place: Place) -> Exception | None:
    try:
        with Registry.open(place.location, now=Clock(), busy_seconds=0.3) as registry:
            registry.note(draft())
    except BusyError as error:
        return error
    return None


def _sha256(data: bytes) -> Digest:
    return Digest(hashlib.sha256(data).hexdigest())
