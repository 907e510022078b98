# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""Models as people have them, in which a concept would stay or of which something untrue would be said."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.commandline import rasura
from support.registries.workshop import ALICE, Workshop, digests, workshop

from rasura.patches.errors import FormatError, UnsupportedHostError
from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.registry._storage.records.records import Draft
from rasura.registry.apply import operations
from rasura.registry.erase.base_models import add_base

UNET = "unet/diffusion_pytorch_model.safetensors"
SECOND = [
    "diffusion_pytorch_model.bin",
    "diffusion_pytorch_model.fp16.bin",
    "diffusion_pytorch_model-00001-of-00002.bin",
    "diffusion_flax_model.msgpack",
    "model.onnx",
]


@pytest.mark.parametrize("name", SECOND)
def test_a_second_copy_of_the_weights_is_refused_and_the_remedies_work(workshop: Workshop, name: str) -> None:
    twin = workshop.model / "unet" / name
    torch.save(load_file(workshop.model / UNET), twin)
    with workshop.open() as registry:
        files = workshop.digests()
        with pytest.raises(UnsupportedHostError, match="expected one set of weights, got 2") as caught:
            operations.apply(registry, workshop.host(), [workshop.dog], ALICE)
        assert name in caught.value.message
        assert workshop.digests() == files
        # Both ways that the hint names.
        out = workshop.folder / "out"
        operations.apply_to_folder(registry, workshop.model, [workshop.dog], ALICE, out=out)
        assert sorted(path.name for path in (out / "unet").iterdir()) == ["config.json", Path(UNET).name]
        twin.rename(workshop.folder / name)
        operations.apply(registry, workshop.host(), [workshop.dog], ALICE)


STRANGERS = {
    "a Git LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "git lfs pull"),
    "a pickle": (b"PK\x03\x04" + bytes(64), "convert with diffusers"),
    "an old pickle": (b"\x80\x02" + bytes(64), "convert with diffusers"),
    "a page of the web": (b"<!DOCTYPE html><html><body>log in</body></html>", "download the file again"),
}


@pytest.mark.parametrize("what", STRANGERS)
def test_a_file_that_is_no_weights_is_refused_as_what_it_is(workshop: Workshop, what: str) -> None:
    data, hint = STRANGERS[what]
    (workshop.model / UNET).write_bytes(data)
    with pytest.raises(FormatError, match=what.replace("an old", "a")) as caught:
        CheckpointHost.open(workshop.model)
    assert caught.value.hint.startswith(hint)


def test_what_is_said_after_a_revert_cannot_be_more_than_was_looked_at(workshop: Workshop) -> None:
    """Another program changed a tensor that no patch touches: nobody says that every byte is the original."""
    with workshop.open() as registry:
        operations.apply(registry, workshop.host(), [workshop.dog], ALICE)
    found = load_file(workshop.model / UNET)
    found["conv_in.weight"] += 1e-1
    save_file(found, workshop.model / UNET, metadata={"format": "pt"})
    done = rasura("patch", "revert", "--all", "--yes", "--model", workshop.model, cwd=workshop.folder)
    assert (done.code, "all that patches touched is the original again" in done.out) == (0, True)
    assert "every byte" not in done.out
    looked = rasura("patch", "status", "--deep", "--model", workshop.model, cwd=workshop.folder)
    assert "conv_in.weight" in looked.out + looked.err


