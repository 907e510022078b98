"""How hard every attack tries: all numbers in one place, and what they come to in calls of the denoiser.

A call is one prediction of the denoiser for one picture, with or without its gradient; drawing with guidance takes two
a step. Seconds are estimated from how long this run's drawing took, a gradient as three calls.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from rasura.evaluation.images.painter import Sampling
from rasura.patches.errors import InputError

EXAMPLES: Final = 8
"""Pictures of the base that an attack learns from."""
BATCH: Final = 4
"""Noised latents on which texts are compared."""
CANDIDATES: Final = 16
"""Texts tried in a round of a greedy search."""
STEPS_A_ROUND: Final = 8
"""A round of the suffix attack costs about as much as so many gradient steps."""
NOISE_KEPT: Final = 0.5
"""Share of the steps that is drawn after a start from a noised picture."""
RESTARTS: Final = 3
RESTART_FROM: Final = 0.5
"""Share of the steps that is drawn again in each restart."""
PARTICLES: Final = 4
"""Pictures of one try among which the judge's features choose."""
CHOOSE_AT: Final = (0.3, 0.6)
"""Where on the way they choose; and at its end."""
PUSH: Final = 3.0
"""How far along a concept's direction the text is looked for."""

KINDS: Final = ("embedding", "suffix", "prefix", "concept", "image", "restart", "guided")
CHOICES: Final = ("none", *KINDS, "all")

_HINTS: Final = {
    "steps": "rasura evaluate --attack-steps N",
    "tokens": "rasura evaluate --attack-tokens N",
    "tries": "rasura evaluate --attack-tries N",
}
_BACKWARD: Final = 3


@dataclass(frozen=True, slots=True)
class AttackOptions:
    """Which attacks, and how hard.

    Attributes:
        kind: one of `CHOICES`.
        steps: gradient steps of the embedding and prefix attacks, rounds of the concept attack; the suffix attack takes
            a round for every eight.
        tokens: free word vectors, or words.
        tries: pictures drawn with what was found.
        seed: all randomness comes from it.

    Raises:
        InputError: another kind, or a number that no attack can work with.
    """

    kind: str = "none"
    steps: int = 80
    tokens: int = 4
    tries: int = 12
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in CHOICES:
            raise InputError(
                f"attack {self.kind!r}: expected one of {', '.join(CHOICES)}", hint="rasura evaluate --attack all"
            )
        bounds = (("steps", self.steps, 100_000), ("tokens", self.tokens, 32), ("tries", self.tries, 1000))
        for name, value, most in bounds:
            if not 1 <= value <= most:
                raise InputError(f"an attack of {value} {name}: expected 1 to {most:,}", hint=_HINTS[name])

    @property
    def kinds(self) -> tuple[str, ...]:
        """The attacks to run, without "none"."""
        return tuple(k for k in KINDS if self.kind in (k, "all"))

    @property
    def rounds(self) -> int:
        """Of the suffix attack."""
        return max(1, self.steps // STEPS_A_ROUND)


@dataclass(frozen=True, slots=True)
class Cost:
    """What one attack on one concept and one model takes.

    Attributes:
        attack: which.
        calls: of the denoiser, looking and drawing.
        gradients: so many of them with a gradient.
    """

    attack: str
    calls: int
    gradients: int

    def seconds(self, a_call: float) -> float:
        """About so long, at so many seconds a call."""
        return (self.calls + (_BACKWARD - 1) * self.gradients) * a_call


def calls_a_step(sampling: Sampling) -> int:
    """Calls that a step of one picture takes."""
    return 2 if sampling.guidance > 1 else 1


def calls_a_picture(sampling: Sampling) -> int:
    """Calls that a whole picture takes."""
    return sampling.steps * calls_a_step(sampling)


def steps_of(share: float, sampling: Sampling) -> int:
    """So many steps are a share of all; at least one."""
    return max(1, round(share * sampling.steps))


def list_costs(options: AttackOptions, sampling: Sampling) -> tuple[Cost, ...]:
    """What each attack that was chosen takes."""
    whole, step = options.tries * calls_a_picture(sampling), options.tries * calls_a_step(sampling)
    looking = options.steps * BATCH
    costs = {
        "embedding": (whole + looking, looking),
        "suffix": (whole + BATCH * (1 + options.rounds * (1 + CANDIDATES)), options.rounds * BATCH),
        "prefix": (whole + looking, looking),
        "concept": (whole, 0),
        "image": (step * steps_of(NOISE_KEPT, sampling), 0),
        "restart": (whole + step * RESTARTS * steps_of(RESTART_FROM, sampling), 0),
        "guided": ((whole + step * len(CHOOSE_AT)) * PARTICLES, 0),  # a choice estimates what each is to become
    }
    return tuple(Cost(kind, *costs[kind]) for kind in options.kinds)
