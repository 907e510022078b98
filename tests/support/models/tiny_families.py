"""Tiny random models of every family: the classes of diffusers and transformers, with a few thousand weights each.

family = tiny_family("FLUX")
family.components      the modules by their names in a pipeline, on the CPU
family.draw()          what the denoiser and each text encoder give for fixed inputs, one tensor
family.save(folder)    each of them with its own save_pretrained
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import diffusers
import torch
from diffusers import (
    AutoencoderKL,
    FluxTransformer2DModel,
    PixArtTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
)
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, T5Config, T5EncoderModel

__all__ = ["NAMES", "TinyFamily", "dual_attention", "short_family", "tiny_family", "tiny_pipeline_of"]

_LENGTH: Final = 7


@dataclass(frozen=True)
class TinyFamily:
    """One model; `inputs` are the denoiser's, in its dtype."""

    name: str
    components: dict[str, nn.Module]
    inputs: Mapping[str, torch.Tensor]

    def draw(self) -> torch.Tensor:
        """One forward of every component, all numbers of their outputs in float32 [n]."""
        ids = torch.arange(1, _LENGTH + 1)[None]
        with torch.no_grad():
            found = []
            for name, module in self.components.items():
                if name in {"unet", "transformer"}:
                    found.append(module(**self._inputs(), return_dict=False)[0])
                else:
                    given = module(input_ids=ids)
                    found += [given.last_hidden_state, *([given.text_embeds] if "text_embeds" in given else ())]
        return torch.cat([each.float().flatten() for each in found])

    def _inputs(self) -> dict[str, Any]:
        """Keyword arguments; SDXL takes two of its inputs in a dictionary."""
        added = {key: self.inputs[key] for key in ("text_embeds", "time_ids") if key in self.inputs}
        plain: dict[str, Any] = {key: value for key, value in self.inputs.items() if key not in added}
        return plain | ({"added_cond_kwargs": added} if added else {})

    def save(self, folder: Path) -> Path:
        """A folder as diffusers' pipelines save it, without the parts that nobody patches."""
        for name, module in self.components.items():
            module.save_pretrained(folder / name)  # type: ignore[operator]  # diffusers' and transformers' own
        return folder


def tiny_family(name: str, dtype: torch.dtype = torch.float32, seed: int = 0) -> TinyFamily:
    """A new model; equal arguments give equal bytes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        components, inputs = _BUILDERS[name]()
        inputs = {key: value.to(dtype) if value.is_floating_point() else value for key, value in inputs.items()}
    return TinyFamily(name, {key: part.to(dtype).eval() for key, part in components.items()}, inputs)


def short_family() -> TinyFamily:
    """SD 2.x with one cross-attention, in its middle block: of a whole one, a compiler reads every block."""
    family = tiny_family("SD 2.x")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = _unet(
            32,
            use_linear_projection=True,
            block_out_channels=(16,),
            down_block_types=("DownBlock2D",),
            up_block_types=("UpBlock2D",),
        )
    return TinyFamily(family.name, {**family.components, "unet": unet.eval()}, family.inputs)


def dual_attention() -> nn.Module:
    """A transformer like SD3.5's medium one: its first block has an `attn2` that reads the picture."""
    transformer: nn.Module = _sd3(dual_attention_layers=(0,))
    return transformer.eval()


def _clip(width: int, *, projected: bool = False) -> nn.Module:
    kind = CLIPTextModelWithProjection if projected else CLIPTextModel
    return kind(
        CLIPTextConfig(
            vocab_size=40,
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=2,
            num_attention_heads=4,
            projection_dim=width,
            max_position_embeddings=16,
            bos_token_id=38,
            eos_token_id=39,
            pad_token_id=39,
        )
    )


def _t5(width: int) -> nn.Module:
    return T5EncoderModel(
        T5Config(vocab_size=40, d_model=width, d_kv=8, d_ff=2 * width, num_layers=2, num_heads=4, dropout_rate=0.0)
    )


def _unet(width: int, **options: Any) -> Any:
    usual = {
        "block_out_channels": (8, 16),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    }
    return UNet2DConditionModel(
        sample_size=8,
        layers_per_block=1,
        attention_head_dim=8,
        cross_attention_dim=width,
        norm_num_groups=4,
        **(usual | options),
    )


def _unet_inputs(width: int) -> dict[str, torch.Tensor]:
    return {
        "sample": torch.randn(1, 4, 8, 8),
        "timestep": torch.tensor(3),
        "encoder_hidden_states": torch.randn(1, _LENGTH, width),
    }


def _sd1() -> tuple[dict[str, nn.Module], dict[str, torch.Tensor]]:
    return {"unet": _unet(24), "text_encoder": _clip(24)}, _unet_inputs(24)


def _sd2() -> tuple[dict[str, nn.Module], dict[str, torch.Tensor]]:
    return {"unet": _unet(32, use_linear_projection=True), "text_encoder": _clip(32)}, _unet_inputs(32)


