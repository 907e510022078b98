"""One text encoder with its tokenizer: prompts as token ids, ids as states, and where a phrase stands in a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rasura.patches.concepts import check_plain
from rasura.patches.errors import ConceptError
from rasura.patches.fields import show

if TYPE_CHECKING:
    import torch

    from rasura.patches.hosts.families import States


@dataclass(frozen=True, slots=True, eq=False)
class Tower:
    """A tokenizer and its encoder, as a pipeline uses them: float32, no attention mask.

    Attributes:
        component: the encoder's name in a pipeline.
        tokenizer: transformers' own; its types are unions of hundreds.
        module: the encoder's torch module, pristine; whoever changes it works on a copy.
        states: which of its hidden states the denoiser reads.
    """

    component: str
    tokenizer: Any
    module: Any
    states: States = "last"

    @property
    def width(self) -> int:
        """The length of one token's state."""
        return int(self.module.config.hidden_size)

    @property
    def length(self) -> int:
        """Positions a prompt is padded to (77)."""
        return min(int(self.tokenizer.model_max_length), int(self.module.config.max_position_embeddings))

    def ids(self, prompt: str) -> list[int]:
        """Token ids with start and end of text, not padded.

        Raises:
            ConceptError: longer than the encoder reads, or no Unicode text.
        """
        check_plain(prompt)
        found: list[int] = self.tokenizer(prompt)["input_ids"]
        if len(found) > self.length:
            raise ConceptError(
                f"prompt {show(prompt)} has {len(found)} tokens: expected at most {self.length}",
                hint="--template '{}'",
            )
        return found

    def batch(self, prompts: Sequence[str]) -> torch.Tensor:
        """Token ids [n, length], padded.

        Raises:
            ConceptError: a prompt longer than the encoder reads.
        """
        for prompt in prompts:
            self.ids(prompt)
        padded = self.tokenizer(list(prompts), padding="max_length", max_length=self.length, return_tensors="pt")
        found: torch.Tensor = padded["input_ids"]
        return found

    def read(self, prompts: Sequence[str]) -> torch.Tensor:
        """The states of prompts, [n, length, width] float32."""
        import torch

        ids = self.batch(prompts)
        found: torch.Tensor
        with torch.no_grad():
            if self.states == "last":
                found = self.module(input_ids=ids).last_hidden_state
            else:
                found = self.module(input_ids=ids, output_hidden_states=True).hidden_states[-2]
        return found

    def subject(self, prompt: str, phrase: str) -> range:
        """Positions of `phrase` in `prompt`; for an empty phrase the position of end-of-text.

        Raises:
            ConceptError: the phrase does not stand in the prompt as tokens of its own.
        """
        ids = self.ids(prompt)
        inner = self.ids(phrase)[1:-1]
        if not inner:
            return range(len(ids) - 1, len(ids))
        for start in range(len(ids) - len(inner) - 1, 0, -1):
            if ids[start : start + len(inner)] == inner:
                return range(start, start + len(inner))
        raise ConceptError(
            f"{show(phrase)} does not stand in {show(prompt)} as tokens of its own", hint="--template '{}'"
        )

    def state(self) -> dict[str, Any]:
        """What decides how text becomes ids: vocabulary, merges, length, special ids; JSON without floats."""
        import json

        state = json.loads(self.tokenizer.backend_tokenizer.to_str())["model"]
        return {
            "vocab": state["vocab"],
            "merges": state["merges"],
            "length": self.length,
            "special": [
                int(self.tokenizer.bos_token_id),
                int(self.tokenizer.eos_token_id),
                int(self.tokenizer.pad_token_id),
            ],
        }
