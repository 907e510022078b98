"""One text encoder with its tokenizer: prompts as token ids, ids as states, and where a phrase stands in a prompt."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from rasura.patches._io.canonical_json import JsonValue
from rasura.patches._io.json_fields import show
from rasura.patches.errors import ConceptError
from rasura.patches.models.family import Encoder
from rasura.patches.models.text_encoders.encoder_place import moves, placed
from rasura.patches.models.text_encoders.plain_text import check_plain
from rasura.patches.models.text_encoders.spelling import clean_caption, cleans_captions
from rasura.patches.models.text_encoders.tokenizer_reading import describe_loaded


@dataclass(frozen=True, slots=True)
class PhrasePosition:
    """Where a phrase stands in a prompt.

    Attributes:
        subject: its positions.
        start: the first position that knows it: CLIP attends to what was before, T5 to all of the prompt.
        stop: the position after the last that is read.
    """

    subject: range
    start: int
    stop: int

    def moved(self, by: int) -> PhrasePosition:
        """The same place behind so many other positions."""
        return PhrasePosition(range(self.subject.start + by, self.subject.stop + by), self.start + by, self.stop + by)


@dataclass(frozen=True, slots=True, eq=False)
class Tower:
    """A tokenizer and its encoder, as a pipeline uses them, in float32.

    Attributes:
        kind: what the family's table says of it.
        tokenizer: transformers' own; its types are unions of hundreds.
        module: the encoder's torch module, pristine; whoever changes it works on a copy.
        said: what the tokenizer's files say otherwise than its class, for programs that obey them.
    """

    kind: Encoder
    tokenizer: Any
    module: Any
    said: Mapping[str, JsonValue] = field(default_factory=dict)

    @property
    def component(self) -> str:
        """The encoder's name in a pipeline."""
        return self.kind.component

    @property
    def layer(self) -> int | None:
        """Which of its layers is read, where the pipeline gives several; None: what it gives."""
        return None

    @property
    def width(self) -> int:
        """The length of one token's state."""
        return int(self.module.config.hidden_size)

    @property
    def length(self) -> int:
        """Positions a prompt is padded to (77)."""
        if self.kind.length is not None:
            return self.kind.length
        return min(int(self.tokenizer.model_max_length), int(self.module.config.max_position_embeddings))

    @property
    def opening(self) -> int:
        """Special tokens before the text: CLIP has a start of text, T5 none."""
        return 1 if self.kind.kind == "CLIP" else 0

    def ids(self, prompt: str) -> list[int]:
        """Token ids with start and end of text, not padded.

        Raises:
            ConceptError: longer than the encoder reads, or no Unicode text.
        """
        check_plain(prompt)
        found: list[int] = self.tokenizer(self._spelled(prompt), verbose=False)["input_ids"]
        if len(found) > self.length:
            raise ConceptError(
                f"prompt {show(prompt)} has {len(found)} tokens: expected at most {self.length}",
                hint="--template '{}'",
                prompt=prompt[:2000],
                most=self.length,
            )
        return found

    def batch(self, prompts: Sequence[str]) -> torch.Tensor:
        """Token ids [n, length], padded.

        Raises:
            ConceptError: a prompt longer than the encoder reads.
        """
        return self._padded(prompts)["input_ids"]

    @property
    def at_once(self) -> bool:
        """Whether several threads may read at once what was begun: not where an encoder is moved to read."""
        return not moves(self.kind)

    def begin(self, prompts: Sequence[str]) -> Callable[[], torch.Tensor]:
        """What gives the states of prompts, [n, length, width] float32, when called; zeros where padding is hidden.

        Text becomes tokens here, because tokenizers change as they read and serve one thread at a time.

        Raises:
            ConceptError: a prompt longer than the encoder reads.
        """
        padded = self._padded(prompts)
        return lambda: self._states(padded)

    def read(self, prompts: Sequence[str]) -> torch.Tensor:
        """The states of prompts, as `begin` gives them.

        Raises:
            ConceptError: a prompt longer than the encoder reads.
        """
        return self.begin(prompts)()

    def places(self, prompt: str, phrase: str) -> PhrasePosition:
        """Where a phrase stands in a prompt, and which positions know it.

        Raises:
            ConceptError: the phrase does not stand in the prompt as tokens of its own.
        """
        own = self.subject(prompt, phrase)
        stop = len(self.ids(prompt)) if self.kind.masked else self.length
        return PhrasePosition(own, own.start if self.kind.kind == "CLIP" else 0, stop)

    def subject(self, prompt: str, phrase: str) -> range:
        """Positions of `phrase` in `prompt`; for an empty phrase the position of end-of-text.

        Raises:
            ConceptError: the phrase does not stand in the prompt as tokens of its own.
        """
        ids = self.ids(prompt)
        inner = self.ids(phrase)[self.opening : -1]
        if not inner:
            return range(len(ids) - 1, len(ids))
        for start in range(len(ids) - len(inner) - 1, self.opening - 1, -1):
            if ids[start : start + len(inner)] == inner:
                return range(start, start + len(inner))
        raise ConceptError(
            f"{show(phrase)} does not stand in {show(prompt)} as tokens of its own", hint="--template '{}'"
        )

    def state(self) -> dict[str, Any]:
        """What decides how text becomes ids; JSON without floats.

        Vocabulary, merges or scores, length, special ids; under `reading` what is otherwise than the class has it,
        which an ordinary tokenizer has nothing of (`rasura.patches.models.text_encoders.tokenizer_reading`).
        """
        reading = self.reading()
        return self.plain_state() | ({"reading": dict(reading)} if reading else {})

    def reading(self) -> Mapping[str, JsonValue]:
        """What the tokenizer does otherwise than its class, as it was loaded or as its files say; often nothing."""
        loaded = describe_loaded(self.tokenizer)
        odd = {name: value for name, value in self.said.items() if name not in loaded or loaded[name] != value}
        cleaned: dict[str, JsonValue] = {"clean_caption": True} if self.kind.masked and cleans_captions() else {}
        return loaded | cleaned | ({"file": odd} if odd else {})

    def plain_state(self) -> dict[str, Any]:
        """Vocabulary, merges or scores, length, special ids: all that older identities cover."""
        state = json.loads(self.tokenizer.backend_tokenizer.to_str())["model"]
        last = [int(self.tokenizer.eos_token_id), int(self.tokenizer.pad_token_id)]
        if self.kind.kind == "T5":
            vocabulary = [[piece, repr(float(score))] for piece, score in state["vocab"]]
            return {"vocab": vocabulary, "length": self.length, "special": last}
        return {
            "vocab": state["vocab"],
            "merges": state["merges"],
            "length": self.length,
            "special": [int(self.tokenizer.bos_token_id), *last],
        }

    def _spelled(self, prompt: str) -> str:
        return clean_caption(prompt) if self.kind.masked else prompt

    def _states(self, padded: Mapping[str, torch.Tensor]) -> torch.Tensor:
        found: torch.Tensor
        with torch.no_grad(), placed(self.module, self.kind) as device:
            given = {name: tensor.to(device) for name, tensor in padded.items()}
            if self.kind.states == "penultimate":
                return self.module(input_ids=given["input_ids"], output_hidden_states=True).hidden_states[-2]  # type: ignore[no-any-return]
            if not self.kind.masked:
                found = self.module(input_ids=given["input_ids"]).last_hidden_state
                return found.float().cpu()
            found = self.module(**given).last_hidden_state
            return (found * given["attention_mask"][:, :, None]).float().cpu()

    def _padded(self, prompts: Sequence[str]) -> dict[str, torch.Tensor]:
        for prompt in prompts:
            self.ids(prompt)
        spelled = [self._spelled(prompt) for prompt in prompts]
        found = self.tokenizer(spelled, padding="max_length", max_length=self.length, return_tensors="pt")
        return {key: found[key] for key in ("input_ids", "attention_mask")}
