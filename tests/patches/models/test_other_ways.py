"""What brings concepts to the picture by another way than patched layers, and what a person is told of it."""

import json
import shutil
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.commandline import rasura
from support.models.tiny import tiny_model, tiny_pipeline
from support.models.tiny_families import tiny_family
from support.models.tiny_t5 import tiny_t5, tiny_t5_pipeline

import rasura as package
from rasura.patches.errors import NotFoundError, UnsupportedHostError
from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.patches.hosts.interface import ParameterInfo, name_parameter
from rasura.patches.hosts.live.torch_host import TorchHost
from rasura.patches.hosts.uncovered import find_uncovered
from rasura.patches.models.base_identity import find_cross_attention
from rasura.patches.models.families import find_family
from rasura.patches.models.text_encoders.text_encoder import TextEncoder
from rasura.patches.types import ParamName

ODD = (
    "M&M™ (dog) [cat] #1",
    "  A Dog ",
    "dog&amp;cat",
    "ＤＯＧ",
    "a \\ dog | cat",
    "https://a.b/dog a house",
    "dog!!",
    "",
)


def _controlnet(parts: dict[str, Any]) -> Any:
    return diffusers.StableDiffusionControlNetPipeline(
        **{name: parts[name] for name in ("vae", "text_encoder", "tokenizer", "unet", "scheduler")},
        controlnet=diffusers.ControlNetModel.from_unet(parts["unet"], conditioning_embedding_out_channels=(16, 32)),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def test_a_controlnet_is_said_wherever_somebody_looks(tmp_path: Path) -> None:
    pipeline = _controlnet(tiny_pipeline().components)
    pipeline.save_pretrained(tmp_path / "model")
    rasura("init", cwd=tmp_path)
    run = rasura("base", "add", "model", cwd=tmp_path)
    assert run.code == 0, run.err
    assert "controlnet is a ControlNet, which reads the prompt through cross-attention of its own" in run.err
    (said,) = rasura("base", "add", "model", "--json", cwd=tmp_path).data["uncovered"]
    assert said.startswith("controlnet is")
    with pytest.warns(UserWarning, match="controlnet is a ControlNet"):
        handle = package.attach(pipeline, tmp_path)
    assert handle.status().uncovered == (said,)
    assert not [name for name in handle.host.parameters() if name.startswith("controlnet")]
    status = rasura("patch", "status", "--model", "model", "--json", cwd=tmp_path)
    assert status.data["uncovered"] == [said]


def test_other_ways_are_told_by_their_classes() -> None:
    found = find_uncovered(
        {"adapter": "T2IAdapter", "image_encoder": "CLIPVisionModelWithProjection", "unet": "UNet2DConditionModel",
         "safety_checker": "StableDiffusionSafetyChecker", "text_encoder": "CLIPTextModel"}
    )  # fmt: skip
    assert [sentence.partition(" ")[0] for sentence in found] == ["adapter", "image_encoder"]
    found = find_uncovered({"pe": "Ministral3ForCausalLM", "prior": "PriorTransformer", "tokenizer": "CLIPTokenizer"})
    assert [sentence.partition(" ")[0] for sentence in found] == ["pe", "prior"]
    assert find_uncovered({"unet": "UNet2DConditionModel"}) == ()


def test_a_plain_model_has_nothing_to_say(tmp_path: Path) -> None:
    assert CheckpointHost.open(tiny_model(tmp_path / "model")).uncovered() == ()
    assert TorchHost(tiny_family("FLUX").components, "it").uncovered() == ()


def test_an_ip_adapter_in_the_weights_is_called_by_its_name(tmp_path: Path) -> None:
    file = tiny_model(tmp_path / "model") / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    (key, *_) = [key for key in tensors if key.endswith("attn2.to_k.weight")]
    tensors[key.replace("to_k.weight", "processor.to_k_ip.0.weight")] = tensors[key].clone()
    tensors["encoder_hid_proj.image_projection_layers.0.norm.weight"] = torch.ones(4)
    save_file(tensors, file, {"format": "pt"})
    infos = CheckpointHost.open(tmp_path / "model").parameters()
    with pytest.raises(UnsupportedHostError, match="saved with an IP-Adapter in it") as caught:
        find_cross_attention(infos, "kv")
    assert "unload_ip_adapter" in str(caught.value.hint)


def test_a_transformer_of_no_family_is_not_told_of_unets() -> None:
    transformer = diffusers.MochiTransformer3DModel(
        num_attention_heads=2, attention_head_dim=8, num_layers=1, pooled_projection_dim=8, in_channels=4,
        text_embed_dim=16, time_embed_dim=8, max_sequence_length=16,
    )  # fmt: skip
    infos = TorchHost({"transformer": transformer}, "it").parameters()
    for layers in ("kv", "text"):
        with pytest.raises(UnsupportedHostError, match="none of the families") as caught:
            find_cross_attention(infos, layers)
        assert "UNet" not in caught.value.message
        assert caught.value.hint == "rasura probe MODEL"


def _cosmos_25(**given: object) -> dict[ParamName, ParameterInfo]:
    """Of Cosmos 2.5, as wide as the published one where text goes."""
    with torch.device("meta"):
        transformer = diffusers.CosmosTransformer3DModel(
            in_channels=17, num_layers=1, num_attention_heads=1, extra_pos_embed_type=None,
            use_crossattn_projection=True, crossattn_proj_in_channels=100352, **given,
        )  # fmt: skip
    shapes = {name_parameter("transformer", key): each.shape for key, each in transformer.named_parameters()}
    return {name: ParameterInfo(name, "BF16", tuple(shape)) for name, shape in shapes.items()}


def test_cosmos_25_is_erased_in_where_its_text_is_narrow() -> None:
    """28 layers of 3584 numbers side by side: a d × d matrix of them is 75 GiB, one behind the projection 8 MiB."""
    infos = _cosmos_25()
    family = find_family(infos)
    assert family is not None
    assert family.name == "Cosmos 2.5"
    with pytest.raises(UnsupportedHostError, match=r"width 100352: 75 GiB; .*to_k.weight reads .* 1024 wide") as caught:
        find_cross_attention(infos, "text", 100352)
    assert caught.value.hint == "rasura erase --base MODEL --concept TEXT --layers kv"
    assert len(find_cross_attention(infos, "kv", 1024)) == 2


def test_transfer_says_that_its_controlnet_reads_text_too() -> None:
    """Its cross-attention also reads a picture, and is a class of its own."""
    infos = _cosmos_25(img_context_dim_in=16, controlnet_block_every_n=1)
    assert find_family(infos) is None
    for layers in ("kv", "text"):
        with pytest.raises(UnsupportedHostError, match=r"Cosmos Transfer 2.5's: its ControlNet reads the text"):
            find_cross_attention(infos, layers)


def test_an_sd3_without_its_t5_says_what_is_missing(tmp_path: Path) -> None:
    folder = tiny_t5(tmp_path / "model", "SD3")
    for part in ("text_encoder_3", "tokenizer_3"):
        shutil.rmtree(folder / part)
    index = json.loads((folder / "model_index.json").read_text())
    index |= {"text_encoder_3": [None, None], "tokenizer_3": [None, None]}
    (folder / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(NotFoundError, match="saved without one of the encoders") as caught:
        TextEncoder.pristine(CheckpointHost.open(folder))
    assert "put tokenizer_3/ and text_encoder_3/ of the whole model there" in str(caught.value)


def test_a_refiner_is_called_by_its_name(tmp_path: Path) -> None:
    folder = tiny_family("SDXL").save(tmp_path / "model")
    shutil.rmtree(folder / "text_encoder")
    with pytest.raises(NotFoundError, match="refiner"):
        TextEncoder.pristine(CheckpointHost.open(folder))


def test_pixart_reads_odd_prompts_as_its_pipeline_does(tmp_path: Path) -> None:
    """To the bit, whether captions are cleaned here (`bs4` and `ftfy` are installed) or not."""
    folder = tiny_t5(tmp_path / "model", "PixArt")
    encoder = TextEncoder.pristine(CheckpointHost.open(folder))
    pipeline = tiny_t5_pipeline(folder, "PixArt")
    with torch.no_grad():
        states, mask, *_ = pipeline.encode_prompt(
            list(ODD), do_classifier_free_guidance=False, clean_caption=True, max_sequence_length=120
        )
    read = encoder.encode_all(ODD)
    assert torch.equal(read, (states * mask[:, :, None]).double())
