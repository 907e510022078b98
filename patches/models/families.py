"""Families of text-to-image models: what encodes their text, and which of their layers read what of it.

One row a family; everything is told from the names and shapes of a host's parameters, never from a configuration file.

    family      text encoders (width)                       layers that read text embeddings as they are
    SD 1.x      text_encoder: CLIP (768)                     attn2.to_k, attn2.to_v
    SD 2.x      text_encoder: CLIP (1024)                    attn2.to_k, attn2.to_v
    SDXL        text_encoder, text_encoder_2: CLIP           attn2.to_k, attn2.to_v, of both side by side (2048)
                (768 + 1280)
    SD3         two CLIPs and text_encoder_3: T5 (4096)      context_embedder
    FLUX        text_encoder: CLIP (pooled only),            context_embedder
                text_encoder_2: T5 (4096)
    PixArt      text_encoder: T5 (4096)                      caption_projection.linear_1

What looks like a text projection and is none: PixArt's `attn2` reads what a two-layer network made of the text; in SD3
and FLUX `add_k_proj` and `add_v_proj` read a stream that is modulated by the time step and, from the second block on,
has attended to the picture; `attn2` of SD3.5's dual blocks reads the picture alone.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from math import prod
from typing import Final, Literal

from rasura.patches.errors import UnsupportedHostError
from rasura.patches.hosts.interface import ParameterInfo
from rasura.patches.types import ParamName

__all__ = [
    "CLIP",
    "FAMILIES",
    "Encoder",
    "Family",
    "Reader",
    "find_family",
    "refuse_several_encoders",
    "refuse_two_spaces",
    "refuse_unread",
]

Reads = Literal["text", "normed", "pooled", "projected", "stream", "picture"]
States = Literal["last", "penultimate"]
"""Hidden states after the last block and the final norm, or after the block before the last, without the norm."""

_READS: Final[Mapping[Reads, str]] = {
    "text": "the text embeddings themselves",
    "normed": "the text embeddings after a norm",
    "pooled": "one pooled embedding a prompt",
    "projected": "what a network made of the text embeddings",
    "stream": "a text stream that is mixed with time step and picture",
    "picture": "the picture alone",
}


_OF_TEXT: Final = frozenset({"text", "normed", "projected"})
"""What is a fixed function of each token's state: there a detector can sit."""


@dataclass(frozen=True, slots=True)
class Encoder:
    """One of a pipeline's text encoders."""

    component: str
    kind: Literal["CLIP", "T5", "pipeline"]
    """`pipeline`: whatever the family's pipeline reads with, by its own `encode_prompt`."""
    width: int
    """Of the published models, in numbers a token."""
    states: States = "last"
    """Which of its hidden states the layers read that read text."""
    length: int | None = None
    """Positions that the family's pipeline pads a prompt to by default; None: as many as the encoder has."""
    masked: bool = False
    """Whether padding is hidden, from the encoder and from what reads it, and captions are cleaned before."""

    causal: bool = False
    """Whether a position knows only what stands before it; of kind `pipeline`, for which its class cannot tell."""
    pipeline: str = ""
    """The class of diffusers whose `encode_prompt` reads, of kind `pipeline`."""
    alone: bool = False
    """Whether what else is read in the same call changes what a prompt gives: its filling is read like words."""

    @property
    def tokenizer(self) -> str:
        """The tokenizer beside it."""
        return self.component.replace("text_encoder", "tokenizer")


@dataclass(frozen=True, slots=True)
class Reader:
    """Linear layers by a pattern of their names (`*` is any text), and what they read."""

    pattern: str
    reads: Reads
    through: tuple[str, ...] = ()
    """The modules, with their component, that the states go through in this order before these layers read them."""


