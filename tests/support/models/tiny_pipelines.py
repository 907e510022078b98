"""Tiny random pipelines of families whose pipeline reads the prompt itself: the real classes, with a few thousand weights.

NAMES                              families
tiny_of(folder, "Wan")             a private copy of a family's folder
open_tiny(folder)                  its live pipeline
draw(pipeline, "a dog")            what a step of drawing gives, before it is decoded
"""

import functools
import inspect
import itertools
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import diffusers
import torch
from diffusers.pipelines.flux2.system_messages import SYSTEM_MESSAGE
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE
from support.models.tiny import byte_symbols, workspace
from support.models.tiny_kolors import tiny_kolors
from support.models.tiny_t5 import t5_tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoTokenizer,
    CLIPTextConfig,
    CLIPTextModel,
    Gemma2Config,
    Gemma2Model,
    GlmConfig,
    GlmModel,
    LlamaConfig,
    LlamaModel,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
    UMT5Config,
    UMT5EncoderModel,
)

from rasura.patches.models.text_encoders.pipeline_tower import TextAlone

__all__ = ["NAMES", "byte_pairs", "draw", "open_tiny", "tiny_of"]


def tiny_of(folder: Path, name: str) -> Path:
    """A private copy of a family's folder, at `folder` (made; must not exist). Returns `folder`."""
    shutil.copytree(_built(name), folder)
    return folder


def open_tiny(folder: Path) -> Any:
    """The live pipeline of a folder, without what decodes pictures."""
    index = json.loads((folder / "model_index.json").read_text())
    absent: dict[str, Any] = {name: None for name, said in index.items() if said == [None, None]}
    absent |= {"safety_checker": AnswersForNobody()} if index["_class_name"].startswith("Cosmos") else {}
    if (folder / "processor").is_dir():
        absent |= {"processor": TextAlone(AutoTokenizer.from_pretrained(folder / "processor"))}
    kind = getattr(diffusers, index["_class_name"])
    absent |= {} if (folder / "vae").is_dir() else {"vae": None}
    pipeline = kind.from_pretrained(folder, local_files_only=True, **absent)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


class _Drawn(Exception):  # noqa: N818  # what was wanted
    def __init__(self, latents: torch.Tensor) -> None:
        self.latents = latents


def draw(pipeline: Any, prompt: str) -> torch.Tensor:
    """The latents after the first step of drawing, by the pipeline's own `__call__`; nothing is decoded."""
    accepted = inspect.signature(type(pipeline).__call__).parameters
    film = {"num_frames": 9} if "num_frames" in accepted else {}
    binned = {"use_resolution_binning": False} if "use_resolution_binning" in accepted else {}

    def stop(_pipe: Any, _step: int, _time: Any, given: dict[str, Any]) -> dict[str, Any]:
        raise _Drawn(given["latents"])

    def stop_alike(_step: int, _time: Any, latents: torch.Tensor) -> None:
        raise _Drawn(latents)

    known = "callback_on_step_end" in accepted
    asked = {"callback_on_step_end": stop} if known else {"callback": stop_alike}  # PixArt's, of the older kind
    try:
        pipeline(
            prompt=prompt, height=32, width=32, num_inference_steps=2, generator=torch.Generator().manual_seed(0),
            output_type="latent", **asked, **film, **binned,
        )  # fmt: skip
    except _Drawn as drawn:
        return drawn.latents
    raise AssertionError("the pipeline calls nobody back")


@functools.lru_cache(maxsize=20)
def _built(name: str) -> Path:
    folder = workspace() / name.replace(" ", "-")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipeline = _BUILDERS[name]()
        for denoiser in (getattr(pipeline, name, None) for name in ("unet", "transformer", "transformer_2")):
            for parameter in denoiser.parameters() if denoiser is not None else ():  # gates begin at zero
                parameter.data.normal_(0, 0.2)
    pipeline.save_pretrained(folder, safe_serialization=True)
    if (processor := getattr(pipeline, "processor", None)) is not None:
        processor.tokenizer.save_pretrained(folder / "processor")
    return folder


def _umt5(width: int) -> Any:
    return UMT5EncoderModel(
        UMT5Config(
            vocab_size=len(t5_tokenizer()), d_model=width, d_kv=16, d_ff=64, num_layers=2, num_heads=4, dropout_rate=0.0
        )
    )


def _wan(**more: Any) -> Any:
    return diffusers.WanPipeline(
        tokenizer=t5_tokenizer(), text_encoder=_umt5(48), vae=None, scheduler=_flow(), transformer=_wan_denoiser(),
        **more,
    )  # fmt: skip


