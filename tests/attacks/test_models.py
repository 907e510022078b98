# ruff: noqa: F401, F811 - a test asks for a fixture by its name
"""Models as people have them, in which a concept would stay or of which something untrue would be said."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.commandline import rasura
from support.registries.workshop import ALICE, Workshop, workshop

from rasura.patches.errors import FormatError, UnsupportedHostError
from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.registry.apply import operations

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
    from safetensors.torch import save_file

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
