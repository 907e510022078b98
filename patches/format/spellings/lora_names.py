"""What the modules of a LoRA file are called that ComfyUI, A1111, Forge and trainers read.

    kohya     lora_unet_<module>, dots as underscores      lora_te_<module>, or lora_te1_, lora_te2_, lora_te3_
    native    diffusion_model.<module>

A UNet's modules are diffusers' own there; a transformer's are its authors' (`rasura.patches.format.spellings`). Where
a native matrix holds several of ours, one pair of factors is all of theirs, each beside the others' zeros.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from rasura.patches.errors import UnsupportedHostError
from rasura.patches.format.spellings.spelling import Spelling
from rasura.patches.types import ParamName

__all__ = ["LoraNames", "LoraStyle", "ModuleKey", "list_denoisers"]

LoraStyle = Literal["kohya", "native"]

_WEIGHT: Final = ".weight"
_PEFT: Final = "rasura patch export ID -o DIR --format peft"
_ENCODERS: Final = ("text_encoder", "text_encoder_2", "text_encoder_3")
_DENOISERS: Final = ("transformer", "transformer_2")


@dataclass(frozen=True, slots=True)
class ModuleKey:
    """Where one of our matrices lies in a LoRA file: the module's key, and which of so many parts of its rows."""

    key: str
    part: int = 0
    parts: int = 1


@dataclass(frozen=True, slots=True)
class LoraNames:
    """How a LoRA file names modules.

    Attributes:
        style: the kind of file.
        spelling: the transformer's native names; None of a UNet, or where none are known.
        two_encoders: whether the model has several text encoders: their names differ.
        denoiser: of a pipeline with two, the one that the file is of; None of a pipeline with one.
    """

    style: LoraStyle = "kohya"
    spelling: Spelling | None = None
    two_encoders: bool = False
    denoiser: str | None = None

    def place(self, name: ParamName) -> ModuleKey:
        """What the module of a parameter is called.

        Raises:
            UnsupportedHostError: it has no name in this style; the message says why.
        """
        component, _, module = name.removesuffix(_WEIGHT).partition(".")
        if component in _DENOISERS:
            return self._of_transformer(name, component)
        if self.style == "native":
            raise _nameless(
                name,
                "an encoder or a UNet: expected a layer of a transformer, in whose own names such files are",
                hint="--format kohya",
            )
        prefix = self._prefix(component)
        if prefix is None or ".processor." in module:
            raise _nameless(name, "expected a layer of a UNet, of a transformer or of a text encoder")
        return ModuleKey(f"{prefix}_{module.replace('.', '_')}")

    def covers(self, name: ParamName) -> bool:
        """Whether a parameter is for this file at all: another denoiser has a file of its own."""
        component = name.partition(".")[0]
        return self.denoiser is None or component not in _DENOISERS or component == self.denoiser

    def _prefix(self, component: str) -> str | None:
        if component == "unet":
            return "lora_unet"
        if component not in _ENCODERS:
            return None
        number = _ENCODERS.index(component) + 1
        return f"lora_te{number}" if self.two_encoders or number > 1 or self.spelling else "lora_te"

    def _of_transformer(self, name: ParamName, component: str) -> ModuleKey:
        ours = name.partition(".")[2]
        if component != (self.denoiser or _DENOISERS[0]):
            raise _nameless(name, "of another denoiser, for which programs load a file of its own", hint="--each")
        if self.spelling is None:
            raise _nameless(name, "the native names of its family are not known, or there are none")
        if (native := self.spelling.write(ours)) is not None:
            return ModuleKey(self._key(native))
        holder = self.spelling.holder(ours)
        held = self.spelling.read(holder) if holder else ()
        if holder is None or not held:
            why = f"{holder} holds it in parts of several sizes or in another order" if holder else "it is in no table"
            raise _nameless(name, why)
        return ModuleKey(self._key(holder), held.index(ours), len(held))

    def _key(self, native: str) -> str:
        module = native.removesuffix(_WEIGHT)
        return f"diffusion_model.{module}" if self.style == "native" else f"lora_unet_{module.replace('.', '_')}"


def list_denoisers(names: Iterable[ParamName]) -> tuple[str, ...]:
    """The denoisers that have any of these parameters, in the pipeline's order."""
    found = {name.partition(".")[0] for name in names}
    return tuple(each for each in _DENOISERS if each in found)


def _nameless(name: ParamName, why: str, hint: str = _PEFT) -> UnsupportedHostError:
    return UnsupportedHostError(f"{name} has no name in such a file: {why}", hint=hint, parameter=name)