@dataclass(frozen=True, slots=True)
class Family:
    """A row of the table.

    Attributes:
        name: as people call it.
        encoders: all its text encoders.
        readers: its linear layers that see text, or are taken for such.
        has: patterns that must all match a parameter.
        sequence: the encoders whose states are read: parts of the sequence of positions, and in each the encoders that
            fill it side by side.
        lacks: patterns that must match none.
        dimensions: a pattern, and of how many dimensions the parameters are that it matches.
        doubled: a matrix, and a convolution of which one filter has half as many numbers as the matrix has rows.
    """

    name: str
    encoders: tuple[Encoder, ...]
    readers: tuple[Reader, ...]
    has: tuple[str, ...]
    sequence: tuple[tuple[Encoder, ...], ...]
    lacks: tuple[str, ...] = ()
    dimensions: tuple[str, int] | None = None
    doubled: tuple[ParamName, ParamName] | None = None

    @property
    def components(self) -> tuple[str, ...]:
        """The parts of a pipeline that hold its patchable parameters, the denoiser first."""
        return (self.has[0].partition(".")[0], *(encoder.component for encoder in self.encoders))

    def fits(self, infos: Mapping[ParamName, ParameterInfo]) -> bool:
        """Whether a host with these parameters is of this family."""
        if not all(any(_matching(infos, pattern)) for pattern in self.has):
            return False
        if any(any(_matching(infos, pattern)) for pattern in self.lacks):
            return False
        if self.doubled is not None:
            rows, patch = (infos[name].shape if name in infos else () for name in self.doubled)
            if not rows or rows[0] != 2 * prod(patch[1:]):
                return False
        if self.dimensions is None:
            return True
        pattern, count = self.dimensions
        shapes = [info.shape for info in _matching(infos, pattern)]
        return bool(shapes) and all(len(shape) == count for shape in shapes)

    def reads(self, name: ParamName) -> Reads | None:
        """What a parameter reads of the text; None if it is no text layer of this family."""
        return next((reader.reads for reader in self.readers if fnmatchcase(name, reader.pattern)), None)

    def reading(self, infos: Mapping[ParamName, ParameterInfo], reads: Reads = "text") -> list[ParamName]:
        """The parameters that read this, in name order."""
        return [name for name in sorted(infos) if self.reads(name) == reads]

    def entrances(self, infos: Mapping[ParamName, ParameterInfo]) -> list[ParamName]:
        """The parameters through which text enters: they read the embeddings themselves, or after a norm alone."""
        return self.reading(infos, "text") or self.reading(infos, "normed")

    def through(self, *, entrances: bool) -> tuple[str, ...]:
        """The modules that text goes through before its entrances, or before cross-attention, read it."""
        kinds = ("text", "normed") if entrances else ("text", "projected")
        ways = [
            reader.through
            for reader in self.readers
            if reader.reads in kinds and (entrances or _CROSS in f".{reader.pattern}")
        ]
        return ways[0] if ways else ()


_CROSS: Final = ".attn2."
_ATTENTION: Final = ("unet.*.attn2.to_k.weight", "unet.*.attn2.to_v.weight")
_MOTION: Final = ".motion_modules."
_UNET: Final = (
    *(Reader(f"unet.*{_MOTION}*.attn2.to_{role}.weight", "picture") for role in "kv"),  # AnimateDiff's: over frames
    *(Reader(pattern, "text") for pattern in _ATTENTION),
)
# A UNet with this projects its text first, as Kolors does; its attn2 does not see the encoder's output.
_PROJECTED: Final = "unet.encoder_hid_proj.*"
_IP_ADAPTER: Final = "unet.*.attn2.processor.to_k_ip.*"
_POOLED: Final = Reader("transformer.time_text_embed.text_embedder.linear_1.weight", "pooled")
_CONTEXT: Final = "transformer.context_embedder.weight"
_STREAM: Final = tuple(Reader(f"transformer.*.attn.add_{role}_proj.weight", "stream") for role in "kv")


def _projected(blocks: str, *through: str) -> tuple[Reader, ...]:
    """Cross-attention that reads what these modules make of the text."""
    return tuple(Reader(f"{blocks}.attn2.to_{role}.weight", "projected", through) for role in "kv")


CLIP: Final = Encoder("text_encoder", "CLIP", 768)
_CLIP_G: Final = Encoder("text_encoder_2", "CLIP", 1280)
_CLIP_H: Final = Encoder("text_encoder", "CLIP", 1024)
_BOTH: Final = (replace(CLIP, states="penultimate"), replace(_CLIP_G, states="penultimate"))
_T5_OF_SD3: Final = Encoder("text_encoder_3", "T5", 4096, length=256)
_T5_OF_FLUX: Final = Encoder("text_encoder_2", "T5", 4096, length=512)
_T5_OF_PIXART: Final = Encoder("text_encoder", "T5", 4096, length=120, masked=True)