def _wan_denoiser() -> Any:
    return diffusers.WanTransformer3DModel(
        num_attention_heads=4, attention_head_dim=12, in_channels=4, out_channels=4, text_dim=48, ffn_dim=64,
        num_layers=2, freq_dim=16, rope_max_seq_len=32,
    )  # fmt: skip


def _wan22() -> Any:
    return _wan(transformer_2=_wan_denoiser(), boundary_ratio=0.5)


def _t5(width: int) -> Any:
    return T5EncoderModel(
        T5Config(
            vocab_size=len(t5_tokenizer()), d_model=width, d_kv=16, d_ff=64, num_layers=2, num_heads=4, dropout_rate=0.0
        )
    )


def _flow() -> Any:
    return diffusers.FlowMatchEulerDiscreteScheduler()


def _ltx() -> Any:
    return diffusers.LTXPipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=_t5(48),
        vae=None,
        scheduler=_flow(),
        transformer=diffusers.LTXVideoTransformer3DModel(
            in_channels=4, out_channels=4, num_attention_heads=4, attention_head_dim=12, cross_attention_dim=48,
            num_layers=2, caption_channels=48,
        ),
    )  # fmt: skip


def _auraflow() -> Any:
    return diffusers.AuraFlowPipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=_umt5(48),
        vae=None,
        scheduler=_flow(),
        transformer=diffusers.AuraFlowTransformer2DModel(
            sample_size=8, num_mmdit_layers=1, num_single_dit_layers=1, attention_head_dim=8, num_attention_heads=4,
            caption_projection_dim=32, joint_attention_dim=48, pos_embed_max_size=64,
        ),
    )  # fmt: skip


def _chroma() -> Any:
    return diffusers.ChromaPipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=_t5(48),
        vae=None,
        scheduler=_flow(),
        transformer=diffusers.ChromaTransformer2DModel(
            in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=48, axes_dims_rope=(4, 4, 8), approximator_num_channels=8, approximator_hidden_dim=16,
            approximator_layers=1,
        ),
    )  # fmt: skip


_ONE_TURN: Final = "<|im_start|>{{ messages[0]['content'] }}<|im_end|>"


def byte_pairs(*added: str, template: str = _ONE_TURN, side: str = "right") -> Any:
    """Qwen's kind of tokenizer: bytes, a few words behind a space, and these as tokens of their own."""
    pairs: dict[tuple[str, str], None] = {}
    for word in ("dog", "cat", "photo", "tree", "house", "of", "a"):
        left = "Ġ"
        for letter in word:
            pairs[left, letter] = None
            left += letter
    merges: Any = list(pairs)  # which transformers takes as pairs, and calls texts
    symbols = [*byte_symbols(), *("".join(pair) for pair in pairs), "<|endoftext|>"]
    tokenizer = Qwen2Tokenizer({symbol: at for at, symbol in enumerate(symbols)}, merges, padding_side=side)
    tokenizer.chat_template = template
    tokenizer.add_tokens(["<|im_start|>", "<|im_end|>", *added], special_tokens=True)
    return tokenizer


def _pieces(text: str, count: int) -> list[str]:
    """A template's beginning in as many pieces as tokens of it are dropped, so that it is so many tokens here, too."""
    ends = [len(text) * i // count for i in range(count + 1)]
    return list(dict.fromkeys(text[i:j] for i, j in itertools.pairwise(ends)))


def _qwen3(tokenizer: Any, width: int, layers: int) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer), "hidden_size": width, "intermediate_size": 32, "num_hidden_layers": layers,
        "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 2048,
        "initializer_range": 0.3,
    }  # fmt: skip


def _gemma(width: int) -> Any:
    return Gemma2Model(
        Gemma2Config(
            vocab_size=len(t5_tokenizer()), hidden_size=width, intermediate_size=32, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=2, head_dim=8, initializer_range=0.3, pad_token_id=0,
        )
    )  # fmt: skip


def _sana() -> Any:
    return diffusers.SanaPipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=_gemma(48),
        vae=None,
        scheduler=_flow(),
        transformer=diffusers.SanaTransformer2DModel(
            in_channels=4, out_channels=4, num_layers=1, num_attention_heads=4, attention_head_dim=12,
            num_cross_attention_heads=4, cross_attention_head_dim=12, cross_attention_dim=48, caption_channels=48,
            sample_size=8,
        ),
    )  # fmt: skip


def _qwen25_vl(tokenizer: Any, width: int, layers: int, spread: float = 0.3) -> Any:
    text = {key: value for key, value in _qwen3(tokenizer, width, layers).items() if key != "head_dim"}
    text |= {"initializer_range": spread, "num_attention_heads": width // 8}
    text |= {"rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]}}
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": width}
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision))


