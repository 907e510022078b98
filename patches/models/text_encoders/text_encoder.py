"""What turns prompts into the embeddings that a family's layers read: one text encoder, or several side by side.

    SD 1.x, SD 2.x   the last hidden state of CLIP, after the final layer norm
    SDXL             hidden states before the last block of two CLIPs, without the norm, side by side: [77, 768 + 1280]
    SD3              these, followed by zeros, and after them the states of T5: [77 + 256, 4096]
    FLUX             the last hidden state of T5: [512, 4096]
    PixArt           the same, with padding hidden: [120, 4096], zeros where nothing is read

No attention mask but in PixArt, as in diffusers. Without one the number of pads decides what T5 gives: it is that which
the pipeline takes by default. The CLIP tokenizers of SDXL and SD3 share their vocabulary and pad with different tokens,
the second with "!" (id 0), which it also reads a "!" in the prompt as. A row stands for one token only where both
encoders have the same token there; a phrase for which they do not is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any, Final, Self

import torch

from rasura.patches._io.files import read_config
from rasura.patches._io.json_fields import show
from rasura.patches.algebra.one_thread import map_in_single_threads
from rasura.patches.errors import ConceptError, NotFiniteError, UnsupportedHostError
from rasura.patches.hosts.disk.checkpoint_host import CheckpointHost
from rasura.patches.models.families import CLIP, find_family
from rasura.patches.models.family import Family
from rasura.patches.models.remembered_texts import Memory
from rasura.patches.models.text_encoders.clip_or_t5 import PhrasePosition, Tower
from rasura.patches.models.text_encoders.encoder_place import dtype_of
from rasura.patches.models.text_encoders.load_encoder import at_layer, load_tower, put_back
from rasura.patches.models.text_encoders.readout import Readout, load_readout
from rasura.patches.models.text_spaces import TextSpace, find_text_spaces
from rasura.patches.types import ParamName

BATCH: Final = 64  # prompts a forward pass; fixed, because a float32 GEMM's bits depend on it
_LAYERS: Final = ("k", "v", "kv", "text")
_SHORT: Final = 77  # positions up to which so many go together: attention grows with the square


class TextEncoder:
    """The text encoders that a family's layers read, with their tokenizers: float32 and on the CPU unless chosen."""

    def __init__(
        self,
        sequence: Sequence[Sequence[Tower]],
        host: CheckpointHost | None = None,
        readout: Readout | None = None,
        memory: Memory | None = None,
        beside: Sequence[Tower] = (),
    ) -> None:
        """Use `load` or `pristine`.

        `sequence` has the parts of the positions, and the encoders that fill each side by side; `host` is whose they
        are; `readout` what their states go through before layers read them; `memory` what was made of texts before;
        `beside` encoders that other layers read.
        """
        self._sequence = tuple(tuple(towers) for towers in sequence)
        self._beside = tuple(beside)
        self._host = host
        self.readout = readout
        self.memory = memory

    @classmethod
    def of_clip(cls, tokenizer: Any, module: Any) -> Self:
        """One CLIP tokenizer and text encoder, as Stable Diffusion 1 and 2 have them."""
        return cls([[Tower(CLIP, tokenizer, module)]])

    @classmethod
    def load(cls, folder: Path, family: Family | None = None) -> Self:
        """Load the tokenizers and text encoders of a diffusers folder, without the network.

        Args:
            folder: with `text_encoder/`, `tokenizer/` and what else the family reads.
            family: what it is; None reads one CLIP encoder.

        Raises:
            NotFoundError: no such folder.
            UnsupportedHostError: the folders do not hold whole text encoders and their tokenizers.
        """
        sequence = ((CLIP,),) if family is None else family.sequence
        beside = () if family is None else family.beside
        parts = [[load_tower(folder, encoder) for encoder in part] for part in sequence]
        return cls(parts, beside=[load_tower(folder, encoder) for encoder in beside])

    @classmethod
    def pristine(cls, host: CheckpointHost) -> Self:
        """The text encoders of a model folder as they were before any patch.

        Raises:
            NotFoundError, UnsupportedHostError: as `load`.
        """
        family = find_family(host.parameters())
        found = cls.load(host.folder, family)
        for component, module in found.modules.items():
            mine = (name for name in host.kept() if name.startswith(f"{component}."))
            put_back(module, host.originals(mine), component)
        made = cls(found._sequence, host, beside=found._beside)  # noqa: SLF001  # of its own class
        if family is not None and family.layered is not None:  # an unknown layer shall not wait for an erasure
            made.reading_by_space("text", family.entrances(host.parameters()))
        return made

    def reading_for(self, layers: str) -> Self:
        """The same encoders as these layers see them: through what the denoiser has in front of them.

        Args:
            layers: "k", "v", "kv" or "text", as a request names them.

        Raises:
            UnsupportedHostError: what is in front of them cannot be loaded.
        """
        family = None if self._host is None else find_family(self._host.parameters())
        names = () if family is None or layers not in _LAYERS else family.through(entrances=layers == "text")
        if self._host is None or names == (self.readout.names if self.readout else ()):
            return self
        readout = load_readout(self._host, self._host.folder, names) if names else None
        return type(self)(self._sequence, self._host, readout, self.memory, self._beside)

    def reading_by_space(self, layers: str, names: Sequence[ParamName]) -> tuple[tuple[TextSpace, Self], ...]:
        """The same encoders as each of these layers sees them, the space of `reading_for` first.

        Args:
            layers: as `reading_for` takes them.
            names: parameters that read text.

        Raises:
            UnsupportedHostError: what is in front of them cannot be loaded, or a layer of an encoder that it has not.
        """
        first = self.reading_for(layers)
        family = None if self._host is None else find_family(self._host.parameters())
        if self._host is None or family is None or layers not in _LAYERS:
            return ((TextSpace("", tuple(names)), first),)
        path = self._host.folder / family.components[0] / "config.json"
        config = read_config(path) if family.layered is not None else {}
        spaces = find_text_spaces(family, names, config if isinstance(config, dict) else {})
        return tuple((space, self._in_space(space) if space.name else first) for space in spaces)

    def _in_space(self, space: TextSpace) -> Self:
        """What a further space reads: a layer of an encoder beside, or the sequence through other modules."""
        assert self._host is not None
        readout = load_readout(self._host, self._host.folder, space.through) if space.through else None
        if space.layer is None:
            return type(self)(self._sequence, self._host, readout, self.memory)
        (tower,) = self._beside
        return type(self)([[at_layer(tower, space.layer)]], self._host, readout, self.memory)

    def remembering(self, memory: Memory) -> Self:
        """The same, with a memory of what these very weights and tokenizers made of texts."""
        return type(self)(self._sequence, self._host, self.readout, memory, self._beside)

    @property
    def space(self) -> str:
        """What tells embeddings of one readout from those of another; "" where there is none."""
        read = (tower for part in self._sequence for tower in part)
        layers = [f"{tower.component}.layers.{tower.layer}" for tower in read if tower.layer is not None]
        if self.readout is None:
            return " ".join(layers)
        return " ".join([*layers, *self.readout.names, *(each.sha256 for each in self.readout.parameters)])

    @property
    def towers(self) -> tuple[Tower, ...]:
        """All of them, in the order of the sequence, and those beside it."""
        return (*(tower for part in self._sequence for tower in part), *self._beside)

    @property
    def width(self) -> int:
        """d, the length of one token embedding."""
        raw = max(sum(tower.width for tower in part) for part in self._sequence)
        if self.readout is None:
            return raw
        return int(self.readout(torch.zeros(1, 1, raw), torch.ones(1, 1, dtype=torch.bool)).shape[-1])

    @property
    def length(self) -> int:
        """Positions a prompt is padded to (77)."""
        return sum(part[0].length for part in self._sequence)

    @property
    def modules(self) -> dict[str, Any]:
        """The encoders' torch modules by their names in a pipeline; whoever changes one works on a copy."""
        return {tower.component: tower.module for tower in self.towers}

    @property
    def module(self) -> Any:
        """The torch module of the one text encoder.

        Raises:
            UnsupportedHostError: there are several.
        """
        return self._only.module

    def with_modules(self, modules: Mapping[str, Any]) -> Self:
        """The same tokenizers with other encoders, such as changed copies of `modules`; those not named stay."""
        return type(self)(
            [[replace(t, module=modules.get(t.component, t.module)) for t in part] for part in self._sequence],
            self._host,
            self.readout,
            beside=[replace(t, module=modules.get(t.component, t.module)) for t in self._beside],
        )

    def ids(self, prompt: str) -> list[int]:
        """Token ids of the first tokenizer, with start and end of text, not padded.

        Raises:
            ConceptError: longer than an encoder reads, or no Unicode text.
        """
        first, *_ = [tower.ids(prompt) for part in self._sequence for tower in part]
        return first

    def batch(self, prompts: Sequence[str]) -> torch.Tensor:
        """Token ids [n, length] for the one text encoder, padded.

        Raises:
            ConceptError: a prompt longer than the encoder reads.
            UnsupportedHostError: there are several encoders.
        """
        return self._only.batch(prompts)

    def encode(self, prompts: Iterable[str]) -> Iterator[torch.Tensor]:
        """Embeddings of prompts, in batches of [b, length, d] float64; as many prompts as there are, streamed.

        Raises:
            ConceptError: a prompt longer than the encoder reads.
            NotFiniteError: the encoder gives NaN or infinity.
        """
        for _, hidden in self.encode_with((prompt, "") for prompt in prompts):
            yield hidden

    def encode_with(self, prompts: Iterable[tuple[str, str]]) -> Iterator[tuple[list[tuple[str, str]], torch.Tensor]]:
        """As `encode`, for prompts that each come with a phrase: batches of the pairs and their embeddings."""
        waiting, size = iter(prompts), BATCH if self.length <= _SHORT else BATCH // 8
        parts = iter(lambda: list(islice(waiting, size)), [])
        begun = ((part, self._begin([prompt for prompt, _ in part])) for part in parts)
        alone = not all(tower.at_once for tower in self.towers)
        for part, hidden in map_in_single_threads(lambda one: (one[0], one[1]()), begun, alone=alone):
            if not bool(torch.isfinite(hidden).all()):
                raise NotFiniteError("the text encoder gives NaN or infinity: expected finite embeddings")
            yield part, hidden.to(torch.float64)

    def encode_all(self, prompts: Sequence[str]) -> torch.Tensor:
        """All of `encode` as one [n, length, d] float64 tensor."""
        return torch.cat(list(self.encode(prompts)))

    def places(self, prompt: str, phrase: str) -> tuple[PhrasePosition, ...]:
        """Where a phrase stands, once in every part of the sequence; an empty phrase stands at end-of-text.

        Raises:
            ConceptError: the phrase does not stand in the prompt as tokens of its own, or tokenizers whose embeddings
                stand side by side have it in different places.
        """
        found, before = [], 0
        for part in self._sequence:
            found.append(self._agreed(part, prompt, phrase).moved(before))
            before += part[0].length
        return tuple(found)

    def subject(self, prompt: str, phrase: str) -> range:
        """Positions of `phrase` in the first part of the sequence; for an empty phrase that of end-of-text.

        Raises:
            ConceptError: as `places`.
        """
        return self.places(prompt, phrase)[0].subject

    def tokenizer_state(self) -> dict[str, Any]:
        """What decides how text becomes ids; JSON without floats. Of several tokenizers, each by its name."""
        return tokenizer_state(self.towers)

    def reading(self) -> dict[str, Any]:
        """What decides the embeddings besides weights and tokenizers: how each encoder is built, read and put together.

        JSON, if floats are written as they are. `BATCH` is among it, because the last bits depend on it.
        """
        parts = [[_describe(tower) for tower in part] for part in self._sequence]
        beside = {"beside": [_describe(tower) for tower in self._beside]} if self._beside else {}
        return {"batch": BATCH, "sequence": parts} | beside | ({"dtype": self.dtype} if self.dtype else {})

    @property
    def dtype(self) -> str:
        """What a manifest says of the dtype that text was read in: "BF16", or "" for float32."""
        return max((dtype_of(tower.module) for tower in self.towers), default="")

    @property
    def _only(self) -> Tower:
        if len(self.towers) > 1:
            named = ", ".join(tower.component for tower in self.towers)
            raise UnsupportedHostError(f"expected a model with one text encoder, got {named}", hint="rasura methods")
        return self.towers[0]

    def _begin(self, prompts: Sequence[str]) -> Callable[[], torch.Tensor]:
        """What gives embeddings [n, length, d] float32 when it is called."""
        begun = [[tower.begin(prompts) for tower in part] for part in self._sequence]
        return lambda: self._join([[read() for read in part] for part in begun])

    def _join(self, states: Sequence[Sequence[torch.Tensor]]) -> torch.Tensor:
        """What the towers of each part read, in one [n, length, d]; a narrower part than the widest ends in zeros."""
        parts = [torch.cat(list(part), dim=-1) for part in states]
        wide = max(part.shape[-1] for part in parts)
        padded = torch.cat([torch.nn.functional.pad(part, (0, wide - part.shape[-1])) for part in parts], dim=1)
        if self.readout is None:
            return padded
        words = (padded != 0).any(-1)  # [n, length]
        read = self.readout(padded, words)
        if any(tower.kind.masked for tower in self.towers):  # what is hidden stays hidden behind a bias, too
            read = read * words[..., None]
        return read

    def _agreed(self, part: Sequence[Tower], prompt: str, phrase: str) -> PhrasePosition:
        place = part[0].places(prompt, phrase)
        own = place.subject
        for tower in part[1:]:
            if (theirs := tower.subject(prompt, phrase)) != own:
                raise ConceptError(
                    f"{show(phrase)} in {show(prompt)} is tokens {own.start} to {own.stop - 1} for {part[0].component} "
                    f"and {theirs.start} to {theirs.stop - 1} for {tower.component}: expected the same, because the "
                    "model reads them side by side",
                    hint="--concept TEXT",
                )
        return place


def _describe(tower: Tower) -> dict[str, Any]:
    config = {k: v for k, v in tower.module.config.to_dict().items() if not k.startswith("_")}
    return {"encoder": asdict(tower.kind), "length": tower.length, "config": config}


def tokenizer_state(towers: Sequence[Tower]) -> dict[str, Any]:
    """What decides how text becomes ids, of one tokenizer or of several by their names; JSON without floats."""
    if len(towers) == 1:
        return towers[0].state()
    return {tower.component.replace("text_encoder", "tokenizer"): tower.state() for tower in towers}
