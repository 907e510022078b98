"""Canonical JSON: one spelling per value, one reading per document."""

import json
import math
from collections.abc import Callable
from random import Random
from types import MappingProxyType

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from rasura.patches._io import canonical_json
from rasura.patches._io.canonical_json import Fields, JsonValue
from rasura.patches.errors import FormatError

LIMIT = 2_000_000

GOLDEN: dict[str, tuple[JsonValue, bytes]] = {
    "scalars": ([None, True, False, 0, -1, "x"], b'[null,true,false,0,-1,"x"]'),
    "largest integers": ([2**53 - 1, -(2**53) + 1], b"[9007199254740991,-9007199254740991]"),
    "empty": ({"a": [], "b": {}, "": ""}, b'{"":"","a":[],"b":{}}'),
    # RFC 8785 §3.2.2.2, the string of its example.
    "escapes": ('\u20ac$\u000f\nA\'B"\\\\"/', b'"\xe2\x82\xac$\\u000f\\nA\'B\\"\\\\\\\\\\"/"'),
    # RFC 8785 §3.2.3: keys sort by UTF-16 code units, so the emoji (a surrogate pair) comes before U+FB33.
    "key order": (
        {"\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\U0001f600": 5, "\u0080": 6, "\u00f6": 7},
        '{"\\r":2,"1":4,"\u0080":6,"\u00f6":7,"\u20ac":1,"\U0001f600":5,"\ufb33":3}'.encode(),
    ),
    "mappings and tuples": (MappingProxyType({"b": (1, 2), "a": MappingProxyType({})}), b'{"a":{},"b":[1,2]}'),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_values_have_exactly_these_bytes(name: str) -> None:
    value, data = GOLDEN[name]
    assert canonical_json.dumps(value) == data
    assert canonical_json.dumps(canonical_json.loads(data, what="golden", limit=LIMIT)) == data


NOT_JSON: dict[str, bytes] = {
    "nothing": b"",
    "byte order mark": b"\xef\xbb\xbf{}",
    "latin-1": b'{"a":"\xe9"}',
    "overlong utf-8": b'"\xc0\xaf"',
    "utf-8 surrogate": b'"\xed\xa0\x80"',
    "cut short": b'{"a":',
    "two documents": b"{}{}",
    "trailing nul": b"{}\x00",
    "duplicate key": b'{"a":1,"a":1}',
    "duplicate key inside": b'{"x":[{"a":1,"b":2,"a":3}]}',
    "escaped duplicate key": b'{"\\u0061":1,"a":2}',
    "NaN": b"[NaN]",
    "Infinity": b"[Infinity]",
    "minus Infinity": b"[-Infinity]",
    "overflowing float": b"[1e999]",
    "integer of 5000 digits": b"9" * 5000,
    "2^53": b"9007199254740992",
    "-2^53": b"-9007199254740992",
    "lone surrogate": b'"\\ud800"',
    "lone surrogate as key": b'{"\\udfff":1}',
    "200 000 levels of lists": b"[" * 200_000,
    "200 000 closed levels": b"[" * 200_000 + b"]" * 200_000,
    "200 000 levels of objects": b'{"a":' * 200_000,
    "65 levels": b"[" * 65 + b"]" * 65,
    "raw control character": b'"\x01"',
    "raw newline in a text": b'"a\nb"',
    "single quotes": b"{'a':1}",
    "comment": b"{}//",
    "trailing comma": b"[1,]",
    "leading zero": b"[01]",
    "plus": b"[+1]",
    "hexadecimal": b"[0x1]",
    "too long": b'"' + b"a" * LIMIT + b'"',
}
"""Documents that no reader of ours takes."""

NOT_CANONICAL: dict[str, bytes] = {
    "space before": b' {"a":1}',
    "newline after": b'{"a":1}\n',
    "space inside": b'{"a": 1}',
    "keys out of order": b'{"b":1,"a":2}',
    "keys by code point": '{"\ufb33":3,"\U0001f600":5}'.encode(),
    "minus zero": b"[-0]",
    "escaped letter": b'"\\u0061"',
    "escaped slash": b'"\\/"',
    "escaped emoji": b'"\\ud83d\\ude00"',
    "upper-case escape": b'"\\u000F"',
    "escape with a short form": b'"\\u000a"',
}
"""Right JSON in another spelling: `parse` takes it, `loads` does not."""


@pytest.mark.parametrize("name", NOT_JSON)
@pytest.mark.parametrize("floats", [False, True])
def test_bad_documents_are_refused_by_name(name: str, floats: bool) -> None:
    with pytest.raises(FormatError, match=r"^the manifest: expected .+, got .+"):
        canonical_json.parse(NOT_JSON[name], what="the manifest", limit=LIMIT, floats=floats)
    with pytest.raises(FormatError, match=r"^the manifest: "):
        canonical_json.loads(NOT_JSON[name], what="the manifest", limit=LIMIT)


@pytest.mark.parametrize("name", NOT_CANONICAL)
def test_other_spellings_are_parsed_and_not_loaded(name: str) -> None:
    value = canonical_json.parse(NOT_CANONICAL[name], what="m", limit=LIMIT)
    assert value == json.loads(NOT_CANONICAL[name])
    with pytest.raises(FormatError, match="expected canonical JSON"):
        canonical_json.loads(NOT_CANONICAL[name], what="m", limit=LIMIT)


def test_messages_stay_short_however_long_the_value() -> None:
    for data in (b"9" * 100_000, b'{"' + b"k" * 1000 + b'":1,"' + b"k" * 1000 + b'":1}'):
        with pytest.raises(FormatError) as caught:
            canonical_json.parse(data, what="m", limit=LIMIT)
        assert len(caught.value.message) < 200


def test_the_limit_counts_bytes_and_is_inclusive() -> None:
    assert canonical_json.loads(b'"ab"', what="m", limit=4) == "ab"
    with pytest.raises(FormatError, match="expected at most 3 bytes, got 4"):
        canonical_json.loads(b'"ab"', what="m", limit=3)


def test_64_levels_are_read_wherever_the_caller_stands_on_the_stack() -> None:
    data = b"[" * 64 + b"]" * 64

    def deep(levels: int) -> JsonValue:
        return deep(levels - 1) if levels else canonical_json.loads(data, what="m", limit=LIMIT)

    assert canonical_json.dumps(deep(500)) == data


def test_floats_are_read_on_request_and_never_written() -> None:
    assert canonical_json.parse(b'{"eps":1e-05}', what="config.json", limit=LIMIT, floats=True) == {"eps": 1e-05}
    with pytest.raises(FormatError, match="no floats"):
        canonical_json.parse(b'{"eps":1e-05}', what="config.json", limit=LIMIT)
    with pytest.raises(FormatError, match="JSON without floats"):
        canonical_json.dumps({"eps": 1e-05})
    with pytest.raises(FormatError):
        canonical_json.loads(b"1.0", what="m", limit=LIMIT)


@pytest.mark.parametrize(
    "value", [1.0, math.nan, {1: 2}, {"a": {2}}, b"bytes", 2**53, "\ud800", {"\ud800": 1}, object()]
)
def test_what_is_no_canonical_json_is_not_written(value: object) -> None:
    with pytest.raises(FormatError, match="expected"):
        canonical_json.dumps(value)  # type: ignore[arg-type]


def test_a_value_that_holds_itself_is_refused() -> None:
    loop: list[JsonValue] = []
    loop.append(loop)
    with pytest.raises(FormatError, match="levels"):
        canonical_json.dumps(loop)


texts = st.text(st.characters(codec="utf-8"), max_size=20)
integers = st.integers(-(2**53) + 1, 2**53 - 1)
values: st.SearchStrategy[JsonValue] = st.recursive(
    st.none() | st.booleans() | integers | texts,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5),
    max_leaves=25,
)


