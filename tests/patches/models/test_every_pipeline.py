"""Every pipeline of diffusers that draws pictures or films from a prompt: what is said of its denoiser.

`_ANSWERS` is written down by hand. A class that a later diffusers brings is not in it, and fails here until somebody has
looked. What must not be: a foreign error, or a family whose layers a class only calls alike.
"""

import inspect
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import diffusers
import pytest
import torch
from diffusers.utils.import_utils import DummyObject
from support.full import some

from rasura.patches.errors import UnsupportedHostError
from rasura.patches.hosts.interface import ParameterInfo, name_parameter
from rasura.patches.models.base_identity import find_cross_attention
from rasura.patches.models.families import find_family
from rasura.patches.models.probe.agreement import explain_separable, probe_model
from rasura.patches.types import ParamName

_FILM: Final = {"layers_per_block": 1, "block_out_channels": (32, 64), "cross_attention_dim": 32, "norm_num_groups": 8}
_TINY: Final[Mapping[str, dict[str, Any]]] = {
    "PixArtTransformer2DModel": {"caption_channels": 32},
    "UNet3DConditionModel": _FILM
    | {
        "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D"),
        "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D"),
        "attention_head_dim": 8,
    },
    "UNetMotionModel": _FILM
    | {
        "down_block_types": ("CrossAttnDownBlockMotion", "DownBlockMotion"),
        "up_block_types": ("UpBlockMotion", "CrossAttnUpBlockMotion"),
        "num_attention_heads": 2,
        "motion_num_attention_heads": 2,
    },
    "HiDreamImageTransformer2DModel": {
        "patch_size": 2, "in_channels": 4, "num_layers": 1, "num_single_layers": 1, "attention_head_dim": 8,
        "num_attention_heads": 2, "caption_channels": [24, 32], "text_emb_dim": 16, "num_routed_experts": 2,
        "axes_dims_rope": (4, 2, 2), "max_resolution": (8, 8), "llama_layers": [0, 1], "force_inference_output": True,
    },
    "LatteTransformer3DModel": {
        "num_attention_heads": 2, "attention_head_dim": 8, "in_channels": 4, "out_channels": 8, "num_layers": 1,
        "cross_attention_dim": 16, "patch_size": 2, "sample_size": 8, "caption_channels": 24, "attention_bias": True,
        "norm_type": "ada_norm_single", "norm_elementwise_affine": False, "activation_fn": "gelu-approximate",
        "num_embeds_ada_norm": 1000, "video_length": 1,
    },
    "CogVideoXTransformer3DModel": {
        "num_attention_heads": 2, "attention_head_dim": 8, "in_channels": 4, "out_channels": 4, "text_embed_dim": 24,
        "num_layers": 1, "time_embed_dim": 8, "sample_width": 8, "sample_height": 8, "max_text_seq_length": 32,
    },
    "HunyuanDiT2DModel": {
        "num_attention_heads": 2, "attention_head_dim": 8, "in_channels": 4, "patch_size": 2, "hidden_size": 16,
        "num_layers": 2, "cross_attention_dim": 24, "cross_attention_dim_t5": 32, "pooled_projection_dim": 16,
        "activation_fn": "gelu-approximate", "sample_size": 8,
    },
    "LuminaNextDiT2DModel": {
        "sample_size": 8, "in_channels": 4, "hidden_size": 24, "num_layers": 1, "num_attention_heads": 3,
        "num_kv_heads": 1, "multiple_of": 16, "norm_eps": 1e-5, "cross_attention_dim": 32,
    },
    "EasyAnimateTransformer3DModel": {
        "num_attention_heads": 2, "attention_head_dim": 16, "in_channels": 4, "out_channels": 4, "time_embed_dim": 2,
        "text_embed_dim": 24, "num_layers": 1, "sample_width": 8, "sample_height": 8, "patch_size": 2,
    },
}  # fmt: skip
"""Configurations of small models; what is not here are the defaults of the class, of which nothing is built."""

