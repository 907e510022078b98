# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""The log from Python: entries that are chosen, proved, exported and attested, each as the command line has it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.commandline import rasura as typed
from support.registries.workshop import Workshop, workshop

import rasura
from rasura.patches.errors import AuditError, DriftError, InputError, NotFoundError


@pytest.fixture
def registry(workshop: Workshop) -> Iterator[rasura.Registry]:
    with rasura.open(workshop.folder, actor="alice") as opened:
        opened.apply(workshop.model, workshop.dog, reason="ticket 7")
        yield opened


def test_an_entry_is_proved_to_somebody_without_the_registry(
    workshop: Workshop, registry: rasura.Registry, tmp_path: Path
) -> None:
    newest = registry.log()[0]
    assert registry.entry(newest.index) == newest
    proof = registry.prove(newest.index)
    (tmp_path / "proof").write_bytes(proof)
    vkey = registry.verify().vkey
    assert [each.index for each in rasura.verify_file(tmp_path / "proof", vkey=vkey).shown] == [newest.index]
    (tmp_path / "proof").write_bytes(proof.replace(b"\nindex ", b"\nindex 1"))
    with pytest.raises(rasura.errors.RasuraError):
        rasura.verify_file(tmp_path / "proof", vkey=vkey)
    with pytest.raises(NotFoundError):
        registry.entry(newest.index + 1)
    for wrong in ({}, {"index": 0, "case": "118"}):
        with pytest.raises(InputError, match="an entry or a case"):
            registry.prove(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("form", ["bundle", "jsonl", "cloudevents", "ocsf", "cef", "intoto"])
def test_an_export_is_what_the_command_prints(form: str, workshop: Workshop, registry: rasura.Registry) -> None:
    words = ("audit", "export", "--format", form, "--type", "patch.apply", "-o", "log.out")
    assert typed(*words, cwd=workshop.folder).code == 0
    said = b"".join(registry.export_log(form, type="patch.apply"))  # type: ignore[arg-type]
    assert said == (workshop.folder / "log.out").read_bytes()
    assert said.count(b"patch.apply") + said.count(b"Apply") >= 1


def test_what_no_entry_fits_is_refused(registry: rasura.Registry) -> None:
    assert list(registry.export_log("jsonl", by="mallory")) == []
    with pytest.raises(InputError, match="no entry of the log is like that"):
        list(registry.export_log(by="mallory"))
    with pytest.raises(InputError, match="only a bundle proves"):
        registry.export_log("jsonl", checkpoint=registry.checkpoint())
    with pytest.raises(InputError, match="time: expected"):
        registry.log(since="yesterday")
    assert registry.log(since="1h", by="alice", type="patch.apply") != ()
    assert registry.log(until="1h") == ()


def test_a_model_is_attested_until_somebody_changes_it(workshop: Workshop, registry: rasura.Registry) -> None:
    pem, vkey = registry.key("alice").pem, registry.verify().vkey
    statement = registry.attest(workshop.model, key="alice")
    found = rasura.verify_model(workshop.model, statement, key=pem, vkey=vkey)
    assert workshop.dog in str(found.statement.patches)
    for form in ("cyclonedx", "spdx"):
        assert json.loads(registry.attest(workshop.model, format=form))
    registry.revert(workshop.model)
    with pytest.raises(DriftError):
        rasura.verify_model(workshop.model, statement, key=pem)


def test_the_log_is_handed_to_a_new_key(registry: rasura.Registry) -> None:
    old = registry.verify().vkey
    entry = registry.rotate_log_key(reason="yearly")
    report = registry.verify(vkey=old)
    assert (report.replaced, report.rotations) == (True, (entry.index,))
    assert report.vkey != old
    assert registry.verify(vkey=report.vkey, every_signature=True).signatures == report.size
    with pytest.raises(AuditError, match="expected id"):
        registry.verify(vkey=old[:-4] + "AAAA")
