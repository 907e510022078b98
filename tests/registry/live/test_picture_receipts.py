# ruff: noqa: F811 - a test asks for a fixture by its name
"""Was it erased when this was drawn? What a served model says of itself, in a picture or beside it."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from support.commandline import rasura
from support.models.tiny import tiny_pipeline
from support.registries.workshop import SPEC, Workshop, workshop  # noqa: F401

import rasura as package
from rasura.api.attach import attach
from rasura.patches._io import canonical_json
from rasura.patches.errors import AuditError, DriftError, FormatError, InputError, RasuraError
from rasura.registry._storage.records.records import Draft
from rasura.registry.evidence.pictures.picture_receipt import embed_receipt
from rasura.registry.live.live_model import LiveModel


@pytest.fixture(scope="module")
def loaded() -> Any:
    return tiny_pipeline(SPEC).to(torch.float32)


@pytest.fixture
def model(loaded: Any, workshop: Workshop) -> Iterator[LiveModel]:
    with attach(loaded, workshop.folder, label="served", actor="alice") as made:
        yield made
        if made.status().applied:
            made.revert(force=True)


def drawn() -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (8, 8), "brown").save(data, format="PNG")
    return data.getvalue()


def vkey(shop: Workshop) -> str:
    with shop.open() as registry:
        return registry.log_vkey()


def test_a_picture_says_what_was_erased_when_it_was_drawn(model: LiveModel, workshop: Workshop, tmp_path: Path) -> None:
    with model.request() as request:
        (tmp_path / "before.png").write_bytes(request.embed(drawn()))
    model.apply([workshop.dog])
    with model.request() as request:
        (tmp_path / "after.png").write_bytes(request.embed(drawn()))
    model.revert()
    key = vkey(workshop)  # the log goes on; what was signed stays true
    for name, erased in (("before.png", False), ("after.png", True)):
        run = rasura("verify", name, "--vkey", key, "--concept", "Dog", "--json", cwd=tmp_path)
        assert run.code == 0, run.err
        assert (run.data["erased"], run.data["bound"], run.data["looked"]) == (erased, True, True)
        assert list(run.data["patches"]) == ([workshop.dog] if erased else [])
    assert "Dog: erased when this was drawn" in rasura("verify", "after.png", "--concept", "Dog", cwd=tmp_path).out
    # A viewer sees the picture that was drawn.
    with Image.open(tmp_path / "after.png") as shown, Image.open(io.BytesIO(drawn())) as plain:
        assert shown.tobytes() == plain.tobytes()
    # The checkpoint in it is one of the log, in which this stack was on this model.
    found = package.verify_receipt((tmp_path / "after.png").read_bytes(), vkey=key)
    with workshop.open() as registry:
        assert registry.root_at(found.checkpoint.size) == found.checkpoint.root
        entry = registry.entries(newest=False)[found.checkpoint.size - 1]
    assert (entry.action, entry.outcome, entry.host, entry.after) == (
        "patch.apply", "done", found.receipt.host, found.receipt.state
    )  # fmt: skip


@pytest.mark.parametrize("strength", ["-1", "0.9375", "4"])
def test_what_stood_at_another_strength_was_not_erased(
    model: LiveModel, workshop: Workshop, tmp_path: Path, strength: str
) -> None:
    model.switch([f"{workshop.dog}={strength}", str(workshop.photo)])
    with model.request() as request:
        (tmp_path / "picture.png").write_bytes(request.embed(drawn()))
    key = vkey(workshop)
    run = rasura("verify", "picture.png", "--vkey", key, "--concept", "Dog", "--json", cwd=tmp_path)
    assert (run.code, run.data["erased"], run.data["strengths"]) == (0, False, [strength])
    told = rasura("verify", "picture.png", "--vkey", key, "--concept", "Dog", cwd=tmp_path).out
    assert f"Dog: in force at strength {strength}: not erased when this was drawn" in told
    receipt = package.verify_receipt((tmp_path / "picture.png").read_bytes(), vkey=key).receipt
    assert receipt.erased("dog") == ()
    assert [str(patch.strength) for patch in receipt.in_force("dog")] == [strength]
    assert len(receipt.erased("photo")) == 1


def test_every_byte_of_a_receipt_and_of_its_picture_counts(model: LiveModel, workshop: Workshop) -> None:
    model.apply([workshop.dog])
    with model.request() as request:
        receipt, picture = request.receipt(), request.embed(drawn())
    key = vkey(workshop)
    for data in (receipt, picture):
        for at in range(len(data)):
            with pytest.raises(RasuraError):
                package.verify_receipt(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :], vkey=key)
    for cut in (picture[:-1], picture + b"\0", picture[:40], drawn()):
        with pytest.raises(RasuraError):
            package.verify_receipt(cut, vkey=key)


def test_a_receipt_goes_with_one_picture_and_one_log(model: LiveModel, workshop: Workshop, tmp_path: Path) -> None:
    with model.request() as request:
        beside = request.receipt(drawn())
        key = vkey(workshop)
        assert package.verify_receipt(beside, vkey=key, picture=drawn()).bound
        with pytest.raises(AuditError, match="another picture"):
            package.verify_receipt(beside, vkey=key, picture=drawn() + b" ")
        other = io.BytesIO()
        Image.new("RGB", (8, 8), "grey").save(other, format="PNG")
        with pytest.raises(AuditError, match="another picture"):
            package.verify_receipt(embed_receipt(other.getvalue(), beside), vkey=key)
        with pytest.raises(FormatError, match="got one with it"):
            request.embed(request.embed(drawn()))
        with pytest.raises(FormatError, match="expected a PNG"):
            request.embed(b"\xff\xd8\xff")
    with package.init(tmp_path / "other", actor="mallory") as elsewhere, pytest.raises(AuditError):
        package.verify_receipt(beside, vkey=elsewhere.store.log_vkey())
    # What a statement of another kind signs is no receipt.
    value = json.loads(beside)
    with workshop.open() as registry:
        digest = package.verify_receipt(beside).receipt.picture
        value["note"] = registry.log_key.sign_statement("rasura/statement/report-v1", (str(digest),))
    with pytest.raises(AuditError, match="not what was signed"):
        package.verify_receipt(canonical_json.dumps(value), vkey=key)


def test_who_kept_the_first_key_of_the_log_can_check_it(model: LiveModel, workshop: Workshop) -> None:
    first = vkey(workshop)
    with workshop.open() as registry:
        registry.rotate_log_key(Draft("alice", "", "log.rotate", "success"))
    with model.request() as request:
        receipt = request.receipt()
    for key in (first, vkey(workshop)):
        assert str(package.verify_receipt(receipt, vkey=key).key) == vkey(workshop) != first


def test_nothing_is_signed_of_weights_that_somebody_changed(model: LiveModel, loaded: Any, workshop: Workshop) -> None:
    model.apply([workshop.dog])
    name = min(model.host.kept()).removeprefix("unet.")
    parameter = dict(loaded.unet.named_parameters())[name]
    before = parameter.detach().clone()
    with torch.no_grad():
        parameter.view(-1)[0] += 1
    with model.request() as request:
        with pytest.raises(DriftError, match="nothing was signed"):
            request.receipt()
        assert not package.verify_receipt(request.receipt(look=False)).receipt.looked  # and says so
    with torch.no_grad():
        parameter.copy_(before)
    with pytest.raises(InputError, match="has ended"):
        request.receipt()