@given(values)
@settings(deadline=None)
def test_loading_inverts_dumping(value: JsonValue) -> None:
    data = canonical_json.dumps(value)
    loaded = canonical_json.loads(data, what="m", limit=LIMIT)
    assert loaded == value
    assert canonical_json.dumps(loaded) == data


ascii_keys = st.recursive(
    st.none() | st.booleans() | integers | texts,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(st.characters(max_codepoint=127)), inner),
    max_leaves=25,
)


@given(values | ascii_keys)
@settings(deadline=None)
def test_what_writes_fast_writes_what_the_library_writes(value: JsonValue) -> None:
    assert canonical_json.dumps(value) == rfc8785.dumps(value)


@given(values, st.data())
@settings(deadline=None)
def test_bytes_are_either_refused_or_the_one_spelling(value: JsonValue, data: st.DataObject) -> None:
    changed = bytearray(canonical_json.dumps(value))
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        loaded = canonical_json.loads(bytes(changed), what="m", limit=LIMIT)
    except FormatError:
        return
    assert canonical_json.dumps(loaded) == bytes(changed)


@given(st.dictionaries(texts, integers, min_size=2), st.randoms())
@settings(deadline=None)
def test_the_order_of_insertion_leaves_no_trace(value: dict[str, int], random: Random) -> None:
    pairs = list(value.items())
    random.shuffle(pairs)
    assert canonical_json.dumps(dict(pairs)) == canonical_json.dumps(value)