_WAN_TEXT: Final = "transformer.condition_embedder.text_embedder"
_WAN_TEXT_2: Final = "transformer_2.condition_embedder.text_embedder"
_CAPTION: Final = "transformer.caption_projection"


def _pipeline(
    name: str, width: int, length: int, *, masked: bool = True, causal: bool = True, alone: bool = False
) -> Encoder:
    """The encoder that a pipeline of diffusers reads with, by its own method."""
    return Encoder(
        "text_encoder",
        "pipeline",
        width,
        length=length,
        masked=masked,
        causal=causal,
        pipeline=f"{name}Pipeline",
        alone=alone,
    )


_UMT5_OF_WAN: Final = _pipeline("Wan", 4096, 512, masked=False, causal=False)
_T5_OF_LTX: Final = _pipeline("LTX", 4096, 128, causal=False)
_UMT5_OF_AURAFLOW: Final = _pipeline("AuraFlow", 2048, 256, causal=False)
_T5_OF_CHROMA: Final = _pipeline("Chroma", 4096, 512, causal=False)
_GEMMA_OF_SANA: Final = _pipeline("Sana", 2304, 300)
_MISTRAL_OF_FLUX2: Final = _pipeline("Flux2", 15360, 512, masked=False)
_QWEN_OF_QWEN_IMAGE: Final = _pipeline("QwenImage", 3584, 1024)
_QWEN_OF_Z_IMAGE: Final = _pipeline("ZImage", 2560, 512)
_QWEN_OF_KLEIN: Final = _pipeline("Flux2Klein", 7680, 512, masked=False)
_GEMMA_OF_LUMINA: Final = _pipeline("Lumina2", 2304, 256)
_GLM_OF_COGVIEW4: Final = _pipeline("CogView4", 4096, 1024, alone=True)
_LLAMA_OF_HUNYUAN: Final = _pipeline("HunyuanVideo", 4096, 256)
_T5_OF_COSMOS: Final = _pipeline("Cosmos2TextToImage", 1024, 512, causal=False)
_LUMINA_TEXT: Final = "transformer.time_caption_embed.caption_embedder"
_COSMOS_TIME: Final = "transformer.time_embed.t_embedder.linear_1.weight"
_FLUX2: Final = "transformer.double_stream_modulation_txt.linear.weight"
_GUIDED: Final = "transformer.time_guidance_embed.guidance_embedder"
_WAN: Final = (
    Reader(f"{_WAN_TEXT}.linear_1.weight", "text"),
    Reader(f"{_WAN_TEXT}.linear_2.weight", "projected"),
    *_projected("transformer.blocks.*", _WAN_TEXT),
)
_WAN_IMAGES: Final = ("transformer.condition_embedder.image_embedder.*",)  # which also reads a picture's features

