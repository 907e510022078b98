# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""Anchors from Python: one registry cosigns another one's log, and what was anchored is what the log continues."""

from pathlib import Path

import pytest
from support.registries.workshop import Workshop, workshop

import rasura
from rasura.patches.errors import AuditError, ConflictError


def test_one_registry_is_the_witness_of_another(workshop: Workshop, tmp_path: Path) -> None:
    with rasura.open(workshop.folder, actor="alice") as registry, rasura.init(tmp_path / "other") as other:
        vkey = registry.verify().vkey
        registry.checkpoint(tmp_path / "first")
        (tmp_path / "cosigned").write_text(other.witness(tmp_path / "first", vkey=vkey))
        added = registry.add_anchor(cosigned=tmp_path / "cosigned")
        ((entry, anchor),) = registry.anchors()
        assert (entry, anchor.kind) == (added, "witness")
        key = str(other.store.log_key.witness_key)
        (checked,) = registry.verify_anchors(witness_key=[key])
        assert (checked.entry, checked.proved, checked.said) == (added, True, "")
        assert checked.time is not None
        (bare,) = registry.verify_anchors()
        assert not bare.proved
        registry.checkpoint(tmp_path / "second")
        with pytest.raises(ConflictError, match="expected a proof that it continues"):
            other.witness(tmp_path / "second", vkey=vkey)
        first = (tmp_path / "first").read_bytes()
        (tmp_path / "bundle").write_bytes(b"".join(registry.export_log(checkpoint=first)))
        registry.checkpoint(tmp_path / "third")
        with pytest.raises(AuditError):
            other.witness(tmp_path / "third", vkey=other.verify().vkey, bundle=tmp_path / "bundle")
        assert [entry.action for entry in other.log(type="log")] == ["log.witness"]


def test_an_anchor_that_somebody_rewrote_is_found(workshop: Workshop, tmp_path: Path) -> None:
    with rasura.open(workshop.folder, actor="alice") as registry:
        registry.add_anchor(file=tmp_path / "kept")
        registry.apply(workshop.model, workshop.dog)
        (checked,) = registry.verify_anchors()
        assert (checked.proved, checked.said) == (True, "")
        (tmp_path / "kept").write_text("something else")
        with pytest.raises(AuditError, match="does not hold the checkpoint"):
            registry.verify_anchors()