_TRACED: Final = "traced, of no family"
_NOT_RUN: Final = "not run"
_ANSWERS: Final[Mapping[str, str]] = {
    "AllegroTransformer3DModel": _TRACED,
    "AnyFlowFARTransformer3DModel": _NOT_RUN,
    "AnyFlowTransformer3DModel": _NOT_RUN,
    "AuraFlowTransformer2DModel": "AuraFlow",
    "BriaFibo2Transformer2DModel": _NOT_RUN,
    "BriaFiboTransformer2DModel": _NOT_RUN,
    "BriaTransformer2DModel": _TRACED,
    "ChromaTransformer2DModel": "Chroma",
    "CogVideoXTransformer3DModel": _TRACED,
    "CogView3PlusTransformer2DModel": _TRACED,
    "CogView4Transformer2DModel": "CogView4",
    "Cosmos3OmniTransformer": _NOT_RUN,
    "CosmosTransformer3DModel": "Cosmos",
    "DreamLiteUNetModel": _TRACED,
    "EasyAnimateTransformer3DModel": _NOT_RUN,
    "ErnieImageTransformer2DModel": "ERNIE-Image",
    "Flux2Transformer2DModel": "FLUX.2",
    "FluxTransformer2DModel": "FLUX",
    "GlmImageTransformer2DModel": _NOT_RUN,
    "HeliosTransformer3DModel": _TRACED,
    "HiDreamImageTransformer2DModel": "HiDream",
    "HunyuanDiT2DModel": _NOT_RUN,
    "HunyuanImageTransformer2DModel": _TRACED,
    "HunyuanVideo15Transformer3DModel": _NOT_RUN,
    "HunyuanVideoTransformer3DModel": "HunyuanVideo",
    "I2VGenXLUNet": _NOT_RUN,
    "Ideogram4Transformer2DModel": _NOT_RUN,
    "JoyImageEditPlusTransformer3DModel": _NOT_RUN,
    "JoyImageEditTransformer3DModel": _TRACED,
    "Kandinsky3UNet": _NOT_RUN,
    "Kandinsky5Transformer3DModel": _NOT_RUN,
    "Kandinsky6Transformer3DModel": _NOT_RUN,
    "Krea2Transformer2DModel": "Krea 2",
    "LTX2VideoTransformer3DModel": _NOT_RUN,
    "LTXVideoTransformer3DModel": "LTX",
    "LatteTransformer3DModel": _TRACED,
    "LongCatImageTransformer2DModel": _TRACED,
    "Lumina2Transformer2DModel": "Lumina 2",
    "LuminaNextDiT2DModel": _NOT_RUN,
    "MochiTransformer3DModel": _TRACED,
    "MotifVideoTransformer3DModel": _TRACED,
    "NucleusMoEImageTransformer2DModel": _TRACED,
    "OmniGenTransformer2DModel": _NOT_RUN,
    "OvisImageTransformer2DModel": _TRACED,
    "PRXTransformer2DModel": _TRACED,
    "PixArtTransformer2DModel": "PixArt",
    "PriorTransformer": _NOT_RUN,
    "QwenImage21Transformer2DModel": "Qwen-Image 2.1",
    "QwenImageTransformer2DModel": "Qwen-Image",
    "SD3Transformer2DModel": "SD3",
    "SanaTransformer2DModel": "Sana",
    "SanaVideoTransformer3DModel": _TRACED,
    "SkyReelsV2Transformer3DModel": _TRACED,
    "StableCascadeUNet": _NOT_RUN,
    "Transformer2DModel": _NOT_RUN,
    "UNet2DConditionModel": "SD 1.x",
    "UNetControlNetXSModel": _NOT_RUN,
    "UNet2DModel": _NOT_RUN,
    "UNet3DConditionModel": "SD 2.x",
    "UNetMotionModel": "SD 1.x",
    "UVit2DModel": _NOT_RUN,
    "UniDiffuserModel": _NOT_RUN,
    "WanTransformer3DModel": "Wan",
    "WanVACETransformer3DModel": _NOT_RUN,
    "ZImageTransformer2DModel": "Z-Image",
}
_FEW: Final = ("PixArtTransformer2DModel", "UNet3DConditionModel", "HiDreamImageTransformer2DModel",
    "CogVideoXTransformer3DModel", "SkyReelsV2Transformer3DModel", "DreamLiteUNetModel", "ErnieImageTransformer2DModel",
    "QwenImage21Transformer2DModel", "WanVACETransformer3DModel", "LuminaNextDiT2DModel")  # fmt: skip