FAMILIES: Final = (
    Family(
        "SDXL",
        _BOTH,
        (*_UNET, Reader("unet.add_embedding.linear_1.weight", "pooled")),
        has=(_ATTENTION[0], "unet.add_embedding.linear_1.weight"),
        lacks=(_PROJECTED,),
        sequence=(_BOTH,),
    ),
    Family(
        "SD 1.x",
        (CLIP,),
        _UNET,
        has=_ATTENTION,
        lacks=(_PROJECTED, "unet.add_embedding.*"),
        dimensions=("unet.*.attentions.*.proj_in.weight", 4),
        sequence=((CLIP,),),
    ),
    Family(
        "SD 2.x",
        (_CLIP_H,),
        _UNET,
        has=_ATTENTION,
        lacks=(_PROJECTED, "unet.add_embedding.*"),
        dimensions=("unet.*.attentions.*.proj_in.weight", 2),
        sequence=((_CLIP_H,),),
    ),
    Family(
        "SD3",
        (*_BOTH, _T5_OF_SD3),
        (
            Reader(_CONTEXT, "text"),
            _POOLED,
            *_STREAM,
            *(Reader(f"transformer.*.attn2.to_{role}.weight", "picture") for role in "kv"),
        ),
        has=(_CONTEXT, "transformer.pos_embed.proj.weight", _POOLED.pattern),
        lacks=("transformer.single_transformer_blocks.*",),
        sequence=(_BOTH, (_T5_OF_SD3,)),
    ),
    Family(
        "FLUX",
        (CLIP, _T5_OF_FLUX),
        (Reader(_CONTEXT, "text"), _POOLED, *_STREAM),
        has=(_CONTEXT, "transformer.x_embedder.weight", "transformer.single_transformer_blocks.*", _POOLED.pattern),
        sequence=((_T5_OF_FLUX,),),
    ),
    Family(
        "PixArt",
        (_T5_OF_PIXART,),
        (
            Reader("transformer.caption_projection.linear_1.weight", "text"),
            Reader("transformer.caption_projection.linear_2.weight", "projected"),
            *_projected("transformer.*", "transformer.caption_projection"),
        ),
        has=("transformer.caption_projection.linear_1.weight", "transformer.adaln_single.linear.weight"),
        # Latte and Allegro call their layers alike: films, of which PixArt's noise and its variance tell it.
        lacks=("transformer.temporal_transformer_blocks.*",),
        doubled=(ParamName("transformer.proj_out.weight"), ParamName("transformer.pos_embed.proj.weight")),
        sequence=((_T5_OF_PIXART,),),
    ),
    Family(
        "Wan 2.2",
        (_UMT5_OF_WAN,),
        (
            *_WAN,
            Reader(f"{_WAN_TEXT_2}.linear_1.weight", "text"),
            Reader(f"{_WAN_TEXT_2}.linear_2.weight", "projected"),
        ),
        has=(f"{_WAN_TEXT}.linear_1.weight", f"{_WAN_TEXT_2}.linear_1.weight"),
        lacks=_WAN_IMAGES,
        sequence=((_UMT5_OF_WAN,),),
    ),
    Family(
        "Wan",
        (_UMT5_OF_WAN,),
        _WAN,
        has=(f"{_WAN_TEXT}.linear_1.weight", "transformer.blocks.*.attn2.to_k.weight"),
        lacks=_WAN_IMAGES,
        sequence=((_UMT5_OF_WAN,),),
    ),
    Family(
        "LTX",
        (_T5_OF_LTX,),
        (
            Reader(f"{_CAPTION}.linear_1.weight", "text"),
            Reader(f"{_CAPTION}.linear_2.weight", "projected"),
            *_projected("transformer.*", _CAPTION),
        ),
        has=(f"{_CAPTION}.linear_1.weight", "transformer.proj_in.weight", "transformer.time_embed.linear.weight"),
        sequence=((_T5_OF_LTX,),),
    ),
    Family(
        "AuraFlow",
        (_UMT5_OF_AURAFLOW,),
        (Reader(_CONTEXT, "text"), *_STREAM),
        has=(_CONTEXT, "transformer.register_tokens", "transformer.time_step_proj.linear_1.weight"),
        sequence=((_UMT5_OF_AURAFLOW,),),
    ),
    Family(
        "Chroma",
        (_T5_OF_CHROMA,),
        (Reader(_CONTEXT, "text"), *_STREAM),
        has=(_CONTEXT, "transformer.distilled_guidance_layer.in_proj.weight"),
        sequence=((_T5_OF_CHROMA,),),
    ),
    Family(
        "Sana",
        (_GEMMA_OF_SANA,),
        (
            Reader(f"{_CAPTION}.linear_1.weight", "text"),
            Reader(f"{_CAPTION}.linear_2.weight", "projected"),
            *_projected("transformer.*", _CAPTION, "transformer.caption_norm"),
        ),
        has=(f"{_CAPTION}.linear_1.weight", "transformer.caption_norm.weight", "transformer.patch_embed.proj.weight"),
        sequence=((_GEMMA_OF_SANA,),),
    ),
    Family(
        "Qwen-Image",
        (_QWEN_OF_QWEN_IMAGE,),
        (Reader("transformer.txt_in.weight", "normed", ("transformer.txt_norm",)), *_STREAM),
        has=("transformer.txt_in.weight", "transformer.txt_norm.weight", "transformer.img_in.weight"),
        sequence=((_QWEN_OF_QWEN_IMAGE,),),
    ),
    Family(
        "Z-Image",
        (_QWEN_OF_Z_IMAGE,),
        (Reader("transformer.cap_embedder.1.weight", "normed", ("transformer.cap_embedder.0",)),),
        has=("transformer.cap_embedder.1.weight", "transformer.all_x_embedder.*", "transformer.context_refiner.*"),
        sequence=((_QWEN_OF_Z_IMAGE,),),
    ),
    Family(
        "FLUX.2",
        (_MISTRAL_OF_FLUX2,),
        (Reader(_CONTEXT, "text"), *_STREAM),
        has=(_CONTEXT, _FLUX2, f"{_GUIDED}.linear_1.weight"),
        sequence=((_MISTRAL_OF_FLUX2,),),
    ),
    Family(
        "FLUX.2 klein",
        (_QWEN_OF_KLEIN,),
        (Reader(_CONTEXT, "text"), *_STREAM),
        has=(_CONTEXT, _FLUX2),
        lacks=(f"{_GUIDED}.*",),
        sequence=((_QWEN_OF_KLEIN,),),
    ),
    Family(
        "CogView4",
        (_GLM_OF_COGVIEW4,),
        (Reader("transformer.patch_embed.text_proj.weight", "text"),),
        has=("transformer.patch_embed.text_proj.weight", "transformer.time_condition_embed.*"),
        sequence=((_GLM_OF_COGVIEW4,),),
    ),
    Family(
        "HunyuanVideo",
        (_LLAMA_OF_HUNYUAN, replace(CLIP, component="text_encoder_2")),
        (
            Reader("transformer.context_embedder.proj_in.weight", "text"),
            _POOLED,
            *_STREAM,
        ),
        has=("transformer.context_embedder.proj_in.weight", "transformer.context_embedder.token_refiner.*"),
        lacks=("transformer.image_embedder.*", "transformer.context_embedder_2.*"),
        sequence=((_LLAMA_OF_HUNYUAN,),),
    ),
    Family(
        "Cosmos",
        (_T5_OF_COSMOS,),
        tuple(Reader(f"transformer.transformer_blocks.*.attn2.to_{role}.weight", "text") for role in "kv"),
        has=("transformer.transformer_blocks.*.attn2.to_k.weight", "transformer.patch_embed.proj.weight", _COSMOS_TIME),
        lacks=("transformer.crossattn_proj.*",),  # of later ones, whose pipeline reads with another encoder
        sequence=((_T5_OF_COSMOS,),),
    ),
    Family(
        "Lumina 2",
        (_GEMMA_OF_LUMINA,),
        (Reader(f"{_LUMINA_TEXT}.1.weight", "normed", (f"{_LUMINA_TEXT}.0",)),),
        has=(f"{_LUMINA_TEXT}.1.weight", "transformer.context_refiner.*"),
        sequence=((_GEMMA_OF_LUMINA,),),
    ),
)
"""In the order in which they are tried; a host fits at most one."""


