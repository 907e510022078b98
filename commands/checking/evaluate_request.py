"""What is asked of `rasura evaluate`: its options, and the request they make."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from rasura.commands._shared.output import short
from rasura.commands._shared.retyping import retyping_strengths
from rasura.patches.algebra.strength import ONE, Strength
from rasura.patches.errors import InputError, StrengthError

if TYPE_CHECKING:
    from rasura.evaluation.evaluate import EvaluationRequest
    from rasura.patches.types import PatchId
    from rasura.registry.registry import Registry

F = TypeVar("F", bound=Callable[..., Any])

_PATH: Final = click.Path(path_type=Path)
_OPTIONS: Final = (
    click.option("--base", "base_ref", required=True, metavar="MODEL", help="Registered base, or a diffusers folder."),
    click.option("--patch", "patches", multiple=True, metavar="ID[=STRENGTH]", help="Patch to evaluate; repeatable."),
    click.option(
        "--prompts",
        "prompts",
        type=_PATH,
        metavar="FILE",
        help="Prompts, JSONL or CSV [default: made from the model's concepts.json].",
    ),
    click.option(
        "--protocol",
        type=click.Choice(["i2p", "csv"]),
        help="What --prompts is, where it is a benchmark's list: I2P, or any CSV with a column of prompts.",
    ),
    click.option("--expect", metavar="[AXIS=]LABEL", help="With --protocol: what the judge should call each picture."),
    click.option(
        "--group",
        type=click.Choice(["forget", "retain", "held_out"]),
        help="With --protocol: what the list stands for [default: forget].",
    ),
    click.option(
        "--judge",
        metavar="DIR|clip:DIR|onnx:FILE[:LABELS]",
        help="Classifier, CLIP or ONNX model [default: the one beside the model].",
    ),
    click.option(
        "--judge-template",
        default="a picture of a {}",
        show_default=True,
        metavar="TEXT",
        help="How CLIP says a label.",
    ),
    click.option(
        "--rounds", type=click.IntRange(1, 1000), default=1, show_default=True, help="Multiplies the pictures."
    ),
    click.option("--steps", type=click.IntRange(1, 1000), default=10, show_default=True, help="Steps of the sampler."),
    click.option("--guidance", type=click.FloatRange(0, 100), default=3.0, show_default=True, help="Guidance scale."),
    click.option("--batch", type=click.IntRange(1, 256), default=4, show_default=True, help="Pictures drawn together."),
    click.option(
        "--attack",
        type=click.Choice(["none", "embedding", "suffix", "prefix", "concept", "image", "restart", "guided", "all"]),
        default="none",
        show_default=True,
        help="Look for another way to what was erased.",
    ),
    click.option(
        "--attack-steps", type=click.IntRange(1, 100_000), default=80, show_default=True, help="How long to look."
    ),
    click.option(
        "--attack-tokens", type=click.IntRange(1, 32), default=4, show_default=True, help="Free words of an attack."
    ),
    click.option(
        "--attack-tries",
        type=click.IntRange(1, 1000),
        default=12,
        show_default=True,
        help="Pictures that test an attack.",
    ),
    click.option("--seed", type=click.IntRange(0, 2**31), default=0, show_default=True, help="Of the attacks."),
    click.option("--device", default="cpu", show_default=True, metavar="NAME", help="Where to draw: cpu or cuda."),
    click.option(
        "--cache", type=_PATH, metavar="DIR", help="Pictures drawn before [default: in the registry's folder]."
    ),
)
_LIMITS: Final = (
    click.option(
        "--min", "minimum", multiple=True, metavar="NAME=VALUE", help="Least that a number must reach; repeatable."
    ),
    click.option(
        "--max", "maximum", multiple=True, metavar="NAME=VALUE", help="Most that a number may be; repeatable."
    ),
)


def evaluation_options(function: F) -> F:
    """A command that is told what to draw, how, and who judges it."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def limit_options(function: F) -> F:
    """A command that is told what its numbers must reach."""
    for option in reversed(_LIMITS):
        function = option(function)
    return function


def read_evaluation_request(
    registry: "Registry",
    *,
    base_ref: str,
    patches: tuple[str, ...],
    steps: int,
    guidance: float,
    batch: int,
    attack: str,
    attack_steps: int,
    attack_tokens: int,
    attack_tries: int,
    seed: int,
    minimum: tuple[str, ...],
    maximum: tuple[str, ...],
    **others: Any,
) -> "EvaluationRequest":
    """What is to be drawn, attacked and asked for.

    Raises:
        UsageError: a limit without a value, or two of one name.
        NotFoundError, AmbiguousIdError, StrengthError, InputError: a patch that is not there, at a strength that is
            none, or named twice.
    """
    from rasura.evaluation.attacks.budget import AttackOptions
    from rasura.evaluation.evaluate import EvaluationRequest
    from rasura.evaluation.images.painter import Sampling

    with retyping_strengths("patches", patches):
        chosen = _patches(registry, patches)
    return EvaluationRequest(
        base_ref,
        chosen,
        sampling=Sampling(steps, guidance, batch),
        attack=AttackOptions(attack, attack_steps, attack_tokens, attack_tries, seed),
        minimum=_limits(minimum, "--min"),
        maximum=_limits(maximum, "--max"),
        **others,
    )


def _limits(given: tuple[str, ...], option: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise click.UsageError(f"{option} expects NAME=VALUE, such as {option} forget=0.9, got {text!r}")
        if name in found:
            raise click.UsageError(f"{option} {name} is given twice")
        found[name] = value
    return found


def _patches(registry: "Registry", given: tuple[str, ...]) -> "dict[PatchId, Strength]":
    found: dict[PatchId, Strength] = {}
    for text in given:
        prefix, equals, strength = text.partition("=")
        patch_id = registry.resolve_patch(prefix)
        if patch_id in found:
            raise InputError(f"patch {short(patch_id)} is named twice: expected each patch once")
        found[patch_id] = Strength.parse(strength) if equals else ONE
        if found[patch_id].sixteenths == 0:
            raise StrengthError("strength 0 applies nothing: expected another", hint=f"--patch {short(patch_id)}=1")
    return found
