"""What a base is: each parameter by content, whatever its files are called."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.models.tiny import TinySpec, tiny_components, tiny_pipeline
from support.values import factories
from support.values.factories import TinyBase

from rasura.patches._io.tensor_bytes import digest_tensor, dtype_name, torch_dtype
from rasura.patches.errors import BaseMismatchError, UnsupportedHostError
from rasura.patches.format.manifest_parts import TensorIdentity
from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.patches.hosts.interface import ParameterInfo
from rasura.patches.hosts.live.torch_host import TorchHost
from rasura.patches.models.base_identity import check_touched, find_casts, find_cross_attention, identify
from rasura.patches.types import ParamName

SMALL = TinySpec()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyBase:
    return TinyBase.at(tmp_path_factory.mktemp("base") / "model", SMALL)


def test_the_same_model_in_other_files_is_the_same_base(tiny: TinyBase, tmp_path: Path) -> None:
    sharded = TinyBase.at(tmp_path / "sharded", replace(SMALL, sharded=True))
    variant = TinyBase.at(tmp_path / "variant", replace(SMALL, variant="fp16"))
    assert sharded.identity == variant.identity == tiny.identity
    assert sharded.identity.digest == tiny.identity.digest


def test_the_same_model_in_memory_is_the_same_base(tiny: TinyBase) -> None:
    live = TorchHost.of(tiny_pipeline(SMALL), "live")
    assert identify(live, tiny.encoder.tokenizer_state()) == tiny.identity


def test_the_vae_is_no_part_of_the_base(tiny: TinyBase, tmp_path: Path) -> None:
    shutil.copytree(tiny.host.folder, tmp_path / "model")
    shutil.rmtree(tmp_path / "model" / "vae")
    again = identify(CheckpointHost.open(tmp_path / "model"), tiny.encoder.tokenizer_state())
    assert again == tiny.identity
    assert not any(p.name.startswith("vae") for p in again.parameters)


@pytest.mark.parametrize("spec", [replace(SMALL, seed=1), replace(SMALL, dtype="float16")], ids=str)
def test_other_weights_or_another_dtype_are_another_base(tiny: TinyBase, tmp_path: Path, spec: TinySpec) -> None:
    assert TinyBase.at(tmp_path / "model", spec).identity.digest != tiny.identity.digest


def test_one_weight_a_tokenizer_or_a_dtype_changes_the_identity(tiny: TinyBase) -> None:
    first, *rest = tiny.identity.parameters
    others = [
        replace(tiny.identity, parameters=(replace(first, sha256=factories.sha256(b"")), *rest)),
        replace(tiny.identity, parameters=(replace(first, dtype="F16"), *rest)),
        replace(tiny.identity, parameters=tuple(rest)),
        replace(tiny.identity, text_encoder=factories.sha256(b"")),
        replace(tiny.identity, tokenizer=factories.sha256(b"")),
    ]
    assert len({other.digest for other in others} | {tiny.identity.digest}) == 6


def test_a_model_without_a_text_encoder_is_refused() -> None:
    host = TorchHost({"unet": tiny_components(SMALL)["unet"]}, "lonely")
    with pytest.raises(UnsupportedHostError, match="has no text encoder"):
        identify(host, {})


# --- Which parameters -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("layers", "count"), [("k", 4), ("v", 4), ("kv", 8)])
def test_cross_attention_is_found(tiny: TinyBase, layers: str, count: int) -> None:
    found = find_cross_attention(tiny.host.parameters(), layers, 64)
    assert len(found) == count
    assert found == sorted(found)
    assert all(".attn2.to_" in name and name.startswith("unet.") for name in found)


def infos(*shapes: tuple[str, tuple[int, ...]]) -> dict[ParamName, ParameterInfo]:
    return {ParamName(n): ParameterInfo(ParamName(n), "F32", shape) for n, shape in shapes}


def test_a_model_without_cross_attention_is_refused() -> None:
    with pytest.raises(UnsupportedHostError, match="no cross-attention"):
        find_cross_attention(
            infos(("unet.mid.attn1.to_k.weight", (4, 4)), ("text_encoder.x.attn2.to_k.weight", (4, 4))), "k"
        )


def test_another_width_than_the_text_encoders_is_refused() -> None:
    mixed = infos(("unet.a.attn2.to_k.weight", (4, 64)), ("unet.b.attn2.to_k.weight", (4, 32)))
    with pytest.raises(UnsupportedHostError, match="width 32 and 64, as the model reads them, got 64"):
        find_cross_attention(mixed, "k", 64)
    assert len(find_cross_attention(mixed, "k")) == 2


# --- Is this the base? ------------------------------------------------------------------------------------------------


def identity(name: str, tensor: torch.Tensor) -> TensorIdentity:
    return TensorIdentity(ParamName(name), dtype_name(tensor.dtype), tuple(tensor.shape), digest_tensor(tensor))


W = factories.weights(1, 5, 7, torch.float16)
NAME = ParamName("unet.a.attn2.to_k.weight")


def test_the_same_numbers_are_the_same_base_also_in_a_wider_dtype() -> None:
    for tensor in (W, W.float(), W.clone()):
        check_touched([identity(NAME, W)], {NAME: tensor}, "here")


def test_another_number_is_another_base() -> None:
    close = W.float()
    close[0, 2] = torch.nextafter(close[0, 2], torch.tensor(9.0))  # rounds back to W, and is not W
    worse = W.clone()
    worse[4, 6] *= 2
    for tensor in (close, worse):
        with pytest.raises(BaseMismatchError, match="made for other weights") as caught:
            check_touched([identity(NAME, W)], {NAME: tensor}, "here")
        assert caught.value.details["parameter"] == NAME
        assert caught.value.exit_code == 5


@pytest.mark.parametrize(
    ("base", "got", "fit"),
    [
        (torch.float16, torch.bfloat16, ("F16", "F32")),
        (torch.bfloat16, torch.float16, ("BF16", "F32")),
        (torch.float32, torch.float16, ("F32",)),
        (torch.float32, torch.bfloat16, ("F32",)),
    ],
)
def test_a_dtype_that_rounds_the_base_is_refused_by_name(
    base: torch.dtype, got: torch.dtype, fit: tuple[str, ...]
) -> None:
    """Loaded in another dtype it is the same model to the eye, and no patch could be taken back to its bits."""
    weights = factories.weights(1, 5, 7, base)
    weights[0, 3] = 1e-9  # too small for F16, which holds all the digits of BF16
    expected = f"expected {' or '.join(fit)}, which hold the numbers .* got {dtype_name(got)}, which rounds"
    with pytest.raises(BaseMismatchError, match=expected) as caught:
        check_touched([identity(NAME, weights)], {NAME: weights.to(got)}, "here")
    assert caught.value.details["dtypes"] == fit
    assert f"load it afresh with dtype={base}" in caught.value.message
    for name in fit:
        check_touched([identity(NAME, weights)], {NAME: weights.to(torch_dtype(name))}, "here")


def test_a_pipeline_loaded_in_another_dtype_is_refused(tmp_path: Path) -> None:
    tiny = TinyBase.at(tmp_path / "model", TinySpec(dtype="float16"))
    touched = [p for p in tiny.identity.parameters if ".attn2.to_v." in p.name]
    names = [p.name for p in touched]
    for dtype, same in ((torch.float16, True), (torch.float32, True), (torch.bfloat16, False)):
        live = TorchHost.of(tiny_pipeline(TinySpec(dtype="float16")).to(dtype), "live")
        if same:
            check_touched(touched, live.originals(names), live.location)
            continue
        with pytest.raises(BaseMismatchError, match="expected F16 or F32, which hold"):
            check_touched(touched, live.originals(names), live.location)


def test_zeros_of_another_sign_are_other_weights() -> None:
    with pytest.raises(BaseMismatchError):
        check_touched([identity(NAME, W)], {NAME: torch.where(W == 0, torch.zeros_like(W), W)}, "here")


def test_another_shape_or_none_is_another_model() -> None:
    for pristine in ({}, {NAME: W[:, :6]}):
        with pytest.raises(BaseMismatchError, match="made for another model"):
            check_touched([identity(NAME, W)], pristine, "here")


def test_digests_of_casts_are_those_of_the_cast_tensor() -> None:
    tensor = factories.weights(2, 3, 3, torch.float32)
    assert find_casts(tensor) == {
        "F16": digest_tensor(tensor.half()),
        "BF16": digest_tensor(tensor.bfloat16()),
        "F32": digest_tensor(tensor),
    }


def test_a_folder_with_a_changed_weight_is_another_base(tiny: TinyBase, tmp_path: Path) -> None:
    shutil.copytree(tiny.host.folder, tmp_path / "model")
    file = tmp_path / "model" / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    key = next(name for name in tensors if "attn2.to_v" in name)
    tensors[key][0, 0] += 1
    save_file(tensors, file, {"format": "pt"})
    again = identify(CheckpointHost.open(tmp_path / "model"), tiny.encoder.tokenizer_state())
    odd = [a.name for a, b in zip(again.parameters, tiny.identity.parameters, strict=True) if a != b]
    assert odd == [f"unet.{key}"]
