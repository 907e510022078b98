"""What an eraser is given and what it gives back: the one shape of all methods.

An *eraser* is a frozen dataclass whose fields are the method's choices; `solve` turns a *problem* (pristine weights,
prompts as embeddings, what to protect) into one *erasure* a concept: increments, and for each touched parameter what
was promised about its inputs. Everything else (prompts, measurement, manifest, files) is done by
`rasura.patches.solving.solve` and the same for all.

A touched parameter reads one of three things:

    text    the text encoder's output: the shared token embeddings of the request
    hidden  other states (inside the text encoder, of another of its layers, behind another network): a space of its
            own, so the erasure brings columns and reference for it
    image   picture features: nothing about them can be promised from text, the patch is measured only
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol

import torch

from rasura.patches.algebra.increment import Increment
from rasura.patches.algebra.protected_subspace import Moment, ProtectedBasis
from rasura.patches.erasers.columns import Columns
from rasura.patches.erasers.concept_request import ConceptRequest
from rasura.patches.hosts.interface import ParameterInfo
from rasura.patches.models.denoiser import Denoiser
from rasura.patches.models.text_encoders.text_encoder import TextEncoder
from rasura.patches.prompts.concept_prompts import GENERIC_TEMPLATES
from rasura.patches.types import ParamName, Progress


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """Prompts that are not targets.

    Attributes:
        invariants: the null prompt's tokens [77, d] float64, start of text first.
        retained: moment of the retained prompts' tokens.
        held_out: moment of the held-out prompts' tokens.
    """

    invariants: torch.Tensor
    retained: Moment
    held_out: Moment


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a method takes where a request does not say.

    Attributes:
        tokens: which tokens stand for a concept.
        layers: which layers, in the method's own words.
        rule: where the retained spectrum is cut, as `RankRule.parse` reads it.
        needs_retain: whether the method is meaningless without a retain set.
        templates: prompts with one `{}` in which concepts stand: those of a named version are its authors'.
        names: whether it erases a concept by all its names.
        near: whether `auto` takes the nearest anchor that the policy lets pass, not the nearest beyond doubt: such a
            method goes farther than its anchor, and moves the less of everything else the nearer that is.
    """

    tokens: str
    layers: str
    rule: str
    needs_retain: bool = True
    templates: tuple[str, ...] = GENERIC_TEMPLATES
    names: bool = False
    near: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """Everything an eraser may look at; nothing of it may be changed.

    Attributes:
        weights: pristine values of the parameters that `parameters` named, any float dtype, on the CPU.
        encoder: the pristine text encoder.
        request: what was asked, without the method.
        columns: paired tokens of each concept, in the request's order; more than 2d columns are compressed.
        reference: null prompt, retained and held-out prompts.
        basis: builds (once) what is protected in the text embedding: null prompt exactly, retained prompts by the
            request's rank rule, guarded patches. Raises ErasureRefusedError where that is the whole space.
        retained: the tokens of the retained prompts anew, in batches [b, d] float64; which tokens of a prompt is
            the argument, one of `TOKEN_CHOICES` or "all". Memory is bounded however many prompts there are.
        moment: of all tokens of any prompts, from what is known of them; its arguments are what gives the prompts, the
            stage that progress is told, and how many they are.
        denoiser: loads the pristine UNet and its noise schedule; for methods that train or look through it.
        progress: told what is going on.
        work: a folder in which a long training may leave checkpoints to resume from, or None.
    """

    weights: Mapping[ParamName, torch.Tensor]
    encoder: TextEncoder
    request: ConceptRequest
    columns: tuple[Columns, ...]
    reference: Reference
    basis: Callable[[], ProtectedBasis]
    retained: Callable[[str], Iterator[torch.Tensor]]
    moment: Callable[[Callable[[], Iterable[str]], str, int], Moment]
    denoiser: Callable[[], Denoiser]
    progress: Progress
    work: Path | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Erasure:
    """One concept's solution.

    Attributes:
        increments: ΔW = B·A a parameter.
        free: share of the targets' energy outside everything protected, 0 to 1.
        guarded: dimensions taken by the other concepts.
        basis: what text-reading parameters promise not to touch; None: the problem's basis. A basis without rows
            promises nothing.
        bases: the same for parameters that have one of their own, text-reading or hidden.
        columns: targets and anchors of `hidden` parameters, in their input space; by parameter, or by space.
        references: the null, retained and held-out inputs of `hidden` parameters, likewise.
        reads: what a parameter reads, where that is not the text encoder's output.
        spaces: what the states are called that `hidden` parameters read beside others; these share all three.
        facts: further numbers of the method for the manifest's `measured`, as decimals.
    """

    increments: Mapping[ParamName, Increment]
    free: float
    guarded: int
    basis: ProtectedBasis | None = None
    bases: Mapping[ParamName, ProtectedBasis] = field(default_factory=dict)
    columns: Mapping[ParamName, Columns] = field(default_factory=dict)
    references: Mapping[ParamName, Reference] = field(default_factory=dict)
    reads: Mapping[ParamName, str] = field(default_factory=dict)
    spaces: Mapping[ParamName, str] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)


class Eraser(Protocol):
    """A method with its choices; a frozen dataclass whose fields are listed by `rasura methods`.

    A method that draws random numbers has a field `seed`, and gives the same erasures for the same seed, problem and
    device.
    """

    name: ClassVar[str]
    defaults: ClassVar[Defaults]

    def parameters(self, infos: Mapping[ParamName, ParameterInfo], layers: str, width: int) -> list[ParamName]:
        """The parameters to touch.

        Args:
            infos: all of the host's.
            layers: the request's choice of layers.
            width: d, the length of a token embedding.

        Raises:
            UnsupportedHostError: the model has none of them.
            InputError: layers that this method does not know.
        """
        ...

    def solve(self, problem: Problem) -> tuple[Erasure, ...]:
        """One separable erasure a concept, in the request's order.

        Raises:
            ErasureRefusedError: a target lies inside what is protected, or the room is used up.
            NotFiniteError: a loss or a result is NaN or infinite.
            BoundExceededError: a response too large for the grid.
        """
        ...
