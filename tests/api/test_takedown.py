"""Takedowns from Python: the same plan, motion and log as on the command line."""

import shutil
from pathlib import Path

import pytest

import rasura

MODEL = Path(__file__).resolve().parents[2] / "examples" / "reference_model"
TEMPLATES = ("{}", "a {}", "a picture of a {}")


def test_down_and_back(tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(MODEL / "pipeline", model)
    (tmp_path / "retain.txt").write_text("pig\nfrog\nrose\ncactus\nairplane\n")
    with rasura.init(tmp_path, actor="alice") as registry:
        registry.new_key("alice")
        with pytest.raises(rasura.errors.RasuraError) as bare:
            registry.takedown("dog", model=model, anchors="cat", templates=TEMPLATES)
        assert bare.value.hint == f"registry.takedown(model='{model}', concepts=['dog'], anchors='cat', retain='FILE')"
        with pytest.raises(rasura.errors.InputError, match="a model or a stack"):
            registry.takedown("dog")
        with pytest.raises(rasura.errors.InputError, match="concepts or a file"):
            registry.takedown(model=model)
        words = {"model": model, "anchors": "cat", "retain": tmp_path / "retain.txt", "templates": TEMPLATES}
        plan, seen, done = registry.takedown("dog", dry_run=True, **words)  # type: ignore[arg-type]
        assert (plan.changes, seen, done, registry.patches()) == (True, (), None, ())
        plan, seen, done = registry.takedown("dog", reason="ticket 1", **words)  # type: ignore[arg-type]
        assert done is not None
        assert done.receipt is not None
        assert done.receipt.applied == plan.after
        assert [entry.reason for entry in registry.log()][:2] == ["ticket 1", "ticket 1"]
        plan, seen, done = registry.withdraw("dog", model=model)
        assert done is not None
        assert done.receipt is not None
        assert done.receipt.pristine
        assert registry.verify().size > 0
    for path in (MODEL / "pipeline").rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (model / path.relative_to(MODEL / "pipeline")).read_bytes()