def _qwen_image() -> Any:
    empty = diffusers.QwenImagePipeline(_flow(), None, None, None, None)  # for its template
    before, after = empty.prompt_template_encode.split("{}")
    tokenizer = byte_pairs(*_pieces(before, empty.prompt_template_encode_start_idx), after)
    return diffusers.QwenImagePipeline(
        tokenizer=tokenizer,
        text_encoder=_qwen25_vl(tokenizer, 64, 2),
        vae=None,
        scheduler=_flow(),
        transformer=diffusers.QwenImageTransformer2DModel(
            in_channels=16, out_channels=4, num_layers=1, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=64, axes_dims_rope=(4, 6, 6),
        ),
    )  # fmt: skip


def _z_image() -> Any:
    tokenizer = byte_pairs()
    return diffusers.ZImagePipeline(
        tokenizer=tokenizer,
        text_encoder=Qwen3Model(Qwen3Config(**_qwen3(tokenizer, 48, 2))),
        vae=None,
        scheduler=_flow(),
        transformer=diffusers.ZImageTransformer2DModel(
            in_channels=4, dim=32, n_layers=1, n_refiner_layers=2, n_heads=2, n_kv_heads=2, cap_feat_dim=48,
            axes_dims=[4, 6, 6], axes_lens=[64, 32, 32],
        ),
    )  # fmt: skip


def _klein() -> Any:
    tokenizer = byte_pairs()
    return diffusers.Flux2KleinPipeline(
        tokenizer=tokenizer,
        text_encoder=Qwen3ForCausalLM(Qwen3Config(**_qwen3(tokenizer, 256, 28))),
        vae=None,
        scheduler=_flow(),
        transformer=diffusers.Flux2Transformer2DModel(
            in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=768, axes_dims_rope=(4, 4, 4, 4), guidance_embeds=False,
        ),
    )  # fmt: skip


def _lumina() -> Any:
    return diffusers.Lumina2Pipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=_gemma(320),
        vae=None,
        scheduler=_flow(),
        transformer=diffusers.Lumina2Transformer2DModel(
            in_channels=4, hidden_size=24, num_layers=1, num_refiner_layers=2, num_attention_heads=3, num_kv_heads=1,
            cap_feat_dim=320, axes_dim_rope=(4, 2, 2), axes_lens=(512, 128, 128), multiple_of=16,
        ),
    )  # fmt: skip


def _flux2() -> Any:
    turns = "{% for m in messages %}{% set said = m['content'][0]['text'] %}"
    turns += (
        "{% if m['role'] == 'system' %}[SYS]{{ said }}[/SYS]{% else %}[INST]{{ said }}[/INST]{% endif %}{% endfor %}"
    )
    marks = ("[SYS]", "[/SYS]", "[INST]", "[/INST]", "[IMG]", "[IMG_BREAK]", "[IMG_END]")
    tokenizer = byte_pairs(SYSTEM_MESSAGE, *marks, template=turns, side="left")
    text = _qwen3(tokenizer, 256, 30) | {"model_type": "mistral", "sliding_window": None}
    vision = {
        "model_type": "pixtral", "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "head_dim": 8, "image_size": 32, "patch_size": 16,
    }  # fmt: skip
    return diffusers.Flux2Pipeline(
        tokenizer=tokenizer,  # of a PixtralProcessor, which needs torchvision, the part that reads text
        text_encoder=Mistral3ForConditionalGeneration(Mistral3Config(text_config=text, vision_config=vision)),
        vae=None,
        scheduler=_flow(),
        transformer=diffusers.Flux2Transformer2DModel(
            in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=768, axes_dims_rope=(4, 4, 4, 4), guidance_embeds=True,
        ),
    )  # fmt: skip


def _cogview4() -> Any:
    tokenizer = byte_pairs("[gMASK]", "<sop>", side="left")
    begun = [(mark, tokenizer.convert_tokens_to_ids(mark)) for mark in ("[gMASK]", "<sop>")]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing("[gMASK] <sop> $A", special_tokens=begun)
    return diffusers.CogView4Pipeline(
        tokenizer=tokenizer,
        text_encoder=GlmModel(GlmConfig(**_qwen3(tokenizer, 64, 2), pad_token_id=tokenizer.pad_token_id)),
        vae=None,
        scheduler=_flow(),
        transformer=diffusers.CogView4Transformer2DModel(
            in_channels=4, out_channels=4, num_layers=1, attention_head_dim=16, num_attention_heads=2,
            text_embed_dim=64, time_embed_dim=8, condition_dim=4, sample_size=8,
        ),
    )  # fmt: skip


