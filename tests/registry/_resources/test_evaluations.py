"""Evaluations on SQLite and PostgreSQL: a report comes in whole and strict, and goes out as the bytes it was."""

import hashlib
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.registries.registry_fixtures import (
    EPOCH,
    Place,
    add_patch,
    base,
    digest,
    draft,
    evaluation,
    filled,
    host,
    patch,
    report_of,
)

from rasura.evaluation.report.recorded import MAX_REPORT_BYTES, Report, read_report, record_evaluation
from rasura.patches._io import canonical_json
from rasura.patches._io.json_fields import JsonValue
from rasura.patches.errors import (
    AmbiguousIdError,
    AuditError,
    DigestMismatchError,
    FormatError,
    InputError,
    NotFoundError,
    RasuraError,
)
from rasura.patches.types import Digest
from rasura.registry._resources import evaluations
from rasura.registry._storage.database.database import Database
from rasura.registry._storage.location import Location
from rasura.registry.log.verify import verify_log
from rasura.registry.registry import EntryFilter, Registry

if TYPE_CHECKING:
    from rasura.registry._storage.records.records import PatchRecord

FIRST, SECOND = patch("van gogh"), patch("mickey mouse")


@pytest.fixture
def ready(registry: Registry) -> Registry:
    """With a base and two patches."""
    registry.add_base(base(), draft("base.add"))
    add_patch(registry, "van gogh")
    add_patch(registry, "mickey mouse")
    return registry


def files(registry: Registry) -> set[str]:
    return {str(path) for path in registry.blobs.folder.rglob("*") if path.is_file()}


# ── Recording ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_report_is_recorded_once_and_read_back(ready: Registry) -> None:
    report = report_of(FIRST, SECOND)
    record, new = record_evaluation(ready, report, draft("evaluation.add"))
    assert new
    assert record == evaluation(FIRST, SECOND, added_at=record.added_at)
    assert record.digest == hashlib.sha256(report).hexdigest()
    assert ready.evaluations() == (record,)
    assert ready.evaluation(record.digest[:6]) == ready.evaluation(record.digest.upper()) == record
    assert read_report(ready, record.digest[:6]) == report
    size = len(ready.entries())
    assert record_evaluation(ready, report, draft("evaluation.add")) == (record, False)
    assert len(ready.entries()) == size
    verify_log(ready)


def test_the_log_says_what_was_evaluated(ready: Registry) -> None:
    record, _ = record_evaluation(ready, report_of(FIRST), draft("evaluate", details={"seed": 7}))
    entry = ready.entries(limit=1)[0]
    assert (entry.action, entry.patches, entry.base) == ("evaluation.add", (FIRST.patch_id,), base().digest)
    assert (entry.actor, entry.reason) == ("alice", "because")
    assert dict(entry.details) == {"seed": 7, "evaluation": record.digest, "judge": "a classifier"}
    assert ready.entries(EntryFilter(patch=FIRST.patch_id))[0] == entry


def test_what_a_report_names_must_be_here(ready: Registry) -> None:
    before = len(ready.entries()), files(ready)
    with pytest.raises(NotFoundError, match=f"expected patch {patch('nobody').patch_id[:12]} here"):
        record_evaluation(ready, report_of(FIRST, patch("nobody")), draft("evaluation.add"))
    with pytest.raises(NotFoundError, match=f"expected its base {digest('sd15')[:12]} here"):
        record_evaluation(ready, report_of(FIRST, base=digest("sd15")), draft("evaluation.add"))
    assert ready.evaluations() == ()
    assert (len(ready.entries()), files(ready)) == before


def test_a_report_that_is_not_the_records_is_refused(ready: Registry) -> None:
    before = len(ready.entries()), files(ready)
    with pytest.raises(DigestMismatchError):
        ready.add_evaluation(evaluation(FIRST), report_of(FIRST, judge="me"), draft("evaluation.add"))
    assert ready.evaluations() == ()
    assert (len(ready.entries()), files(ready)) == before


def test_a_bad_entry_undoes_the_row(ready: Registry) -> None:
    with pytest.raises(InputError):
        ready.add_evaluation(evaluation(FIRST), report_of(FIRST), draft("NO GOOD"))
    assert ready.evaluations() == ()
    assert ready.add_evaluation(evaluation(FIRST), report_of(FIRST), draft("evaluation.add"))


def test_evaluations_are_listed_by_age_and_patch(ready: Registry) -> None:
    stacks: list[tuple[PatchRecord, ...]] = [(FIRST,), (SECOND,), (FIRST, SECOND)]
    records = [
        evaluation(*stack, added_at=EPOCH + timedelta(days=age)) for stack, age in zip(stacks, (1, 3, 2), strict=True)
    ]
    for record, stack in zip(records, stacks, strict=True):
        assert ready.add_evaluation(record, report_of(*stack), draft("evaluation.add"))
    first, second, both = records
    assert ready.evaluations() == (second, both, first)
    assert ready.evaluations(FIRST.patch_id) == (both, first)
    assert ready.evaluations(SECOND.patch_id) == (second, both)
    assert ready.evaluations(patch("nobody").patch_id) == ()


