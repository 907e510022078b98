"""Native names against diffusers' own converters of single files: every parameter of every family's denoiser."""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.loaders import single_file_utils as theirs
from support.models.native_files import to_native, transformer_of
from support.models.tiny_families import tiny_family
from support.models.tiny_pipelines import tiny_of

from rasura.patches.errors import UnsupportedHostError
from rasura.patches.format.spellings.catalogue import SPELLINGS, find_spelling, find_spelling_of
from rasura.patches.format.spellings.lora_names import LoraNames, ModuleKey
from rasura.patches.types import ParamName

State = dict[str, torch.Tensor]

CONVERTERS: dict[str, Callable[..., State]] = {
    "FLUX": theirs.convert_flux_transformer_checkpoint_to_diffusers,
    "Chroma": theirs.convert_chroma_transformer_checkpoint_to_diffusers,
    "FLUX.2": theirs.convert_flux2_transformer_checkpoint_to_diffusers,
    "FLUX.2 klein": theirs.convert_flux2_transformer_checkpoint_to_diffusers,
    "SD3": theirs.convert_sd3_transformer_checkpoint_to_diffusers,
    "AuraFlow": theirs.convert_auraflow_transformer_checkpoint_to_diffusers,
    "Z-Image": theirs.convert_z_image_transformer_checkpoint_to_diffusers,
    "Lumina 2": theirs.convert_lumina2_to_diffusers,
    "Sana": theirs.convert_sana_transformer_to_diffusers,
    "Wan": theirs.convert_wan_transformer_to_diffusers,
    "LTX": theirs.convert_ltx_transformer_checkpoint_to_diffusers,
    "HunyuanVideo": theirs.convert_hunyuan_video_transformer_to_diffusers,
    "Krea 2": theirs.convert_krea2_transformer_checkpoint_to_diffusers,
    "HiDream": theirs.convert_hidream_transformer_to_diffusers,
    "Cosmos": theirs.convert_cosmos_transformer_checkpoint_to_diffusers,
    "Cosmos 2.5": theirs.convert_cosmos_transformer_checkpoint_to_diffusers,
}
# Their converters know the published models' widths alone.
WIDE = {
    "FLUX": ("FluxTransformer2DModel", {"num_attention_heads": 24, "attention_head_dim": 128, "guidance_embeds": True}),
    "Chroma": ("ChromaTransformer2DModel", {"num_attention_heads": 24, "attention_head_dim": 128}),
    "HunyuanVideo": ("HunyuanVideoTransformer3DModel", {"num_attention_heads": 24, "attention_head_dim": 128}),
    "Lumina 2": ("Lumina2Transformer2DModel", {"hidden_size": 2304, "num_attention_heads": 24, "num_kv_heads": 8}),
}
# What the files have that diffusers throws away.
THROWN = {"Sana": ("pos_embed", "y_embedder.y_embedding")}


@cache
def _state(family: str, folder: Path) -> State:
    if family in ("FLUX", "SD3", "PixArt"):
        return dict(tiny_family(family).components["transformer"].state_dict())
    return transformer_of(tiny_of(folder / family, family))


def _wide(family: str) -> State:
    """Names and shapes of a model of the published width with one block of each kind; no numbers."""
    import diffusers

    kind, config = WIDE[family]
    blocks: dict[str, Any] = {"num_layers": 1, "num_single_layers": 1, "num_refiner_layers": 2}
    if family == "Lumina 2":
        del blocks["num_single_layers"]
    elif family != "HunyuanVideo":
        del blocks["num_refiner_layers"]
    with torch.device("meta"):
        return dict(getattr(diffusers, kind)(**config, **blocks).state_dict())


