"""A pipeline's own way of reading prompts: templates, chosen layers and cuts are the pipeline's, nothing is done again.

`encode_prompt` is called as `__call__` calls it, with the defaults of both; a hook on the encoder sees which ids it is
given. What comes out is a row a token. Rows that the pipeline hides by its mask are zeros here and stand for nothing;
rows that it fills up itself and does not hide are read like words.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import torch

from rasura.patches._io.canonical_json import JsonValue
from rasura.patches._io.json_fields import show
from rasura.patches._io.sha256 import digest_of
from rasura.patches.errors import ConceptError, UnsupportedHostError
from rasura.patches.models.library_output import quiet
from rasura.patches.models.text_encoders.clip_or_t5 import PhrasePosition, Tower
from rasura.patches.models.text_encoders.encoder_place import placed
from rasura.patches.models.text_encoders.plain_text import check_plain
from rasura.patches.models.text_encoders.prompt_rows import align_rows, make_batch, make_mask, put_together, stack_rows
from rasura.patches.models.text_encoders.sentencepiece_file import read_pieces, take_model

__all__ = ["PipelineTower", "TextAlone"]

_GIVEN: Final = (
    "max_sequence_length",
    "complex_human_instruction",
    "clean_caption",
    "system_prompt",
    "text_encoder_out_layers",
    "prompt_template",
)
"""What `__call__` hands on to `encode_prompt` and decides what is read."""


class TextAlone:
    """A processor of text and pictures (Qwen3-VL's) without its half for pictures, which asks for torchvision."""

    def __init__(self, tokenizer: Any) -> None:
        """The tokenizer that lies in it."""
        self.tokenizer = tokenizer

    def __call__(self, text: Sequence[str], **given: Any) -> Any:
        """As a processor reads text with no picture in it."""
        return self.tokenizer(list(text), **given)

    def apply_chat_template(self, messages: Sequence[Mapping[str, Any]], **given: Any) -> list[list[int]]:
        """The ids of one conversation, as a list of such."""
        return [self.tokenizer.apply_chat_template(list(messages), **given)]


_DECIDES: Final = ("normalizer", "pre_tokenizer", "post_processor", "added_tokens")


_Given: TypeAlias = tuple[tuple[Any, ...], list[tuple[torch.Tensor, torch.Tensor | None]]]
"""What a pipeline gives, and the ids and masks that it gave its encoder."""
_KEPT: Final = 2 << 30
"""Bytes of states of all layers that are kept until other prompts are read."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """One prompt as the encoder saw it: the ids of the rows that are read, and the first of these rows."""

    ids: tuple[int, ...]
    first: int


@dataclass(frozen=True, slots=True, eq=False)
class PipelineTower(Tower):
    """A tower that reads through its pipeline.

    Attributes:
        pipe: the pipeline, with this tower's tokenizer and encoder and nothing else.
        reading_layer: the hidden states of which layer are read, where the pipeline gives several one above the other.
    """

    pipe: Any = None
    reading_layer: int | None = None
    _known: dict[str, _Seen] = field(default_factory=dict)
    _widths: list[int] = field(default_factory=list)
    _given: dict[tuple[str, ...], _Given] = field(default_factory=dict)
    """What the pipeline gave of all layers: whoever reads them one after the other reads a prompt once."""

    @property
    def layer(self) -> int | None:
        """Which of its layers is read, where the pipeline gives several; None: what it gives."""
        return self.reading_layer

    @property
    def width(self) -> int:
        """The length of one token's state, as the pipeline gives it."""
        if not self._widths:
            self._encoded([""])
        return self._widths[0]

    @property
    def length(self) -> int:
        """Positions that states are filled up to."""
        return self.kind.length or 0

    def ids(self, prompt: str) -> list[int]:
        """Ids of the rows that are read, the template's own among them.

        Raises:
            ConceptError: longer than the pipeline reads, or no Unicode text.
        """
        check_plain(prompt)
        if prompt not in self._known:
            self._encoded([prompt])
        return list(self._known[prompt].ids)

    def batch(self, prompts: Sequence[str]) -> torch.Tensor:
        """No method that asks for ids alone knows what to do with these.

        Raises:
            UnsupportedHostError: always.
        """
        raise UnsupportedHostError(
            f"{self.kind.pipeline} reads {len(prompts)} prompts by templates of its own: expected a method that asks "
            "for states alone",
            hint="rasura methods",
        )

    @property
    def at_once(self) -> bool:
        """A pipeline tokenizes and reads in one call, which one thread at a time may make."""
        return False

    def begin(self, prompts: Sequence[str]) -> Callable[[], torch.Tensor]:
        """What gives the states of prompts, [n, length, width] float32; zeros where the pipeline hides a row.

        Raises:
            ConceptError: no Unicode text; and, when it is called, a prompt longer than the pipeline reads.
        """
        for prompt in prompts:
            check_plain(prompt)
        return lambda: self._encoded(prompts)

    def places(self, prompt: str, phrase: str) -> PhrasePosition:
        """Where a phrase stands, and which rows know it.

        Raises:
            ConceptError: the phrase does not stand in the prompt as tokens of its own.
        """
        own = self.subject(prompt, phrase)
        stop = self._first(prompt) + len(self.ids(prompt)) if self.kind.masked else self.length
        return PhrasePosition(own, own.start if self.kind.causal else 0, stop)

    def subject(self, prompt: str, phrase: str) -> range:
        """Rows of a phrase, the last time that it stands there; of an empty one the last row that is read.

        Raises:
            ConceptError: the phrase does not stand in the prompt as tokens of its own.
        """
        ids = self.ids(prompt)
        first = self._first(prompt)
        if not phrase.strip():
            return range(first + len(ids) - 1, first + len(ids))
        ends = self._ends(ids)
        whole = ends[-1][1] if ends else ""
        start = whole.casefold().rfind(" ".join(phrase.split()).casefold())
        stop = start + len(" ".join(phrase.split()))
        own = [i for i, (before, after) in enumerate(ends) if len(before) < stop and len(after) > start]
        found = whole[len(ends[own[0]][0]) : len(ends[own[-1]][1])] if start >= 0 and own else ""
        if found.strip().casefold() != whole[start:stop].strip().casefold() or not found:
            raise ConceptError(
                f"{show(phrase)} does not stand in {show(prompt)} as tokens of its own", hint="--template '{}'"
            )
        return range(first + own[0], first + own[-1] + 1)

    def plain_state(self) -> dict[str, Any]:
        """The tokenizer's model and special ids, and the ids that the pipeline puts around every prompt."""
        return {
            **self._model(),
            "length": self.length,
            "special": [int(self.tokenizer.pad_token_id)],
            "pipeline": self.kind.pipeline,
            "around": self.ids(""),
            **({"fills": "left"} if self.tokenizer.padding_side == "left" else {}),
        }

    def reading(self) -> Mapping[str, JsonValue]:
        """What else its files say that decides ids."""
        if (pieces := take_model(self.tokenizer)) is not None:
            special: dict[str, int] = self.tokenizer.tokenizer.special_tokens
            return {"sentencepiece": digest_of(pieces), "special": {name: special[name] for name in sorted(special)}}
        document = json.loads(self.tokenizer.backend_tokenizer.to_str())
        decides = {part: document.get(part) for part in _DECIDES}
        template = getattr(self.tokenizer, "chat_template", None)
        return {"file": json.dumps(decides, sort_keys=True), "chat_template": template or ""}

    def _model(self) -> dict[str, Any]:
        """Vocabulary and merges."""
        if (pieces := take_model(self.tokenizer)) is not None:
            return {"vocab": list(read_pieces(pieces)), "merges": []}
        model = json.loads(self.tokenizer.backend_tokenizer.to_str())["model"]
        vocab = model["vocab"]
        return {
            "vocab": vocab if isinstance(vocab, dict) else [[piece, repr(float(score))] for piece, score in vocab],
            "merges": [list(m) if isinstance(m, list) else m for m in model.get("merges", [])],
        }

    def _first(self, prompt: str) -> int:
        """The first row that is read: not 0 where the pipeline fills up on the left."""
        self.ids(prompt)
        return self._known[prompt].first

    def _ends(self, ids: Sequence[int]) -> list[tuple[str, str]]:
        """What is written before and after each row: an id a row adds what it stands for."""
        found, before = [], ""
        for i in range(len(ids)):
            after = self.tokenizer.decode(ids[: i + 1], skip_special_tokens=False, clean_up_tokenization_spaces=False)
            found.append((before, after))
            before = after
        return found

    def _encoded(self, prompts: Sequence[str]) -> torch.Tensor:
        if self.kind.alone and len(prompts) > 1:
            return torch.cat([self._encoded([prompt]) for prompt in prompts])
        given, calls = self._asked(prompts)
        states, mask = stack_rows(given if self.layer is None else (given[0][self.layer],))
        self._widths[:] = [int(states.shape[-1])]
        ids = torch.cat([make_batch(call[0]) for call in calls])[: len(prompts)]
        filling = self.tokenizer.pad_token_id
        attended = torch.cat([make_mask(*call, filling) for call in calls])[: len(prompts)].bool()
        rows, read = align_rows(ids, attended, states, mask)
        found = torch.zeros(len(prompts), self.length, states.shape[-1])
        for i, prompt in enumerate(prompts):
            if int(read[i].sum()) >= self.length or states.shape[1] > self.length:
                raise ConceptError(
                    f"prompt {show(prompt)} fills all {self.length} positions: expected fewer",
                    hint="--template '{}'",
                    prompt=prompt[:2000],
                    most=self.length - 1,
                )
            own, words = states[i], read[i]
            if self.kind.masked and mask is not None:
                own, words = put_together(own * mask[i, :, None], words)
            where = words.nonzero().flatten()
            self._known[prompt] = _Seen(tuple(rows[i][read[i]].tolist()), int(where[0]) if len(where) else 0)
            found[i, : states.shape[1]] = own
        return found

    def _asked(self, prompts: Sequence[str]) -> _Given:
        """What the pipeline gives, and what it gave its encoder; of several layers kept for those who ask next."""
        if (known := self._given.get(tuple(prompts))) is not None:
            return known
        self.pipe.register_modules(**{self.kind.component: self.module})
        calls: list[tuple[torch.Tensor, torch.Tensor | None]] = []
        handle = self.module.register_forward_pre_hook(_seeing(calls), with_kwargs=True)
        reads = getattr(self.pipe, self.kind.method)
        try:
            with torch.no_grad(), quiet(), placed(self.module, self.kind) as device:
                given = reads(prompt=list(prompts), **_arguments(self.pipe, reads, device))
        finally:
            handle.remove()
        found = given if isinstance(given, tuple) else (given,), calls
        if self.layer is not None:
            self._keep(tuple(prompts), found)
        return found

    def _keep(self, prompts: tuple[str, ...], found: _Given) -> None:
        self._given[prompts] = found
        while len(self._given) > 1 and sum(given[0].nbytes for given, _ in self._given.values()) > _KEPT:
            del self._given[next(iter(self._given))]  # the oldest


def _arguments(pipe: Any, reads: Any, device: torch.device) -> dict[str, Any]:
    """What `__call__` gives the method that reads by default."""
    accepted = inspect.signature(reads).parameters
    drawn = inspect.signature(type(pipe).__call__).parameters
    given = {name: drawn[name].default for name in _GIVEN if name in accepted and name in drawn}
    given |= {"device": device} if "device" in accepted else {}
    if getattr(pipe, "text_encoder_2", True) is None and "pooled_prompt_embeds" in accepted:
        given["pooled_prompt_embeds"] = torch.zeros(1)  # what a second encoder would pool, and no token reads
    return given | ({"do_classifier_free_guidance": False} if "do_classifier_free_guidance" in accepted else {})


def _seeing(calls: list[tuple[torch.Tensor, torch.Tensor | None]]) -> Any:
    def hook(_module: object, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        ids = kwargs.get("input_ids", args[0] if args else None)
        mask = kwargs.get("attention_mask", args[1] if len(args) > 1 else None)
        if isinstance(ids, torch.Tensor):
            calls.append((ids.cpu(), None if mask is None else mask.cpu()))

    return hook
