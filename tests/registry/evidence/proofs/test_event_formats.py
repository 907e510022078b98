"""Entries in other systems' words, read by those systems' own libraries where there are some."""

import hashlib
import json
import re
from datetime import UTC, datetime

import pytest
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from google.protobuf import json_format
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement
from support.registries.registry_fixtures import HOST, Place, digest, draft, filled

from rasura.patches.types import PatchId
from rasura.registry._storage.records.records import EntryRecord
from rasura.registry.evidence.proofs.event_formats import (
    EVENT_FORMATS,
    to_cef,
    to_cloudevent,
    to_jsonl,
    to_ocsf,
    to_statement,
)
from rasura.registry.evidence.proofs.take_out import export_entries
from rasura.registry.log.merkle import hash_leaf

NASTY = 'a|b=c\\d "e"\tf, ticket 7'


@pytest.fixture
def entries(made: Place) -> list[tuple[EntryRecord, bytes]]:
    """One of every outcome, the last with text that means something somewhere."""
    with made.open() as registry:
        filled(registry)
        registry.note(draft("patch.apply", "refused", error="check_refused"))
        nasty = draft("patch.apply", "failed", patches=(PatchId(digest("p")),), host=HOST, error="host_write")
        registry.note(
            type(nasty)("o|=\\", NASTY, nasty.action, nasty.outcome, nasty.patches, host=HOST, error=nasty.error)
        )
        return list(export_entries(registry))


def test_every_line_is_one_line(entries: list[tuple[EntryRecord, bytes]]) -> None:
    assert {entry.outcome for entry, _ in entries} >= {"success", "refused", "failed", "begun", "done"}
    for spell in EVENT_FORMATS.values():
        for entry, body in entries:
            assert b"\n" not in spell(entry, body)


def test_a_line_of_jsonl_is_what_the_tree_hashes(entries: list[tuple[EntryRecord, bytes]]) -> None:
    for entry, body in entries:
        assert hash_leaf(to_jsonl(entry, body)) == entry.leaf_hash


def test_cloudevents_are_read_by_their_library(entries: list[tuple[EntryRecord, bytes]]) -> None:
    for entry, body in entries:
        event = JSONFormat().read(CloudEvent, to_cloudevent(entry, body))
        assert (event.get_id(), event.get_type()) == (entry.entry_id, f"rasura.{entry.action}")
        assert event.get_time() == entry.time
        assert event.get_data() == json.loads(body)
        assert event.get_extension("leafhash") == entry.leaf_hash.hex()


def test_statements_are_read_by_their_library(entries: list[tuple[EntryRecord, bytes]]) -> None:
    for entry, body in entries:
        text = to_statement(entry, body)
        value = json.loads(text)
        Statement.copy_from_pb(json_format.Parse(text, statement_pb2.Statement())).validate()
        assert value["subject"][0]["digest"] == {"sha256": hashlib.sha256(body).hexdigest()}
        named = {s["digest"].get("rasuraPatchId") for s in value["subject"]} - {None}
        assert named == set(entry.patches)


OCSF_REQUIRED = {"activity_id", "category_uid", "class_uid", "type_uid", "severity_id", "time", "metadata", "entity"}


def test_ocsf_events_have_what_their_class_requires(entries: list[tuple[EntryRecord, bytes]]) -> None:
    for entry, body in entries:
        event = json.loads(to_ocsf(entry, body))
        assert set(event) >= OCSF_REQUIRED
        assert event["type_uid"] == event["class_uid"] * 100 + event["activity_id"]
        assert datetime.fromtimestamp(event["time"] / 1000, UTC).replace(microsecond=0) == entry.time.replace(
            microsecond=0
        )
        assert set(event["metadata"]) >= {"product", "version"}
        assert event["entity"]["uid"]


def read_cef(line: str) -> tuple[list[str], dict[str, str]]:
    """Head and extension of a CEF line, unescaped."""
    head = re.split(r"(?<!\\)(?:\\\\)*\|", line, maxsplit=7)
    rest = head.pop()
    found = re.findall(r"(\w+)=((?:\\.|[^\\=])*?)(?= \w+=|$)", rest)
    unescaped = {name: re.sub(r"\\(.)", lambda m: "\n" if m[1] == "n" else m[1], value) for name, value in found}
    return head, unescaped


def test_cef_lines_read_back(entries: list[tuple[EntryRecord, bytes]]) -> None:
    for entry, body in entries:
        head, fields = read_cef(to_cef(entry, body).decode())
        assert head[:4] == ["CEF:0", "rasura", "registry", "1"]
        assert head[4] == entry.action
        assert 0 <= int(head[6]) <= 10
        assert fields["suser"] == entry.actor
        assert fields.get("msg", "") == entry.reason
        assert int(fields["cn1"]) == entry.index
        assert fields["cs5"] == entry.leaf_hash.hex()
        assert fields.get("cs1", "").split() == list(entry.patches)