def _hunyuan_video() -> Any:
    before, after = DEFAULT_PROMPT_TEMPLATE["template"].split("{}")
    tokenizer = byte_pairs(*_pieces(before, DEFAULT_PROMPT_TEMPLATE["crop_start"]), after)
    second = byte_pairs()
    clip = CLIPTextConfig(
        vocab_size=len(second), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        projection_dim=16, eos_token_id=2,
    )  # fmt: skip
    return diffusers.HunyuanVideoPipeline(
        tokenizer=tokenizer,
        text_encoder=LlamaModel(LlamaConfig(**_qwen3(tokenizer, 320, 3))),
        tokenizer_2=second,
        text_encoder_2=CLIPTextModel(clip),
        vae=None,
        scheduler=_flow(),
        transformer=diffusers.HunyuanVideoTransformer3DModel(
            in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=16, num_layers=1,
            num_single_layers=1, num_refiner_layers=2, patch_size=1, patch_size_t=1, guidance_embeds=True,
            text_embed_dim=320, pooled_projection_dim=16, rope_axes_dim=(4, 6, 6),
        ),
    )  # fmt: skip


class AnswersForNobody:
    """In the place of what judges Cosmos' prompts and films: everything may be drawn."""

    def to(self, *_where: Any) -> "AnswersForNobody":
        """As modules are moved."""
        return self

    def check_text_safety(self, _prompt: str) -> bool:
        """Yes."""
        return True


def _cosmos() -> Any:
    return diffusers.Cosmos2TextToImagePipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=_t5(48),
        vae=None,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_karras_sigmas=True),
        safety_checker=AnswersForNobody(),
        transformer=diffusers.CosmosTransformer3DModel(
            in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=16, num_layers=1, mlp_ratio=2,
            text_embed_dim=48, adaln_lora_dim=4, max_size=(4, 32, 32), patch_size=(1, 2, 2), rope_scale=(2.0, 1.0, 1.0),
            concat_padding_mask=False, extra_pos_embed_type=None,
        ),
    )  # fmt: skip


def _cosmos_25() -> Any:
    turns = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'][0]['text'] }}<|im_end|>\n{% endfor %}"
    tokenizer = byte_pairs(template=turns)
    return diffusers.Cosmos2_5_PredictBasePipeline(
        tokenizer=tokenizer,
        text_encoder=_qwen25_vl(tokenizer, 256, 3, 0.02),  # whose filling, which is read, does not take all of a width
        vae=diffusers.AutoencoderKLWan(  # a film of no frame given goes through it
            base_dim=3, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True],
            latents_mean=[0.0] * 4, latents_std=[1.0] * 4,
        ),
        scheduler=diffusers.UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True),
        safety_checker=AnswersForNobody(),
        transformer=diffusers.CosmosTransformer3DModel(
            in_channels=5, out_channels=4, num_attention_heads=2, attention_head_dim=16, num_layers=1, mlp_ratio=2,
            text_embed_dim=768, adaln_lora_dim=4, max_size=(4, 32, 32), patch_size=(1, 2, 2), rope_scale=(2.0, 1.0, 1.0),
            concat_padding_mask=False, extra_pos_embed_type=None, use_crossattn_projection=True,
            crossattn_proj_in_channels=768, encoder_hidden_states_channels=768,
        ),
    )  # fmt: skip


def _qwen_image_21() -> Any:
    import diffusers
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    turns = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'][0]['text'] }}<|im_end|>\n{% endfor %}"
    tokenizer = byte_pairs("<|image_pad|>", template=turns)
    text = _qwen3(tokenizer, 64, 2) | {"rope_scaling": {"rope_type": "default", "mrope_section": [2, 1, 1]}}
    vision = {
        "depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 64,
        "deepstack_visual_indexes": [0],
    }  # fmt: skip
    return diffusers.QwenImage21Pipeline(
        scheduler=_flow(),
        vae=None,
        text_encoder=Qwen3VLForConditionalGeneration(Qwen3VLConfig(text_config=text, vision_config=vision)),
        processor=TextAlone(tokenizer),  # of a Qwen3VLProcessor, which needs torchvision, the part that reads text
        transformer=diffusers.QwenImage21Transformer2DModel(
            in_channels=4, out_channels=4, num_layers=1, attention_head_dim=16, num_attention_heads=2,
            context_in_dim=64, axes_dims_rope=(4, 6, 6),
        ),
    )  # fmt: skip