def test_strengths_are_kept_in_sixteenths(ready: Registry) -> None:
    stack: dict[str, JsonValue] = {FIRST.patch_id: -64, SECOND.patch_id: 1}
    record, _ = record_evaluation(ready, report_of(patches=stack), draft("evaluation.add"))
    assert dict(ready.evaluation(record.digest).patches) == stack


def test_an_abbreviation_names_one_evaluation_or_none(ready: Registry) -> None:
    found: dict[str, Digest] = {}
    i = 0
    while len(found) == i:  # until two digests begin alike; the four digits are looked for, not waited for
        report = report_of(FIRST, body={"i": i})
        name = hashlib.sha256(report).hexdigest()
        twin = found.get(name[:4])
        found.setdefault(name[:4], Digest(name))
        i += 1
    assert twin is not None
    index = list(found.values()).index(twin)
    for number in (index, i - 1):
        record_evaluation(ready, report_of(FIRST, body={"i": number}), draft("evaluation.add"))
    with pytest.raises(AmbiguousIdError) as caught:
        ready.evaluation(name[:4])
    assert caught.value.details["candidates"] == sorted([twin, name])
    assert ready.evaluation(name).digest == name
    for nothing in ("abc", "", "abc%", "x" * 64, "0" * 64):
        with pytest.raises(NotFoundError) as missing:
            ready.evaluation(nothing)
        assert missing.value.hint == "rasura evaluation list"


def test_ten_thousand_scores_stay_in_the_report(ready: Registry) -> None:
    rows: list[JsonValue] = [{"prompt": f"a picture of number {i}", "hit": i % 3 == 0} for i in range(10_000)]
    record, _ = record_evaluation(ready, report_of(FIRST, body={"scores": rows}), draft("evaluation.add"))
    assert len(Report.from_bytes(read_report(ready, record.digest)).scores) == 10_000


# ── What is found later ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_changed_report_is_not_given_out(ready: Registry) -> None:
    record, _ = record_evaluation(ready, report_of(FIRST), draft("evaluation.add"))
    path = ready.blobs.path(record.digest)
    path.chmod(0o600)
    path.write_bytes(report_of(FIRST, judge="me"))
    with pytest.raises(DigestMismatchError):
        read_report(ready, record.digest)
    verify_log(ready)  # which reads no blobs, of patches neither


def test_a_missing_report_is_told_and_can_be_recorded_again(ready: Registry) -> None:
    report = report_of(FIRST)
    record, _ = record_evaluation(ready, report, draft("evaluation.add"))
    ready.blobs.path(record.digest).unlink()
    with pytest.raises(NotFoundError, match="blob") as caught:
        read_report(ready, record.digest)
    assert "backup" in caught.value.hint
    assert record_evaluation(ready, report, draft("evaluation.add")) == (record, False)
    assert read_report(ready, record.digest) == report


def test_only_reports_are_read(ready: Registry) -> None:
    """Other blobs lie in the same store."""
    with pytest.raises(NotFoundError):
        read_report(ready, FIRST.files["manifest.json"])


def test_an_evaluation_replays_among_others(registry: Registry) -> None:
    first = filled(registry)
    for strength in (8, 16, -16):
        stack: dict[str, JsonValue] = {first.patch_id: strength}
        record_evaluation(registry, report_of(first, patches=stack, body={}), draft("evaluation.add"))
        registry.set_host(host(first, strength=strength), draft("stack.apply", "done"))
        verify_log(registry)
    assert len(registry.evaluations(first.patch_id)) == 4


def test_a_row_that_the_log_does_not_tell_of_is_found(made: Place) -> None:
    """Written by the program's own rows, without an entry."""
    with made.open() as registry:
        filled(registry)
    database = Database(Location.of(made.location))
    with database.writing() as session:
        evaluations.insert(session, evaluation(SECOND))
    database.close()
    with made.open() as registry, pytest.raises(AuditError, match="no entry of the log tells of it"):
        verify_log(registry)


# ── The format ───────────────────────────────────────────────────────────────────────────────────────────────────

