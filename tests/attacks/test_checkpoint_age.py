# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""A policy bounds how old the last checkpoint may be that somebody outside was given."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support.commandline import rasura
from support.registries.tampering import run
from support.registries.workshop import ALICE, Workshop, request_for, silent, workshop

from rasura.patches.algebra.strength import ONE
from rasura.patches.checks.policy import Policy
from rasura.patches.errors import AuditError, CheckRefusedError
from rasura.patches.prompts.concept_prompts import Target
from rasura.registry._storage.records.records import Draft
from rasura.registry.apply import operations
from rasura.registry.erase.erase import erase
from rasura.registry.evidence.proofs.take_out import give_checkpoint
from rasura.registry.log.verify import verify_log
from rasura.registry.registry import Registry
from rasura.registry.stacks import edit
from rasura.registry.stacks.lock_stack import check_claims, lock_stack
from rasura.registry.stacks.policy_file import put_in_force
from rasura.registry.trust.checkpoint_age import GIVEN, require_checkpoint

DRAFT = Draft("alice", "", GIVEN, "success")
WEEK = Policy(checkpoint_age=7 * 24)


def after(shop: Workshop, days: float) -> Registry:
    """The registry as it will be opened so many days from now."""
    return Registry.open(shop.folder, now=lambda: datetime.now(UTC) + timedelta(days=days))


def give(registry: Registry, path: Path) -> None:
    give_checkpoint(registry, path.write_bytes, DRAFT)


def test_nothing_is_applied_or_made_where_the_last_checkpoint_is_too_old_or_refused_without_one(
    workshop: Workshop, tmp_path: Path
) -> None:
    with workshop.open() as registry:
        put_in_force(registry, WEEK, ALICE)
        with pytest.raises(CheckRefusedError, match="no checkpoint of the log was ever given out") as caught:
            operations.apply(registry, workshop.host(), [workshop.dog], ALICE)
        assert caught.value.hint == "rasura audit checkpoint -o FILE"
        give(registry, tmp_path / "kept")
        operations.apply(registry, workshop.host(), [workshop.dog], ALICE)
    files = workshop.digests()
    with after(workshop, 8) as registry:
        registry.note(Draft("alice", "", "test.other", "success"))  # any entry is no checkpoint
        with pytest.raises(CheckRefusedError, match="within 7 days"):
            operations.apply(registry, workshop.host(), [workshop.photo], ALICE)
        with pytest.raises(CheckRefusedError, match="within 7 days"):
            erase(
                registry, "tiny", request_for(Target("cat", "dog")), key=None, protect=(), draft=DRAFT, progress=silent
            )
        assert workshop.digests() == files
        operations.revert(registry, workshop.host(), [workshop.dog], ALICE)  # taking out is always allowed
        give(registry, tmp_path / "newer")
        operations.apply(registry, workshop.host(), [workshop.photo], ALICE)
        verify_log(registry, kept=(tmp_path / "newer").read_bytes())
    with after(workshop, -1) as registry, pytest.raises(CheckRefusedError, match="within 7 days"):
        require_checkpoint(registry, WEEK)  # nine days before the newest: a clock was set back


def test_an_entry_that_is_no_checkpoint_is_not_believed_to_be_one(workshop: Workshop, tmp_path: Path) -> None:
    with workshop.open() as registry:
        put_in_force(registry, WEEK, ALICE)
        registry.note(Draft("alice", "", "test.other", "success"))
    run(workshop, "UPDATE entry SET action = 'log.checkpoint' WHERE action = 'test.other'")
    with workshop.open() as registry, pytest.raises(AuditError, match="log, and not by its column"):
        operations.apply(registry, workshop.host(), [workshop.dog], ALICE)
    run(workshop, "UPDATE entry SET action = 'test.other' WHERE action = 'log.checkpoint'")
    with workshop.open() as registry:
        give(registry, tmp_path / "kept")
    run(workshop, "UPDATE entry SET action = 'test.other' WHERE action = 'log.checkpoint'")
    with workshop.open() as registry, pytest.raises(AuditError, match="by the log, and not by its column"):
        operations.apply(registry, workshop.host(), [workshop.dog], ALICE)


def test_what_was_not_written_is_not_noted_as_given(workshop: Workshop, tmp_path: Path) -> None:
    before = len(workshop.entries())
    with workshop.open() as registry, pytest.raises(OSError, match="nowhere"):
        give(registry, tmp_path / "nowhere" / "kept")
    assert len(workshop.entries()) == before


def test_the_remedy_that_is_printed_works(workshop: Workshop) -> None:
    (workshop.folder / "policy.toml").write_text('[log]\ncheckpoint_age = "2 hours"\n')
    assert rasura("policy", "set", "policy.toml", cwd=workshop.folder).code == 0
    assert 'checkpoint_age = "2 hours"' in rasura("policy", "show", cwd=workshop.folder).out
    line = ("patch", "apply", workshop.dog, "--model", "the model")
    refused = rasura(*line, cwd=workshop.folder)
    assert refused.code == 3
    assert "rasura audit checkpoint -o FILE" in refused.err
    assert rasura("audit", "checkpoint", cwd=workshop.folder).code == 0  # printed: nobody is known to keep it
    assert rasura(*line, cwd=workshop.folder).code == 3
    given = rasura("audit", "checkpoint", "-o", "kept", "--reason", "to the auditor", cwd=workshop.folder)
    assert given.code == 0
    assert rasura(*line, cwd=workshop.folder).code == 0
    said = next(entry for entry in workshop.entries() if entry.action == GIVEN)
    assert (said.reason, said.details["size"]) == ("to the auditor", said.index)


def test_a_lock_under_a_policy_that_asks_of_people_can_be_used(workshop: Workshop) -> None:
    with workshop.open() as registry:
        edit.create(registry, "brand", {workshop.dog: ONE}, ALICE)
        put_in_force(registry, Policy(pair=0.04, reason=True, checkpoint_age=24), ALICE)
        (record,) = registry.stacks()
        check_claims(registry, lock_stack(registry, record))