_KNOWN_OTHERS: Final[Mapping[str, str]] = {
    "transformer.caption_projection.*.linear.weight": "HiDream's: each block has a map of its own "
    "(caption_projection.N) for another layer's states of two encoders, so that no one detector sees what all read",
    _PROJECTED: "those of a UNet that reads behind encoder_hid_proj what other encoders give, as in Kolors (ChatGLM, "
    "whose tokenizer runs code of its own) and DeepFloyd IF",
}
"""Models that are looked at and not erased in: what is seen of them."""


def find_family(infos: Mapping[ParamName, ParameterInfo]) -> Family | None:
    """The family of a host with these parameters; None for one that is not in the table."""
    return next((family for family in FAMILIES if family.fits(infos)), None)


def refuse_unread(infos: Mapping[ParamName, ParameterInfo], names: list[ParamName], sought: str) -> None:
    """Refuse a choice of layers that do not read text embeddings as they are, or are none.

    Args:
        infos: all parameters of the host.
        names: the layers that were found by their names.
        sought: what a person asked for, for the message.

    Raises:
        UnsupportedHostError: saying what the family has instead.
    """
    family = find_family(infos)
    if family is not None:
        odd = next((name for name in names if family.reads(name) not in _OF_TEXT), None)
        if odd is None and names:
            return
        reads = "none" if odd is None else f"{odd}, which reads {_READS[family.reads(odd) or 'stream']}"
        raise UnsupportedHostError(
            f"expected {sought}, got {reads}: the model is of the {family.name} family, whose text enters through "
            f"{_entrances(family, infos)}",
            hint="rasura erase --layers text",
            family=family.name,
        )
    if adapter := next((name for name in infos if fnmatchcase(name, _IP_ADAPTER)), None):
        raise UnsupportedHostError(
            f"expected {sought} of a model alone, got one that was saved with an IP-Adapter in it ({adapter}), which "
            "brings concepts to the picture by another way than text",
            hint="pipe.unload_ip_adapter(); pipe.save_pretrained(DIR)",
            parameter=adapter,
        )
    for pattern, seen in _KNOWN_OTHERS.items():
        if any(_matching(infos, pattern)):
            raise UnsupportedHostError(
                f"expected {sought}, got {seen}: what it reads is not known", hint="rasura probe MODEL"
            )
    if any(name.startswith("transformer.") for name in names):
        raise UnsupportedHostError(
            f"expected {sought}, got {names[0] if names else 'none'} in a model of none of the families "
            f"{', '.join(known.name for known in FAMILIES)}: what it reads is not known",
            hint="rasura methods",
        )
    if any(name.startswith("transformer.") for name in infos):
        raise UnsupportedHostError(
            f"the model has no {sought}, and its transformer is of none of the families "
            f"{', '.join(known.name for known in FAMILIES)}: where its text enters is not known",
            hint="rasura probe MODEL",
        )
    if not names:
        raise UnsupportedHostError(f"the model has no {sought}: expected a UNet of the SD 1.x or 2.x family")