# Fields


def fields(data: bytes) -> Fields:
    return Fields.of(canonical_json.parse(data, what="the manifest", limit=LIMIT), "the manifest")


def test_fields_read_what_is_there() -> None:
    some = fields(
        b'{"t":"ab","i":-3,"s":[2,0],"f":true,"d":"%s","n":"-1.5e-05","c":"x","o":{"k":1},"l":[1,"2"],"w":["p","q"],"r":[{"a":1},{"a":2}],"z":null}'
        % (b"0f" * 32)
    )
    assert some.text("t", r"[a-z]+", limit=2) == "ab"
    assert some.integer("i", -3, 3) == -3
    assert some.integers("s", 2, 0, 2) == (2, 0)
    assert some.flag("f") is True
    assert some.digest("d") == "0f" * 32
    assert some.decimal("n") == "-1.5e-05"
    assert some.choice("c", ("x", "y")) == "x"
    assert some.fields("o").integer("k", 1, 1) == 1
    assert some.items("l", 2) == [1, "2"]
    assert some.texts("w", 2) == ("p", "q")
    assert [record.integer("a", 0, 9) for record in some.records("r", 2)] == [1, 2]
    assert some.optional("absent", some.text) is None
    assert some.is_null("z")
    assert not some.is_null("t")
    assert not some.is_null("absent")
    some.done()


def only_y(some: Fields) -> None:
    some.value("y")
    some.done()