CASES: Final = some(list(_FEW), sorted(_ANSWERS))

_OTHER_THAN_PICTURES: Final = re.compile(r"Audio|Music|AceStep|ShapE|LLaDA|Gemma|Proteina|Onnx|Modular")
_PARTS: Final = ("transformer", "unet", "prior", "decoder", "prior_prior")
_GIVEN_BESIDE: Final = {"image", "images", "video", "reference_image", "pose_video", "controls", "mask_image"}


def _denoisers() -> Iterator[tuple[str, str]]:
    """Names of the pipelines that draw from a prompt alone, each with the class of a denoiser."""
    for name in dir(diffusers):
        kind: Any = getattr(diffusers, name, None)  # it lists names that it does not have
        if not name.endswith("Pipeline") or isinstance(kind, DummyObject) or _OTHER_THAN_PICTURES.search(name):
            continue
        if not isinstance(kind, type) or not issubclass(kind, diffusers.DiffusionPipeline):
            continue
        asked = inspect.signature(kind.__call__).parameters
        needed = {key for key, each in asked.items() if each.default is inspect.Parameter.empty}
        if "prompt" not in asked or needed & _GIVEN_BESIDE:
            continue
        for part in _PARTS:
            if part in (taken := inspect.signature(kind).parameters):
                said = taken[part].annotation
                for found in re.findall(r"\w+", getattr(said, "__name__", "") or ""):
                    yield name, found
                for found in re.findall(r"\.(\w+)(?= \||'|$)", str(said)):
                    yield name, found


def test_no_pipeline_is_without_an_answer() -> None:
    found = dict[str, str]()
    for pipeline, kind in _denoisers():
        if isinstance(getattr(diffusers, kind, None), type) and issubclass(getattr(diffusers, kind), torch.nn.Module):
            found.setdefault(kind, pipeline)
    assert len(found) > 40
    assert {kind: pipeline for kind, pipeline in found.items() if kind not in _ANSWERS} == {}


@pytest.mark.filterwarnings("ignore:In CPU autocast")  # Mochi's
@pytest.mark.parametrize("kind", CASES)
def test_a_denoiser_is_of_its_family_or_refused_in_words(kind: str, tmp_path: Path) -> None:
    component = "unet" if "UNet" in kind else "transformer"
    (tmp_path / component).mkdir()
    try:
        with torch.device("meta"):
            module: Any = getattr(diffusers, kind)(**_TINY.get(kind, {}))
    except (TypeError, ValueError, AssertionError):  # a class whose defaults build nothing
        (tmp_path / component / "config.json").write_text(f'{{"_class_name": "{kind}"}}')
        with pytest.raises(UnsupportedHostError):
            probe_model(tmp_path)
        assert _ANSWERS[kind] == _NOT_RUN
        return
    module.save_config(tmp_path / component)
    infos = {
        name: ParameterInfo(name, "F32", tuple(parameter.shape))
        for name, parameter in ((name_parameter(component, key), each) for key, each in module.named_parameters())
    }
    if _ANSWERS[kind] == _NOT_RUN:
        with pytest.raises(UnsupportedHostError) as caught:
            probe_model(tmp_path)
        assert caught.value.hint
    else:
        trace, family = probe_model(tmp_path)
        assert trace.entrances
        assert (family or _TRACED) == _ANSWERS[kind]
    _check_what_erasing_says(tmp_path, infos, _ANSWERS[kind])


def _check_what_erasing_says(folder: Path, infos: Mapping[ParamName, ParameterInfo], answer: str) -> None:
    """Layers of a known family are found; of every other class some sentence says that none are."""
    if answer not in (_TRACED, _NOT_RUN):
        row = find_family(infos)
        assert row is not None
        assert row.name == answer
        explain_separable(folder, infos)
        assert find_cross_attention(infos, "text")
        return
    with pytest.raises(UnsupportedHostError) as caught:
        _explain_and_find(folder, infos)
    assert caught.value.hint


def _explain_and_find(folder: Path, infos: Mapping[ParamName, ParameterInfo]) -> None:
    """What `base add` and `erase` ask: the first refuses a class that only calls its layers alike."""
    explain_separable(folder, infos)
    find_cross_attention(infos, "text")