def _rewritten(path: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


def test_a_patched_model_that_was_cast_is_told_a_way_back_that_works(workshop: Workshop) -> None:
    """By `status`, `doctor`, and the revert that cannot be."""
    with workshop.open() as registry:
        originals = {key: tensor.clone() for key, tensor in load_file(workshop.model / UNET).items()}
        operations.apply(registry, workshop.host(), [workshop.dog], ALICE)
    _rewritten(workshop.model / UNET, lambda found: {key: tensor.float() for key, tensor in found.items()})
    status = rasura("patch", "status", "--model", workshop.model, cwd=workshop.folder)
    doctor = rasura("doctor", cwd=workshop.folder)
    revert = rasura("patch", "revert", "--all", "--force", "--yes", "--model", workshop.model, cwd=workshop.folder)
    assert revert.code != 0
    for shown in (status, doctor, revert):
        assert "put a fresh copy there, or save it in F16 again; then: rasura patch revert --all --force" in " ".join(
            (shown.out + shown.err).split()
        )
    _rewritten(workshop.model / UNET, lambda found: {key: tensor.half() for key, tensor in found.items()})
    revert = rasura("patch", "revert", "--all", "--force", "--yes", "--model", workshop.model, cwd=workshop.folder)
    assert revert.code == 0, revert.err
    found = load_file(workshop.model / UNET)
    assert all(torch.equal(found[key], tensor) for key, tensor in originals.items())


def test_a_patched_model_that_was_rounded_is_promised_no_way_back_but_a_fresh_copy(workshop: Workshop) -> None:
    """Half of its numbers in another half: what was rounded is rounded, and nothing that is printed says otherwise."""
    fresh = workshop.folder / "fresh"
    shutil.copytree(workshop.model, fresh)
    with workshop.open() as registry:
        operations.apply(registry, workshop.host(), [workshop.dog], ALICE)
    _rewritten(workshop.model / UNET, lambda found: {key: tensor.bfloat16() for key, tensor in found.items()})
    status = rasura("patch", "status", "--model", workshop.model, cwd=workshop.folder)
    doctor = rasura("doctor", cwd=workshop.folder)
    revert = rasura("patch", "revert", "--all", "--force", "--yes", "--model", workshop.model, cwd=workshop.folder)
    assert revert.code != 0
    for shown in (status, doctor, revert):
        said = " ".join((shown.out + shown.err).split())
        assert "put a fresh copy there, because BF16 rounded what no patch touches, too" in said
        assert "save it in" not in said
    shutil.rmtree(workshop.model)
    shutil.copytree(fresh, workshop.model)
    revert = rasura("patch", "revert", "--all", "--force", "--yes", "--model", workshop.model, cwd=workshop.folder)
    assert revert.code == 0, revert.err
    assert digests(workshop.model) == digests(fresh)
    assert rasura("patch", "apply", workshop.dog, "--model", workshop.model, cwd=workshop.folder).code == 0


def test_a_copy_of_a_patched_model_is_no_new_base(workshop: Workshop) -> None:
    copy = workshop.folder / "copy"
    with workshop.open() as registry:
        draft = Draft("alice", "", "base.add", "success")
        operations.apply(registry, workshop.host(), [workshop.dog, workshop.photo], ALICE)
        shutil.copytree(workshop.model, copy, ignore=shutil.ignore_patterns(".rasura-host"))
        operations.revert(registry, workshop.host(), None, ALICE)
        with pytest.raises(UnsupportedHostError, match=r"got what entry .* of the log left") as caught:
            add_base(registry, copy, "new", draft, lambda *_: None)
        assert "dog" in caught.value.message
        assert [base.name for base in registry.bases()] == [registry.bases()[0].name]
        # The original, with another tensor than patches touch changed, is a base of its own.
        other = workshop.folder / "other"
        shutil.copytree(workshop.model, other)
        _rewritten(other / UNET, lambda found: found | {"conv_in.weight": found["conv_in.weight"] + 0.5})
        assert add_base(registry, other, "other", draft, lambda *_: None)[1]


WRAPPERS = ["_orig_mod.", "module.", "module._orig_mod.", "_fsdp_wrapped_module.", "_fsdp_wrapped_module._orig_mod."]


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_names_behind_a_wrapper_are_those_of_the_module(workshop: Workshop, wrapper: str) -> None:
    plain = CheckpointHost.open(workshop.model)
    before = plain.digests(plain.parameters())
    _rewritten(workshop.model / UNET, lambda found: {f"{wrapper}{key}": tensor for key, tensor in found.items()})
    wrapped = CheckpointHost.open(workshop.model)
    assert wrapped.digests(wrapped.parameters()) == before
    with workshop.open() as registry:
        operations.apply(registry, workshop.host(), [workshop.dog], ALICE)
        operations.revert(registry, workshop.host(), None, ALICE)
    assert CheckpointHost.open(workshop.model).digests(before) == before


def test_one_tensor_with_and_without_a_wrapper_is_refused(workshop: Workshop) -> None:
    _rewritten(workshop.model / UNET, lambda f: f | {"_orig_mod.conv_in.weight": f["conv_in.weight"] + 1})
    with pytest.raises(FormatError, match=r"expected one tensor for unet\.conv_in\.weight, got two"):
        CheckpointHost.open(workshop.model)


def test_eight_bit_layers_are_named_as_what_they_are(workshop: Workshop) -> None:
    def cast(found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {key: t.to(torch.float8_e4m3fn) if t.ndim == 2 else t for key, t in found.items()}

    _rewritten(workshop.model / UNET, cast)
    with pytest.raises(UnsupportedHostError, match="F8_E4M3, into which nothing is merged") as caught:
        CheckpointHost.open(workshop.model)
    assert caught.value.hint


def test_a_long_header_of_a_good_file_is_read_and_a_longer_one_is_told_the_way_out(workshop: Workshop) -> None:
    """The format allows 100 MB; a thumbnail in the metadata is nothing rare."""
    found = load_file(workshop.model / UNET)
    save_file(found, workshop.model / UNET, metadata={"format": "pt", "modelspec.thumbnail": "A" * 17_000_000})
    with pytest.raises(FormatError, match="a header of 2 to 16777216 bytes") as caught:
        CheckpointHost.open(workshop.model)
    assert caught.value.hint == "save the file again without its metadata"
    save_file(found, workshop.model / UNET, metadata={"format": "pt", "modelspec.thumbnail": "A" * 5_000_000})
    with workshop.open() as registry:
        operations.apply(registry, workshop.host(), [workshop.dog], ALICE)
        assert operations.revert(registry, workshop.host(), None, ALICE).pristine


def _peft(model: Path) -> Path:
    """A folder as PEFT's save_pretrained leaves it."""
    folder = model.parent / "adapter"
    folder.mkdir()
    factors = {
        "base_model.model.x.lora_A.weight": torch.zeros(1, 4),
        "base_model.model.x.lora_B.weight": torch.zeros(4, 1),
    }
    save_file(factors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 1}')
    return folder


def _only_lora(model: Path) -> Path:
    factors = {"unet.x.lora_A.weight": torch.zeros(1, 4), "unet.x.lora_B.weight": torch.zeros(4, 1)}
    save_file(factors, model.parent / "pytorch_lora_weights.safetensors")
    return model.parent / "pytorch_lora_weights.safetensors"


def _embedding(model: Path) -> Path:
    save_file({"emb_params": torch.zeros(2, 64)}, model.parent / "word.safetensors")
    return model.parent / "word.safetensors"


NO_MODELS = {
    "a folder of an adapter": (_peft, "adapter"),
    "a file of an adapter": (_only_lora, "adapter"),
    "an embedding": (_embedding, "embedding"),
}


@pytest.mark.parametrize("what", NO_MODELS)
def test_what_is_no_model_is_refused_as_what_it_is(workshop: Workshop, what: str) -> None:
    make, said = NO_MODELS[what]
    path = make(workshop.model)
    with pytest.raises(UnsupportedHostError, match=said) as caught:
        CheckpointHost.open(path)
    assert caught.value.hint