def _krea2() -> Any:
    import diffusers
    from transformers import Qwen3VLConfig, Qwen3VLModel

    empty = diffusers.Krea2Pipeline(_flow(), None, None, None, None)  # for its template
    before, count = empty.prompt_template_encode_prefix, empty.prompt_template_encode_start_idx
    tokenizer = byte_pairs(*_pieces(before, count), "assistant")
    text = _qwen3(tokenizer, 128, 36) | {"rope_scaling": {"rope_type": "default", "mrope_section": [2, 1, 1]}}
    vision = {
        "depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 128,
        "deepstack_visual_indexes": [0],
    }  # fmt: skip
    return diffusers.Krea2Pipeline(
        tokenizer=tokenizer,
        text_encoder=Qwen3VLModel(Qwen3VLConfig(text_config=text, vision_config=vision)),
        vae=None,
        scheduler=_flow(),
        transformer=diffusers.Krea2Transformer2DModel(
            in_channels=16, num_layers=1, attention_head_dim=16, num_attention_heads=2, num_key_value_heads=1,
            intermediate_size=32, timestep_embed_dim=8, text_hidden_dim=128, num_text_layers=12,
            text_num_attention_heads=2, text_num_key_value_heads=2, text_intermediate_size=32,
            axes_dims_rope=(4, 6, 6),
        ),
    )  # fmt: skip


def _ernie_image() -> Any:
    import diffusers
    from transformers import Mistral3Config, Mistral3Model

    tokenizer = byte_pairs()
    vision = {
        "model_type": "pixtral", "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "head_dim": 8, "image_size": 32, "patch_size": 16,
    }  # fmt: skip
    text = _qwen3(tokenizer, 64, 2) | {"model_type": "mistral", "sliding_window": None}
    return diffusers.ErnieImagePipeline(
        tokenizer=tokenizer,
        text_encoder=Mistral3Model(Mistral3Config(text_config=text, vision_config=vision)),
        vae=None,
        scheduler=_flow(),
        transformer=diffusers.ErnieImageTransformer2DModel(
            hidden_size=32, num_attention_heads=2, num_layers=1, ffn_hidden_size=32, in_channels=4, out_channels=4,
            text_in_dim=64, rope_axes_dim=(4, 6, 6),
        ),
    )  # fmt: skip


def _hidream() -> Any:
    import diffusers
    from transformers import CLIPTextModelWithProjection, LlamaConfig, LlamaForCausalLM

    tokenizer, pooled = byte_pairs(), byte_pairs()
    clip = CLIPTextConfig(
        vocab_size=len(pooled), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        projection_dim=8, eos_token_id=2, max_position_embeddings=128,
    )  # fmt: skip
    llama = LlamaConfig(**_qwen3(tokenizer, 256, 3) | {"initializer_range": 0.05})
    return diffusers.HiDreamImagePipeline(
        tokenizer=pooled,
        text_encoder=CLIPTextModelWithProjection(clip),
        tokenizer_2=pooled,
        text_encoder_2=CLIPTextModelWithProjection(clip),
        tokenizer_3=t5_tokenizer(),
        text_encoder_3=_t5(192),
        tokenizer_4=tokenizer,
        text_encoder_4=LlamaForCausalLM(llama),
        vae=None,
        scheduler=_flow(),
        transformer=diffusers.HiDreamImageTransformer2DModel(
            patch_size=2, in_channels=4, num_layers=1, num_single_layers=2, attention_head_dim=8, num_attention_heads=4,
            caption_channels=[192, 256], text_emb_dim=16, num_routed_experts=2, axes_dims_rope=(4, 2, 2),
            max_resolution=(16, 16), llama_layers=[1, 2, 2], force_inference_output=True,
        ),
    )  # fmt: skip


_BUILDERS: Final[Mapping[str, Callable[[], Any]]] = {
    "Wan": _wan,
    "LTX": _ltx,
    "AuraFlow": _auraflow,
    "Chroma": _chroma,
    "Sana": _sana,
    "Qwen-Image": _qwen_image,
    "Z-Image": _z_image,
    "FLUX.2 klein": _klein,
    "FLUX.2": _flux2,
    "Wan 2.2": _wan22,
    "CogView4": _cogview4,
    "HunyuanVideo": _hunyuan_video,
    "Cosmos": _cosmos,
    "Cosmos 2.5": _cosmos_25,
    "Lumina 2": _lumina,
    "Qwen-Image 2.1": _qwen_image_21,
    "Krea 2": _krea2,
    "ERNIE-Image": _ernie_image,
    "Kolors": tiny_kolors,
    "HiDream": _hidream,
}
NAMES: Final = tuple(_BUILDERS)