@pytest.mark.parametrize("family", CONVERTERS)
def test_every_native_name_is_that_of_diffusers_converter(
    family: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    state = _wide(family) if family in WIDE else _state(family, tmp_path_factory.mktemp("models"))
    native = to_native(SPELLINGS[family], state)
    if family in THROWN:
        native |= {name: torch.zeros(1) for name in THROWN[family]}
    found = CONVERTERS[family]({f"{_prefix(family)}{key}": tensor for key, tensor in native.items()})
    assert found.keys() == state.keys()
    for key, tensor in state.items():
        assert found[key].shape == tensor.shape, key
        assert tensor.is_meta or torch.equal(found[key], tensor), key


def _prefix(family: str) -> str:
    return "net." if family.startswith("Cosmos") else ""


@pytest.mark.parametrize("family", [name for name in SPELLINGS if name not in ("FLUX.2 klein", "Wan 2.2")])
def test_a_file_is_told_by_its_names_and_read_as_it_was_written(
    family: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever stands before them; and of every parameter the file says where it is, or why not."""
    spelling, state = SPELLINGS[family], _state(family, tmp_path_factory.mktemp("models"))
    native = to_native(spelling, state)
    for prefix in spelling.prefixes:
        found = find_spelling([prefix + key for key in native])
        assert found is not None
        assert found[0] is spelling
        assert found[1] == prefix
    read = {name for key in native for name in (*spelling.read(key), *spelling.read_mixed(key))}
    assert read == state.keys()
    for name in state:
        alone = spelling.write(name)
        assert (alone is None) != (spelling.holder(name) is None), name
        assert alone is None or spelling.read(alone) == (name,)


def test_the_names_of_layers_that_read_text() -> None:
    """As people know them from ComfyUI and from trainers."""
    known: Mapping[str, Mapping[str, str]] = {
        "FLUX": {"context_embedder": "txt_in"},
        "FLUX.2": {"context_embedder": "txt_in"},
        "Chroma": {"context_embedder": "txt_in"},
        "SD3": {"context_embedder": "context_embedder"},
        "AuraFlow": {"context_embedder": "cond_seq_linear"},
        "Qwen-Image": {"txt_in": "txt_in"},
        "Z-Image": {"cap_embedder.1": "cap_embedder.1"},
        "Lumina 2": {"time_caption_embed.caption_embedder.1": "cap_embedder.1"},
        "Sana": {"caption_projection.linear_1": "y_embedder.y_proj.fc1"},
        "PixArt": {"caption_projection.linear_1": "y_embedder.y_proj.fc1"},
        "Wan": {
            "condition_embedder.text_embedder.linear_1": "text_embedding.0",
            "blocks.29.attn2.to_k": "blocks.29.cross_attn.k",
        },
        "LTX": {"transformer_blocks.7.attn2.to_v": "transformer_blocks.7.attn2.to_v"},
        "HunyuanVideo": {"context_embedder.proj_in": "txt_in.input_embedder"},
        "Krea 2": {"txt_in.linear_1": "txtmlp.1", "transformer_blocks.3.attn.to_k": "blocks.3.attn.wk"},
        "HiDream": {"caption_projection.48.linear": "caption_projection.48.linear"},
        "Cosmos": {"transformer_blocks.12.attn2.to_k": "blocks.12.cross_attn.k_proj"},
        "Cosmos 2.5": {"transformer_blocks.12.attn2.to_v": "blocks.12.cross_attn.v_proj"},
    }
    for family, names in known.items():
        for ours, native in names.items():
            assert SPELLINGS[family].write(f"{ours}.weight") == f"{native}.weight"
    for family, ours, holder in (
        ("Sana", "transformer_blocks.3.attn2.to_v", "blocks.3.cross_attn.kv_linear"),
        ("FLUX", "single_transformer_blocks.9.attn.to_k", "single_blocks.9.linear1"),
        ("SD3", "transformer_blocks.1.attn.add_k_proj", "joint_blocks.1.context_block.attn.qkv"),
    ):
        assert SPELLINGS[family].write(f"{ours}.weight") is None
        assert SPELLINGS[family].holder(f"{ours}.weight") == f"{holder}.weight"


@pytest.mark.parametrize(
    ("names", "parameter", "why"),
    [
        (LoraNames("kohya", SPELLINGS["FLUX"]), "single_transformer_blocks.0.attn.to_k", "single_blocks.0.linear1.weight holds it in parts"),
        (LoraNames("native", SPELLINGS["SD3"]), "norm_out.linear", "final_layer.adaLN_modulation.1.weight holds it"),
        (LoraNames("native", SPELLINGS["Wan"]), "no_such.layer", "it is in no table"),
        (LoraNames("native"), "patch_embed.text_proj", "the native names of its family are not known"),
    ],
)  # fmt: skip
def test_a_layer_without_a_module_of_its_own_is_refused(names: LoraNames, parameter: str, why: str) -> None:
    with pytest.raises(UnsupportedHostError, match=why) as caught:
        names.place(ParamName(f"transformer.{parameter}.weight"))
    assert "--format peft" in caught.value.hint


def test_rows_of_a_fused_matrix_are_one_module() -> None:
    names = LoraNames("native", SPELLINGS["Sana"])
    found = [names.place(ParamName(f"transformer.transformer_blocks.4.attn2.to_{role}.weight")) for role in "kv"]
    assert found == [ModuleKey("diffusion_model.blocks.4.cross_attn.kv_linear", part, 2) for part in (0, 1)]


def test_encoders_have_kohyas_names_and_no_native_ones() -> None:
    layer = ParamName("text_encoder_3.encoder.block.0.layer.0.SelfAttention.q.weight")
    key = LoraNames("kohya", SPELLINGS["SD3"]).place(layer).key
    assert key == "lora_te3_encoder_block_0_layer_0_SelfAttention_q"
    with pytest.raises(UnsupportedHostError, match="expected a layer of a transformer"):
        LoraNames("native", SPELLINGS["SD3"]).place(layer)


def test_a_family_that_is_spelled_otherwise_in_another_version_has_no_names() -> None:
    """Cosmos 1, whose code has other names than Cosmos 2's."""
    ours = ["transformer.transformer_blocks.0.attn2.to_k.weight"]
    assert find_spelling_of("Cosmos", ours) is SPELLINGS["Cosmos"]
    assert find_spelling_of("Cosmos", [*ours, "transformer.learnable_pos_embed.pos_emb_h"]) is None
