"""Concepts as prompts, prompts as token embeddings, and which tokens of a prompt stand for the concept.

A diffusion model of the Stable Diffusion family reads all 77 positions of the text encoder's last hidden state (after
the final layer norm, no attention mask). CLIP's attention is causal, so every position from the subject's first token
on knows the concept: the end-of-text and padding positions too. Which of them an erasure maps is a choice:

    last     the last subject token only (what SPEED's code does); the positions after it still carry the concept
    subject  all tokens of the subject
    tail     the subject and every position after it, aligned with the anchor's by distance from the last subject token
    end      the last subject token and every position after it (what UCE's first code does)
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from rasura.patches.clip import load_clip
from rasura.patches.errors import ConceptError, NotFiniteError
from rasura.patches.fields import show

if TYPE_CHECKING:
    import torch

TOKEN_CHOICES: Final = ("last", "subject", "tail", "end")
SLOT: Final = "{}"
_NOT_PLAIN: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})  # Unicode's general categories
BATCH: Final = 64  # prompts a forward pass; fixed, because a float32 GEMM's bits depend on it
GENERIC_TEMPLATES: Final = (
    "{}",
    "a {}",
    "a photo of a {}",
    "an image of a {}",
    "a picture of {}",
    "a drawing of a {}",
    "the {}",
    "{} style",
)

HELD_OUT: Final = (
    "tree", "river", "mountain", "chair", "table", "clock", "book", "lamp", "window", "bridge", "boat", "train",
    "horse", "elephant", "fish", "bird", "bread", "cheese", "shoe", "hat", "phone", "computer", "cloud", "sun",
    "child", "woman", "man", "crowd", "city", "beach", "forest", "garden",
)  # fmt: skip
"""Everyday words on which leak is measured when a request names no held-out concepts of its own."""


@dataclass(frozen=True, slots=True)
class Target:
    """A concept to erase and the concept that it becomes.

    Attributes:
        concept: what no picture shall show any more.
        anchor: what prompts of the concept show instead; "" is nothing.
        templates: prompts with one `{}` in which this concept stands; empty takes those of the request.
    """

    concept: str
    anchor: str
    templates: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_concept(self.concept)
        for template in self.templates:
            check_template(template)
        check_plain(self.anchor)
        if normal(self.concept) == normal(self.anchor):
            raise ConceptError(
                f"concept {show(self.concept)} equals its anchor: expected another, more general concept",
                hint="--anchor TEXT",
            )


def normal(text: str) -> str:
    """One spelling of a phrase for comparing: composed, without case, single spaces; so CLIP's tokenizer sees it."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


def check_concept(text: str) -> None:
    """Refuse what no prompt can name.

    Raises:
        ConceptError: empty, or with control characters.
    """
    if not text.strip():
        raise ConceptError("the concept is empty: expected a word or phrase", hint="--concept TEXT")
    check_plain(text)


def check_plain(text: str) -> None:
    """Refuse control characters, line and paragraph separators, and lone surrogates.

    Raises:
        ConceptError: there are some.
    """
    if any(unicodedata.category(char) in _NOT_PLAIN for char in text):
        raise ConceptError(f"{show(text)} holds control characters: expected plain text", hint="--concept TEXT")


def check_template(template: str) -> None:
    """Refuse a template that does not hold exactly one `{}`.

    Raises:
        ConceptError: otherwise, or with control characters.
    """
    if template.count(SLOT) != 1:
        raise ConceptError(
            f"template {show(template)} holds {template.count(SLOT)} times {{}}: expected once",
            hint="--template 'a photo of a {}'",
        )
    check_plain(template)


