"""The bytes of an audit entry: one golden vector, a round trip, and what no entry may say."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.registries.registry_fixtures import (
    EPOCH,
    HOST,
    base,
    basis,
    digest,
    draft,
    evaluation,
    host,
    key,
    patch,
    retain_set,
    stack,
)

from rasura.patches.errors import FormatError, InputError
from rasura.patches.types import Digest, PatchId
from rasura.registry._storage.records.case_record import CaseRecord
from rasura.registry._storage.records.choices import PolicyRecord
from rasura.registry._storage.records.records import Draft
from rasura.registry.log.entries.entry import MAX_LISTED, Placement, RowChange, decode, encode, read_carefully
from rasura.registry.log.entries.entry_changes import encode_change, removal_of
from rasura.registry.log.entries.plain_form import read_quickly
from rasura.registry.log.entries.record_digest import fingerprint
from rasura.registry.log.merkle import hash_leaf

PLACE = Placement(
    "rasura/log/00112233445566778899aabbccddeeff",
    42,
    "00000000-0000-4000-8000-00000000002a",
    datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=UTC),
)
FULL = Draft(
    actor="alice",
    reason='Grüße, ticket "118"\n',
    action="stack.apply",
    outcome="done",
    patches=(PatchId("a" * 64), PatchId("b" * 64)),
    base=Digest("c" * 64),
    host=HOST,
    before=Digest("d" * 64),
    after=Digest("e" * 64),
    details={"layers": 32, "device": "cpu"},
    closes=41,
)
CHANGE = RowChange("host", HOST, Digest("f" * 64), {PatchId("a" * 64): 16, PatchId("b" * 64): 0})
GOLDEN = (
    '{"actor":{"name":"alice"},"base":"'
    + "c" * 64
    + '","changes":[{"applied":{"'
    + "a" * 64
    + '":16,"'
    + "b" * 64
    + '":0},'
    '"id":"00000000-0000-4000-8000-000000000001","kind":"host","record":"' + "f" * 64 + '"}],"closes":41,'
    '"details":{"device":"cpu","layers":32},"effect":{"after":"' + "e" * 64 + '","before":"' + "d" * 64 + '"},'
    '"host":"00000000-0000-4000-8000-000000000001","id":"00000000-0000-4000-8000-00000000002a","index":42,'
    '"log":"rasura/log/00112233445566778899aabbccddeeff","outcome":{"status":"done"},'
    '"patches":["' + "a" * 64 + '","' + "b" * 64 + '"],"reason":{"text":"Grüße, ticket \\"118\\"\\n"},'
    '"time":"2026-01-31T12:00:00.123456Z","type":"stack.apply","v":1}'
)
GOLDEN_LEAF = "219e4c036055bc3759463606a1cb30e4ecd88f06577b896e03fccd9519e5c22a"


def test_an_entry_has_these_bytes_for_ever() -> None:
    data = encode(FULL, PLACE, [CHANGE])
    assert data.decode() == GOLDEN
    assert hash_leaf(data).hex() == GOLDEN_LEAF


GONE_CHANGE = RowChange("stack", "brand", None)
GONE = (
    '{"actor":{"name":"alice"},"changes":[{"gone":true,"id":"brand","kind":"stack"}],"details":{"stack":"brand"},'
    '"id":"00000000-0000-4000-8000-00000000002a","index":42,"log":"rasura/log/00112233445566778899aabbccddeeff",'
    '"outcome":{"status":"success"},"patches":[],"reason":{"text":""},"time":"2026-01-31T12:00:00.123456Z",'
    '"type":"stack.delete","v":1}'
)
GONE_LEAF = "ed437292a8573af91b1de216b0700aa346c74751910a6ea761852597fa1d7b67"


def test_an_entry_of_a_removal_has_these_bytes_for_ever() -> None:
    removal = Draft("alice", "", "stack.delete", "success", details={"stack": "brand"})
    data = encode(removal, PLACE, [removal_of(stack("brand", patch()))])
    assert data.decode() == GONE
    assert hash_leaf(data).hex() == GONE_LEAF
    assert decode(data)[2] == (GONE_CHANGE,)


@pytest.mark.parametrize(
    "change",
    [
        '{"gone":false,"id":"brand","kind":"stack"}',
        '{"gone":1,"id":"brand","kind":"stack"}',
        '{"gone":true,"id":"brand","kind":"patch"}',
        '{"applied":{},"gone":true,"id":"brand","kind":"stack"}',
        '{"gone":true,"id":"brand","kind":"stack","record":"' + "f" * 64 + '"}',
        '{"id":"brand","kind":"stack"}',
    ],
)
def test_a_removal_is_read_strictly(change: str) -> None:
    with pytest.raises(FormatError):
        decode(GONE.replace('{"gone":true,"id":"brand","kind":"stack"}', change).encode())


def test_an_entry_reads_back() -> None:
    record, place, changes = decode(encode(FULL, PLACE, [CHANGE]), FULL.patches)
    assert (place, changes) == (PLACE, (CHANGE,))
    assert (record.actor, record.reason, record.action, record.outcome) == ("alice", FULL.reason, "stack.apply", "done")
    assert (record.before, record.after, record.base, record.host) == ("d" * 64, "e" * 64, "c" * 64, HOST)
    assert dict(record.details) == {"layers": 32, "device": "cpu"}
    assert (record.index, record.closes, record.error, record.time) == (42, 41, None, PLACE.time)


def test_the_same_moment_has_one_spelling() -> None:
    abroad = replace(PLACE, time=PLACE.time.astimezone(timezone(timedelta(hours=9))))
    assert encode(FULL, abroad) == encode(FULL, PLACE)


def test_many_patches_become_a_number_and_a_digest() -> None:
    patches = tuple(PatchId(digest(i)) for i in range(10_000))
    data = encode(replace(FULL, patches=patches), PLACE)
    assert len(data) < 2000
    assert decode(data, patches)[0].patches == patches
    with pytest.raises(FormatError, match="not those it names"):
        decode(data, patches[::-1])


def test_a_host_with_many_moves_is_told_by_digest() -> None:
    few = host(*(patch(str(i)) for i in range(MAX_LISTED)))
    many = host(*(patch(str(i)) for i in range(MAX_LISTED + 1)))
    assert encode_change(few).applied == few.applied
    assert encode_change(many).applied is None
    moved = encode_change(replace(many, applied={}), many)
    assert moved.applied is None
    assert moved.record == fingerprint(replace(many, applied={}))
    assert encode_change(host(patch("a")), host(patch("b"))).applied == {
        patch("a").patch_id: 16,
        patch("b").patch_id: 0,
    }


def test_a_stack_is_told_of_as_a_host_is() -> None:
    two = patch("a"), patch("b")
    assert encode_change(stack("brand", *two)).applied == {p.patch_id: 16 for p in two}
    assert encode_change(stack("brand", two[0]), stack("brand", *two)).applied == {two[1].patch_id: 0}
    many = stack("brand", *(patch(str(i)) for i in range(MAX_LISTED + 1)))
    assert encode_change(many).applied is None
    assert encode_change(many).record == fingerprint(many)


BAD = {
    "no actor": {"actor": ""},
    "long actor": {"actor": "x" * 256},
    "NUL": {"reason": "a\0b"},
    "lone surrogate": {"reason": "\ud800"},
    "long reason": {"reason": "x" * 4097},
    "shouted action": {"action": "Patch.Add"},
    "newline after the action": {"action": "patch.add\n"},
    "unknown outcome": {"outcome": "maybe"},
    "short patch": {"patches": (PatchId("ab"),)},
    "upper-case base": {"base": Digest("C" * 64)},
    "host that is no UUID": {"host": "/models/a"},
    "braces around the UUID": {"host": "{" + HOST + "}"},
    "float detail": {"details": {"x": 0.5}},
    "true detail": {"details": {"x": True}},
    "list detail": {"details": {"x": []}},
    "huge detail": {"details": {"x": 2**53}},
    "many details": {"details": {str(i): i for i in range(65)}},
    "too much in all": {"details": {str(i): "x" * 4096 for i in range(20)}},
    "empty error": {"error": ""},
}


@pytest.mark.parametrize("name", BAD)
def test_what_the_log_cannot_carry_is_refused(name: str) -> None:
    with pytest.raises(InputError):
        encode(replace(FULL, **BAD[name]), PLACE)  # type: ignore[arg-type]


def test_a_transaction_has_a_bounded_number_of_changes() -> None:
    assert decode(encode(FULL, PLACE, [CHANGE] * 64), FULL.patches)[2] == (CHANGE,) * 64
    with pytest.raises(InputError, match="at most 64 changes"):
        encode(FULL, PLACE, [CHANGE] * 65)


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(InputError, match="time zone"):
        encode(FULL, replace(PLACE, time=PLACE.time.replace(tzinfo=None)))


DATA = encode(FULL, PLACE, [CHANGE])
FORGED = {
    "space": DATA.replace(b'"v":1', b'"v": 1'),
    "other order": b'{"v":1,' + DATA[1:].replace(b',"v":1', b""),
    "another version": DATA.replace(b'"v":1', b'"v":2'),
    "unknown field": DATA.replace(b'"v":1', b'"v":1,"w":1'),
    "unknown field inside": DATA.replace(b'{"name":"alice"}', b'{"mail":"a@b","name":"alice"}'),
    "duplicate field": DATA.replace(b'"v":1', b'"v":1,"v":1'),
    "unknown outcome": DATA.replace(b'"done"', b'"fine"'),
    "no time": DATA.replace(b"2026-01-31T12:00:00.123456Z", b"2026-13-31T12:00:00.123456Z"),
    "another form of time": DATA.replace(b"2026-01-31T12:00:00.123456Z", b"2026-01-31T12:00:00.1234560Z"),
    "float": DATA.replace(b'"layers":32', b'"layers":32.0'),
    "cut": DATA[:-1],
    "empty": b"",
    "list": b"[]",
    "not UTF-8": b"\xff" + DATA,
    "too long": DATA + b" " * 65_535,
}


@pytest.mark.parametrize("name", FORGED)
def test_other_bytes_are_no_entry(name: str) -> None:
    assert FORGED[name] != DATA
    with pytest.raises(FormatError):
        decode(FORGED[name], FULL.patches)


@given(st.binary(max_size=200))
def test_any_bytes_are_an_entry_or_a_typed_refusal(data: bytes) -> None:
    with pytest.raises(FormatError):
        decode(data)


@given(
    st.text(max_size=50),
    st.dictionaries(
        st.text(min_size=1, max_size=8), st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=9), max_size=5
    ),
)
def test_whatever_can_be_written_can_be_read(reason: str, details: dict[str, str | int]) -> None:
    written = replace(FULL, reason=reason, details=details)
    try:
        data = encode(written, PLACE)
    except InputError:
        assert "\0" in reason + "".join(map(str, [*details, *details.values()])) or not all(details)
        return
    record = decode(data, FULL.patches)[0]
    assert (record.reason, dict(record.details)) == (reason, details)


def test_a_fingerprint_covers_every_field() -> None:
    said = {"text": digest("text")}
    case = CaseRecord("T-1", EPOCH, EPOCH, EPOCH, None, held=False, forgotten_at=None, commitments=said)
    chosen = stack("brand", patch()), PolicyRecord("registry", digest("policy"), EPOCH), case
    for record in (key(), base(), retain_set(), basis(), patch(), host(patch()), evaluation(patch()), *chosen):
        seen = {fingerprint(record)}
        for name in record.__dataclass_fields__:
            changed = replace(record, **{name: _other(name, getattr(record, name))})  # type: ignore[arg-type]
            assert fingerprint(changed) not in seen, name
            seen.add(fingerprint(changed))
        assert fingerprint(replace(record)) in seen


def _other(name: str, value: object) -> object:
    """A sound value of the same kind that is not this one."""
    if isinstance(value, str):
        return {64: value[::-1], 36: value.replace("1", "2")}.get(len(value), value + "x")
    if isinstance(value, bool | int):
        return not value if isinstance(value, bool) else value - 1
    if isinstance(value, datetime):
        return value + timedelta(microseconds=1)
    if value is None:
        return datetime(2026, 1, 1, tzinfo=UTC) if name.endswith("_at") else digest("other")
    if name == "patches":
        assert isinstance(value, Mapping)
        return {patch_id: strength - 1 for patch_id, strength in value.items()}
    return value[1:] if isinstance(value, tuple) else {}


def test_drafts_of_the_tests_are_sound() -> None:
    assert encode(draft(), PLACE)


TEXTS = st.text(st.characters(min_codepoint=0x1F, max_codepoint=0x80), max_size=6)
PLAIN_DRAFTS = st.builds(
    Draft,
    actor=TEXTS.filter(lambda text: "\x1f" not in text and text.strip() != ""),
    reason=TEXTS,
    action=st.sampled_from(["patch.apply", "log.rotate"]),
    outcome=st.sampled_from(["success", "refused", "begun"]),
    patches=st.lists(st.sampled_from([PatchId("a" * 64), PatchId("b" * 64)]), max_size=3).map(tuple),
    base=st.none() | st.just(Digest("c" * 64)),
    host=st.none() | st.just(HOST),
    before=st.none() | st.just(Digest("d" * 64)),
    after=st.none() | st.just(Digest("e" * 64)),
    details=st.dictionaries(TEXTS, TEXTS | st.integers(-3, 2**53 - 1), max_size=3),
    error=st.none() | st.just("host"),
    closes=st.none() | st.integers(0, 2**53 - 1),
)


MOVES = st.dictionaries(st.sampled_from([PatchId(each * 64) for each in "abc"]), st.integers(-64, 64), max_size=3)
PLAIN_CHANGES = st.lists(
    st.builds(RowChange, st.sampled_from(["host", "stack"]), TEXTS, st.just(Digest("f" * 64)), st.none() | MOVES)
    | st.builds(RowChange, st.just("stack"), TEXTS, st.none()),
    max_size=3,
)
SPOILT = list(b'"{}[],:0129-aez\\\x00\x7f\xc3')


@given(PLAIN_DRAFTS, PLAIN_CHANGES, st.data())
def test_the_quick_reader_says_what_the_careful_one_says_or_nothing(
    draft: Draft, changes: list[RowChange], draw: st.DataObject
) -> None:
    try:
        body = encode(draft, PLACE, changes)
    except InputError:
        return
    quick = read_quickly(body, draft.patches)
    if quick is not None:
        assert quick == read_carefully(body, draft.patches) == read_quickly(body, None)
    elif body.isascii() and b"\\" not in body and b"\x7f" not in body:
        raise AssertionError(body)  # then nothing would be quick
    at = draw.draw(st.integers(0, len(body) - 1))
    other = draw.draw(st.sampled_from(SPOILT))
    bad = draw.draw(
        st.sampled_from([body[:at] + bytes([other]) + body[at + 1 :], body[:at] + body[at + 1 :], body + b" "])
    )
    for listed in (draft.patches, None):
        found = read_quickly(bad, listed)
        if found is not None:
            assert found == read_carefully(bad, listed)


A64, B64, F64 = ("a" * 64, "b" * 64, "f" * 64)


@pytest.mark.parametrize(
    "changes",
    [
        f'{{"applied":{{"{B64}":1,"{A64}":1}},"id":"x","kind":"host","record":"{F64}"}}',
        f'{{"applied":{{"{A64}":1,"{A64}":2}},"id":"x","kind":"host","record":"{F64}"}}',
        f'{{"applied":{{"{A64}":-0}},"id":"x","kind":"host","record":"{F64}"}}',
        f'{{"applied":{{"{A64}":65}},"id":"x","kind":"host","record":"{F64}"}}',
        f'{{"applied":{{"{A64}":-65}},"id":"x","kind":"host","record":"{F64}"}}',
        f'{{"applied":{{"{A64}":01}},"id":"x","kind":"host","record":"{F64}"}}',
        f'{{"id":"{"x" * 65}","kind":"host","record":"{F64}"}}',
        f'{{"id":"x","kind":"{"k" * 33}","record":"{F64}"}}',
        f'{{"id":"x","kind":"host","record":"{F64}"}},',
        f'{{"id":"x","kind":"host","record":"{"F" * 64}"}}',
        f'{{"gone":true,"id":"x","kind":"stack","record":"{F64}"}}',
        '{"gone":true,"id":"x","kind":"host"}',
        '{"gone":false,"id":"x","kind":"stack"}',
        '{"id":"x","kind":"stack"}',
        ",".join([f'{{"id":"x","kind":"host","record":"{F64}"}}'] * 65),
    ],
)
def test_no_reader_takes_changes_that_are_none(changes: str) -> None:
    body = encode(replace(FULL, reason=""), PLACE).replace(b'"changes":[]', f'"changes":[{changes}]'.encode())
    assert read_quickly(body, FULL.patches) is None
    with pytest.raises(FormatError):
        read_carefully(body, FULL.patches)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"before":', b',"before":'),
        (b'"closes":41', b'"closes":9007199254740993'),
        (b'"index":42', b'"index":9007199254740993'),
        (b"2026-01-31T", b"2026-02-30T"),
        (b"T12:", b"T24:"),
        (b'"layers":32', b'"layers":-0'),
        (b'"layers":32', b'"device":"gpu"'),
    ],
)
def test_no_reader_takes_numbers_times_and_names_that_are_none(old: bytes, new: bytes) -> None:
    body = encode(replace(FULL, reason="", after=None), PLACE, [CHANGE])
    assert old in body
    assert read_quickly(body, FULL.patches) is not None
    assert read_quickly(body.replace(old, new), FULL.patches) is None
    with pytest.raises(FormatError):
        read_carefully(body.replace(old, new), FULL.patches)
