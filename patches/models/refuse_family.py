"""Refusing layers that do not read text embeddings as they are, and families that a method cannot follow."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Final

from rasura.patches.errors import UnsupportedHostError
from rasura.patches.hosts.interface import ParameterInfo
from rasura.patches.models.families import FAMILIES, PROJECTED, find_family
from rasura.patches.models.family import OF_TEXT, Family, Reads, find_matching
from rasura.patches.types import ParamName

__all__ = ["refuse_several_encoders", "refuse_unread", "refuse_wide"]

_READS: Final[Mapping[Reads, str]] = {
    "text": "the text embeddings themselves",
    "normed": "the text embeddings after a norm",
    "pooled": "one pooled embedding a prompt",
    "projected": "what a network made of the text embeddings",
    "fused": "what a network made of all text embeddings of a prompt",
    "stream": "a text stream that is mixed with time step and picture",
    "picture": "the picture alone",
}

_IP_ADAPTER: Final = "unet.*.attn2.processor.to_k_ip.*"

_GIB: Final = 1 << 30
_MOST: Final = 8 * _GIB
"""Bytes of a d × d matrix of float64, of which an erasure and its checks make several."""

_KNOWN_OTHERS: Final[Mapping[str, str]] = {
    "transformer.img_context_proj.*": "Cosmos Transfer 2.5's: its ControlNet reads the text by maps of its own beside "
    "the transformer's, and a patch of these alone would leave the concept there",
    PROJECTED: "those of a UNet that reads behind encoder_hid_proj what other encoders than Kolors' ChatGLM give, as "
    "in DeepFloyd IF and Kandinsky: what it reads is not known",
}
"""Models that are looked at and not erased in: what is seen of them."""


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
        odd = next((name for name in names if family.reads(name) not in OF_TEXT), None)
        if odd is None and names:
            return
        reads = "none" if odd is None else f"{odd}, which reads {_READS[family.reads(odd) or 'stream']}"
        raise UnsupportedHostError(
            f"expected {sought}, got {reads}: the model is of the {family.name} family, whose text enters through "
            f"{_entrances(family, infos)}",
            hint="rasura erase --base MODEL --concept TEXT --layers text",
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
        if any(find_matching(infos, pattern)):
            raise UnsupportedHostError(f"expected {sought}, got {seen}", hint="rasura probe MODEL")
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
        raise UnsupportedHostError(
            f"the model has no {sought}: expected a UNet of the SD 1.x or 2.x family", hint="rasura probe MODEL"
        )


def refuse_wide(infos: Mapping[ParamName, ParameterInfo], width: int) -> None:
    """Refuse embeddings so wide that the second moment of their tokens, [d, d] float64, is too large to work with.

    Raises:
        UnsupportedHostError: naming its size, and the layers of the family that read what is narrower.
    """
    if (size := 8 * width * width) <= _MOST:
        return
    family = find_family(infos)
    behind = () if family is None else family.reading(infos, "projected")
    raise UnsupportedHostError(
        f"expected embeddings whose second moment, d × d numbers of 8 bytes, is at most {_MOST // _GIB} GiB, got "
        f"embeddings of width {width}: {size / _GIB:.0f} GiB"
        + (f"; {behind[0]} reads what a network makes of them, {infos[behind[0]].shape[-1]} wide" if behind else ""),
        hint="rasura erase --base MODEL --concept TEXT --layers kv" if behind else "rasura probe MODEL",
        width=width,
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
        f"one of the {family.name} family, which reads {_named(family)}{_drawn_by(family)}",
        hint=hint,
        family=family.name,
        encoders=tuple(encoder.component for encoder in family.encoders),
    )


def _named(family: Family) -> str:
    kinds = {each.component: f"by {each.pipeline}" if each.pipeline else each.kind for each in family.encoders}
    return ", ".join(f"{each.component} ({kinds[each.component]}, width {each.width})" for each in family.encoders)


def _drawn_by(family: Family) -> str:
    """What else of a family is not as such methods need it: they go through a UNet's noise and its schedule."""
    if family.components[0] == "unet":
        return ""
    return " and draws by a transformer, where it goes through a UNet that predicts noise on a schedule of noise"


def _entrances(family: Family, infos: Mapping[ParamName, ParameterInfo]) -> str:
    found = [(name, infos[name].shape[-1]) for name in family.entrances(infos)]
    shown = ", ".join(f"{name} (width {width})" for name, width in found[:4])
    return shown + (f" and {len(found) - 4} more" if len(found) > 4 else "")  # noqa: PLR2004