class TextEncoder:
    """A CLIP tokenizer and text encoder, as a pipeline uses them: float32, on the CPU, no attention mask."""

    def __init__(self, tokenizer: Any, model: Any) -> None:  # transformers' own types are unions of hundreds
        self._tokenizer = tokenizer
        self._model = model

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Load `tokenizer/` and `text_encoder/` of a diffusers folder, without the network.

        Raises:
            NotFoundError: no such folder.
            UnsupportedHostError: the folders do not hold a whole CLIP text encoder and its tokenizer.
        """
        return cls(*load_clip(folder))

    @property
    def width(self) -> int:
        """d, the length of one token embedding."""
        return int(self._model.config.hidden_size)

    @property
    def length(self) -> int:
        """Positions a prompt is padded to (77)."""
        return min(int(self._tokenizer.model_max_length), int(self._model.config.max_position_embeddings))

    def ids(self, prompt: str) -> list[int]:
        """Token ids with start and end of text, not padded.

        Raises:
            ConceptError: longer than the encoder reads, or no Unicode text.
        """
        check_plain(prompt)
        found: list[int] = self._tokenizer(prompt)["input_ids"]
        if len(found) > self.length:
            raise ConceptError(
                f"prompt {show(prompt)} has {len(found)} tokens: expected at most {self.length}",
                hint="--template '{}'",
            )
        return found

    @property
    def module(self) -> Any:
        """The text encoder's torch module, pristine and in float32; whoever changes it works on a copy."""
        return self._model

    def with_module(self, module: Any) -> Self:
        """The same tokenizer with another text encoder, such as a changed copy of `module`."""
        return type(self)(self._tokenizer, module)

    def batch(self, prompts: Sequence[str]) -> torch.Tensor:
        """Token ids [n, length], padded.

        Raises:
            ConceptError: a prompt longer than the encoder reads.
        """
        for prompt in prompts:
            self.ids(prompt)
        padded = self._tokenizer(list(prompts), padding="max_length", max_length=self.length, return_tensors="pt")
        found: torch.Tensor = padded["input_ids"]
        return found

    def encode(self, prompts: Iterable[str]) -> Iterator[torch.Tensor]:
        """Last hidden states of prompts, in batches of [b, length, d] float64; as many prompts as there are, streamed.

        Raises:
            ConceptError: a prompt longer than the encoder reads.
            NotFiniteError: the encoder gives NaN or infinity.
        """
        for _, hidden in self.encode_with((prompt, "") for prompt in prompts):
            yield hidden

    def encode_with(self, prompts: Iterable[tuple[str, str]]) -> Iterator[tuple[list[tuple[str, str]], torch.Tensor]]:
        """As `encode`, for prompts that each come with a phrase: batches of the pairs and their hidden states."""
        import torch

        waiting = iter(prompts)
        while part := list(islice(waiting, BATCH)):
            with torch.no_grad():
                hidden = self._model(input_ids=self.batch([prompt for prompt, _ in part])).last_hidden_state
            if not bool(torch.isfinite(hidden).all()):
                raise NotFiniteError("the text encoder gives NaN or infinity: expected finite embeddings")
            yield part, hidden.to(torch.float64)

    def encode_all(self, prompts: Sequence[str]) -> torch.Tensor:
        """All of `encode` as one [n, length, d] float64 tensor."""
        import torch

        return torch.cat(list(self.encode(prompts)))

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

    def tokenizer_state(self) -> dict[str, Any]:
        """What decides how text becomes ids: vocabulary, merges, length, special ids; JSON without floats."""
        import json

        state = json.loads(self._tokenizer.backend_tokenizer.to_str())["model"]
        return {
            "vocab": state["vocab"],
            "merges": state["merges"],
            "length": self.length,
            "special": [
                int(self._tokenizer.bos_token_id),
                int(self._tokenizer.eos_token_id),
                int(self._tokenizer.pad_token_id),
            ],
        }


def prompts_of(concept: str, templates: Sequence[str]) -> tuple[str, ...]:
    """The concept in each template; an empty concept leaves the template's own words."""
    return tuple(" ".join(template.replace(SLOT, concept).split()) for template in templates)


def token_range(encoder: TextEncoder, prompt: str, phrase: str, tokens: str) -> range:
    """Positions of a prompt that stand for a phrase in it.

    Args:
        encoder: the model's text encoder.
        prompt: the whole prompt.
        phrase: what stands in it.
        tokens: one of `TOKEN_CHOICES`.

    Raises:
        ConceptError: the phrase does not stand in the prompt as tokens of its own.
    """
    own = encoder.subject(prompt, phrase)
    match tokens:
        case "last":
            return range(own[-1], own[-1] + 1)
        case "subject":
            return own
        case "end":
            return range(own[-1], encoder.length)
        case _:
            return range(own[0], encoder.length)


def aligned_columns(
    encoder: TextEncoder, target: Target, templates: Sequence[str], tokens: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings to erase and embeddings they become, column by column.

    Positions are paired by distance from the last subject token; where the anchor has fewer subject tokens, its first
    stands in for the missing ones.

    Args:
        encoder: the model's text encoder.
        target: concept and anchor.
        templates: texts with one `{}` each.
        tokens: one of `TOKEN_CHOICES`.

    Returns:
        C1 and C*, each [d, n] float64.
    """
    import torch

    sources, goals = prompts_of(target.concept, templates), prompts_of(target.anchor, templates)
    hidden, wanted = encoder.encode_all(sources), encoder.encode_all(goals)
    pairs = [
        paired(encoder.subject(source, target.concept), encoder.subject(goal, target.anchor), encoder.length, tokens)
        for source, goal in zip(sources, goals, strict=True)
    ]
    C1 = torch.cat([hidden[i, [a for a, _ in pair]] for i, pair in enumerate(pairs)])
    C_star = torch.cat([wanted[i, [b for _, b in pair]] for i, pair in enumerate(pairs)])
    return C1.T.contiguous(), C_star.T.contiguous()


def paired(source: range, goal: range, length: int, tokens: str) -> list[tuple[int, int]]:
    """Which position of a prompt becomes which of its anchor's, where their subjects stand at these positions."""
    last, end = source[-1], goal[-1]
    if tokens == "last":
        return [(last, end)]
    subject = [(position, max(goal[0], end - (last - position))) for position in source]
    if tokens == "subject":
        return subject
    before = subject if tokens == "tail" else [(last, end)]
    return before + [(last + j, end + j) for j in range(1, length - max(last, end))]