def refuse_two_spaces(infos: Mapping[ParamName, ParameterInfo], layers: str) -> None:
    """Refuse cross-attention of a pipeline with two denoisers, each of which reads behind a network of its own.

    Raises:
        UnsupportedHostError: naming what both read alike.
    """
    if any(name.startswith("transformer_2.") for name in infos):
        raise UnsupportedHostError(
            f"--layers {layers}: expected one denoiser, got transformer and transformer_2, whose cross-attention reads "
            "what a network of each its own made of the text",
            hint="rasura erase --layers text",
        )


def refuse_several_encoders(infos: Mapping[ParamName, ParameterInfo], who: str, hint: str = "rasura methods") -> None:
    """Refuse a family whose text is not that of one CLIP text encoder, for what changes it or draws through it.

    Args:
        infos: all parameters of the host.
        who: what would have to follow the encoders, for the message.
        hint: what to type instead.

    Raises:
        UnsupportedHostError: naming the encoders that the method would have to follow.
    """
    family = find_family(infos)
    if family is None or [encoder.kind for encoder in family.encoders] == ["CLIP"]:
        return
    raise UnsupportedHostError(
        f"{who}: expected a model that reads the embeddings of one CLIP text encoder and draws from them alone, got "
        f"one of the {family.name} family, which reads {_named(family)}",
        hint=hint,
        family=family.name,
        encoders=tuple(encoder.component for encoder in family.encoders),
    )


def _named(family: Family) -> str:
    return ", ".join(f"{each.component} ({each.kind}, width {each.width})" for each in family.encoders)


def _entrances(family: Family, infos: Mapping[ParamName, ParameterInfo]) -> str:
    found = [(name, infos[name].shape[-1]) for name in family.entrances(infos)]
    shown = ", ".join(f"{name} (width {width})" for name, width in found[:4])
    return shown + (f" and {len(found) - 4} more" if len(found) > 4 else "")  # noqa: PLR2004


def _matching(infos: Mapping[ParamName, ParameterInfo], pattern: str) -> Iterator[ParameterInfo]:
    return (info for name, info in infos.items() if fnmatchcase(name, pattern))