def _sdxl() -> tuple[dict[str, nn.Module], dict[str, torch.Tensor]]:
    unet = _unet(
        56,
        use_linear_projection=True,
        transformer_layers_per_block=(1, 2),
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 32,
    )
    parts = {"unet": unet, "text_encoder": _clip(24), "text_encoder_2": _clip(32, projected=True)}
    return parts, _unet_inputs(56) | {"text_embeds": torch.randn(1, 32), "time_ids": torch.arange(6.0)[None]}


def _sd3(**options: Any) -> Any:
    return SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=64,
        caption_projection_dim=32,
        pooled_projection_dim=56,
        pos_embed_max_size=8,
        **options,
    )


def _sd3_parts() -> tuple[dict[str, nn.Module], dict[str, torch.Tensor]]:
    parts = {
        "transformer": _sd3(),
        "text_encoder": _clip(24, projected=True),
        "text_encoder_2": _clip(32, projected=True),
        "text_encoder_3": _t5(64),
    }
    return parts, {
        "hidden_states": torch.randn(1, 4, 8, 8),
        "encoder_hidden_states": torch.randn(1, _LENGTH, 64),
        "pooled_projections": torch.randn(1, 56),
        "timestep": torch.tensor([3]),
    }


def _flux() -> tuple[dict[str, nn.Module], dict[str, torch.Tensor]]:
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=64,
        pooled_projection_dim=24,
        axes_dims_rope=(4, 4, 8),
    )
    return {"transformer": transformer, "text_encoder": _clip(24), "text_encoder_2": _t5(64)}, {
        "hidden_states": torch.randn(1, 16, 16),
        "encoder_hidden_states": torch.randn(1, _LENGTH, 64),
        "pooled_projections": torch.randn(1, 24),
        "timestep": torch.tensor([0.5]),
        "img_ids": torch.randint(0, 4, (16, 3)),
        "txt_ids": torch.zeros(_LENGTH, 3),
    }


def _pixart() -> tuple[dict[str, nn.Module], dict[str, torch.Tensor]]:
    transformer = PixArtTransformer2DModel(
        sample_size=8,
        num_layers=2,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=4,
        in_channels=4,
        out_channels=8,
        cross_attention_dim=32,
        caption_channels=64,
        norm_num_groups=4,
        use_additional_conditions=False,
    )
    return {"transformer": transformer, "text_encoder": _t5(64)}, {
        "hidden_states": torch.randn(1, 4, 8, 8),
        "encoder_hidden_states": torch.randn(1, _LENGTH, 64),
        "timestep": torch.tensor([3]),
    }


_BUILDERS: Final[Mapping[str, Callable[[], tuple[dict[str, nn.Module], dict[str, torch.Tensor]]]]] = {
    "SD 1.x": _sd1,
    "SD 2.x": _sd2,
    "SDXL": _sdxl,
    "SD3": _sd3_parts,
    "FLUX": _flux,
    "PixArt": _pixart,
}
NAMES: Final = tuple(_BUILDERS)


def tiny_pipeline_of(family: TinyFamily) -> tuple[Any, Callable[[], torch.Tensor]]:
    """A pipeline of SDXL, SD3, FLUX or PixArt around a model, and what draws a picture [1, 16, 16, 3] with it.

    There are no tokenizers: the prompt comes as embeddings, `family.inputs`.
    """
    kind, scheduler = {
        "SDXL": (diffusers.StableDiffusionXLPipeline, diffusers.EulerDiscreteScheduler),
        "SD3": (diffusers.StableDiffusion3Pipeline, diffusers.FlowMatchEulerDiscreteScheduler),
        "FLUX": (diffusers.FluxPipeline, diffusers.FlowMatchEulerDiscreteScheduler),
        "PixArt": (diffusers.PixArtAlphaPipeline, diffusers.DDIMScheduler),
    }[family.name]
    encoders = [name for name in family.components if name.startswith("text_encoder")]
    tokenizers = {name.replace("text_encoder", "tokenizer"): None for name in encoders}
    pipeline = kind(vae=_vae(), scheduler=scheduler(), **tokenizers, **family.components)
    pipeline.set_progress_bar_config(disable=True)
    given: dict[str, Any] = {"prompt_embeds": family.inputs["encoder_hidden_states"]}
    pooled = {"SDXL": "text_embeds", "SD3": "pooled_projections", "FLUX": "pooled_projections"}.get(family.name)
    if pooled is not None:
        given["pooled_prompt_embeds"] = family.inputs[pooled]
    else:
        mask = torch.ones(1, _LENGTH)
        given |= {"prompt_attention_mask": mask, "negative_prompt": None, "use_resolution_binning": False}
    settings = {"num_inference_steps": 2, "height": 16, "width": 16, "guidance_scale": 1.0, "output_type": "np"}

    def draw() -> torch.Tensor:
        done = pipeline(**given, **settings, generator=torch.Generator().manual_seed(0))
        return torch.from_numpy(done.images)

    return pipeline, draw


def _vae() -> Any:
    return AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=16,
        shift_factor=0.0,
    )