GOOD = report_of(FIRST)
LATER = report_of(FIRST, format="rasura-evaluation/2")
ID = str(FIRST.patch_id)
BAD: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"forget: all",
    "a list": b"[]",
    "not canonical": GOOD.replace(b'"base":', b'"base": '),
    "a float": GOOD.replace(b'"n":48', b'"n":48.5'),
    "twice": GOOD.replace(b'"base":', b'"base":"","base":'),
    "another format": report_of(FIRST, format="rasura-patch/1"),
    "a later format": LATER,
    "a field too many": report_of(FIRST, extra=1),
    **{f"no {name}": report_of(FIRST, **{name: None}) for name in ("format", "base", "patches", "judge", "summary", "body")},
    "a base by name": report_of(FIRST, base="sd14"),
    "patches as a list": report_of(FIRST, patches=[ID]),
    "no patches": report_of(patches={}),
    "a patch by name": report_of(patches={"van gogh": 16}),
    "a patch in upper case": report_of(patches={ID.upper(): 16}),
    "strength 0": report_of(patches={ID: 0}),
    "strength 65": report_of(patches={ID: 65}),
    "strength -65": report_of(patches={ID: -65}),
    "strength true": report_of(patches={ID: True}),
    "strength as text": report_of(patches={ID: "16"}),
    "a judge without a name": report_of(FIRST, judge=""),
    "a judge of two lines": report_of(FIRST, judge="a\nb"),
    "a judge with NUL": report_of(FIRST, judge="a\0b"),
    "a long judge": report_of(FIRST, judge="x" * 256),
    "a number as judge": report_of(FIRST, judge=1),
    "summary as text": report_of(FIRST, summary="good"),
    "a score as integer": report_of(FIRST, summary={"forget": 1}),
    "a score that is no number": report_of(FIRST, summary={"forget": "NaN"}),
    "a score in percent": report_of(FIRST, summary={"forget": "97.9%"}),
    "an infinite score": report_of(FIRST, summary={"forget": "1e999"}),
    "a score without a name": report_of(FIRST, summary={"": "1"}),
    "a score that moves the cursor": report_of(FIRST, summary={"\x1b[2J": "1"}),
    "65 scores": report_of(FIRST, summary={str(i): "1" for i in range(65)}),
    "body as list": report_of(FIRST, body=[]),
    "too long": report_of(FIRST, body={"x": "x" * MAX_REPORT_BYTES}),
}  # fmt: skip


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """What the format refuses does not depend on the database."""
    with Registry.create(tmp_path_factory.mktemp("format")) as registry:
        registry.add_base(base(), draft("base.add"))
        add_patch(registry, "van gogh")
        yield registry


@pytest.mark.parametrize("name", BAD)
def test_another_report_is_refused_and_leaves_nothing(sqlite: Registry, name: str) -> None:
    before = len(sqlite.entries()), files(sqlite)
    with pytest.raises(FormatError, match="evaluation report"):
        record_evaluation(sqlite, BAD[name], draft("evaluation.add"))
    assert (len(sqlite.entries()), files(sqlite), sqlite.evaluations()) == (*before, ())


def test_a_later_format_says_what_to_do() -> None:
    with pytest.raises(FormatError, match="rasura-evaluation/1") as caught:
        Report.from_bytes(LATER)
    assert "upgrade" in caught.value.hint


@given(st.binary(max_size=200))
def test_any_bytes_are_a_report_or_a_typed_refusal(data: bytes) -> None:
    with pytest.raises(FormatError):
        Report.from_bytes(data)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=6), _JSON, max_size=4))
def test_a_body_may_be_any_object(body: dict[str, JsonValue]) -> None:
    try:
        data = report_of(FIRST, body=body)
    except RasuraError:  # a lone surrogate
        return
    assert canonical_json.dumps(Report.from_bytes(data).body) == canonical_json.dumps(body)


@pytest.mark.parametrize(
    ("body", "rows"),
    [
        ({}, 0),
        ({"scores": []}, 0),
        ({"scores": [{"a": 1}, {"b": "x", "c": None, "d": True}]}, 2),
        ({"scores": [{"a": 1}, {"b": [1]}]}, 0),
        ({"scores": [{"a": 1}, {"b": {}}]}, 0),
        ({"scores": [{"a": 1}, 2]}, 0),
        ({"scores": {"a": 1}}, 0),
        ({"scores": "many"}, 0),
    ],
)
def test_scores_are_a_list_of_flat_objects_or_nothing(body: dict[str, JsonValue], rows: int) -> None:
    assert len(Report.from_bytes(report_of(FIRST, body=body)).scores) == rows


def test_a_record_keeps_no_hand_on_what_it_was_made_of() -> None:
    summary = {"forget": "1"}
    record = evaluation(FIRST, summary=summary)
    summary["forget"] = "0"
    assert dict(record.summary) == {"forget": "1"}
    with pytest.raises(TypeError):
        record.summary["forget"] = "0"  # type: ignore[index]
    with pytest.raises(InputError, match="at least one patch"):
        evaluation()