BAD_FIELDS: dict[str, tuple[bytes, Callable[[Fields], object]]] = {
    "absent": (b"{}", lambda f: f.text("x")),
    "text: null": (b'{"x":null}', lambda f: f.text("x")),
    "text: too long": (b'{"x":"abc"}', lambda f: f.text("x", limit=2)),
    "text: pattern in part": (b'{"x":"ab1"}', lambda f: f.text("x", "[a-z]+")),
    "text: newline at the end": (b'{"x":"ab\\n"}', lambda f: f.text("x", "[a-z]+$")),
    "integer: text": (b'{"x":"1"}', lambda f: f.integer("x", 0, 2)),
    "integer: true": (b'{"x":true}', lambda f: f.integer("x", 0, 2)),
    "integer: below": (b'{"x":-1}', lambda f: f.integer("x", 0, 2)),
    "integer: above": (b'{"x":3}', lambda f: f.integer("x", 0, 2)),
    "integers: one is true": (b'{"x":[1,true]}', lambda f: f.integers("x", 2, 0, 2)),
    "integers: too many": (b'{"x":[1,1,1]}', lambda f: f.integers("x", 2, 0, 2)),
    "flag: 1": (b'{"x":1}', lambda f: f.flag("x")),
    "digest: upper case": (b'{"x":"%s"}' % (b"0F" * 32), lambda f: f.digest("x")),
    "digest: short": (b'{"x":"%s"}' % (b"0f" * 31), lambda f: f.digest("x")),
    "digest: newline": (b'{"x":"%s\\n"}' % (b"0f" * 32), lambda f: f.digest("x")),
    "decimal: nan": (b'{"x":"nan"}', lambda f: f.decimal("x")),
    "decimal: inf": (b'{"x":"inf"}', lambda f: f.decimal("x")),
    "decimal: overflow": (b'{"x":"1e999"}', lambda f: f.decimal("x")),
    "decimal: plus": (b'{"x":"+1"}', lambda f: f.decimal("x")),
    "decimal: double negation": (b'{"x":"--1"}', lambda f: f.decimal("x")),
    "decimal: leading zero": (b'{"x":"01"}', lambda f: f.decimal("x")),
    "decimal: leading dot": (b'{"x":".5"}', lambda f: f.decimal("x")),
    "decimal: underscore": (b'{"x":"1_0"}', lambda f: f.decimal("x")),
    "decimal: Arabic digit": ('{"x":"\u0661"}'.encode(), lambda f: f.decimal("x")),
    "decimal: number": (b'{"x":1}', lambda f: f.decimal("x")),
    "choice: another": (b'{"x":"c"}', lambda f: f.choice("x", ("a", "b"))),
    "choice: a list": (b'{"x":["a"]}', lambda f: f.choice("x", ("a", "b"))),
    "fields: a list": (b'{"x":[]}', lambda f: f.fields("x")),
    "items: an object": (b'{"x":{}}', lambda f: f.items("x")),
    "items: a text": (b'{"x":"ab"}', lambda f: f.items("x")),
    "items: too many": (b'{"x":[1,2]}', lambda f: f.items("x", 1)),
    "texts: one is no text": (b'{"x":["a",1]}', lambda f: f.texts("x")),
    "texts: one too long": (b'{"x":["a","bc"]}', lambda f: f.texts("x", characters=1)),
    "records: one is no object": (b'{"x":[{},1]}', lambda f: list(f.records("x"))),
    "optional: present and wrong": (b'{"x":1}', lambda f: f.optional("x", f.text)),
    "unknown field": (b'{"y":1,"x":2}', only_y),
}


@pytest.mark.parametrize("name", BAD_FIELDS)
def test_bad_fields_are_refused_with_document_and_field(name: str) -> None:
    data, read = BAD_FIELDS[name]
    with pytest.raises(FormatError, match=r"^the manifest.*\bx\b") as caught:
        read(fields(data))
    assert "expected" in caught.value.message


def test_only_objects_have_fields() -> None:
    with pytest.raises(FormatError, match="the manifest: expected an object, got"):
        fields(b"[]")


def test_what_a_message_shows_is_escaped_and_short() -> None:
    for value in (
        b'["\xe2\x80\xae evil", 1]',
        b'{"\\u001b[2J":[]}',
        b"[" + b"[]," * 300_000 + b"1]",
        b'"' + b"\xe2\x80\xae" * 500 + b'"',
    ):
        with pytest.raises(FormatError, match="expected an integer from 0 to 9, got") as caught:
            fields(b'{"x":' + value + b"}").integer("x", 0, 9)
        assert caught.value.message.replace("…", "").isascii()
        assert caught.value.message.isprintable()
        assert len(caught.value.message) < 150


def test_looking_is_not_reading() -> None:
    some = fields(b'{"x":1}')
    assert some.has("x")
    assert some.names() == ("x",)
    with pytest.raises(FormatError):
        some.done()


@given(st.floats(allow_nan=False, allow_infinity=False))
@settings(deadline=None)
def test_every_finite_float_survives_as_decimal_text(value: float) -> None:
    data = canonical_json.dumps({"x": canonical_json.format_decimal(value)})
    text = fields(data).decimal("x")
    assert math.copysign(1, float(text)) == math.copysign(1, value)
    assert float(text) == value


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_decimal_text_for_what_is_no_number(value: float) -> None:
    with pytest.raises(FormatError, match="finite"):
        canonical_json.format_decimal(value)
