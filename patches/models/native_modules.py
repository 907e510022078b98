"""How LoRA files for other programs call the modules of a model, by what its parameters are called."""

from collections.abc import Mapping
from typing import Final

from rasura.patches.format.spellings.catalogue import find_spelling_of
from rasura.patches.format.spellings.lora_names import LoraNames, LoraStyle
from rasura.patches.hosts.interface import ParameterInfo
from rasura.patches.models.families import find_family
from rasura.patches.types import ParamName

__all__ = ["find_lora_names"]

_SECOND: Final = "text_encoder_2."


def find_lora_names(infos: Mapping[ParamName, ParameterInfo], style: LoraStyle) -> LoraNames:
    """The names for a model with these parameters, which are all that its base has."""
    family = find_family(infos)
    spelling = find_spelling_of(family.name, infos) if family else None
    return LoraNames(style, spelling, any(name.startswith(_SECOND) for name in infos))
