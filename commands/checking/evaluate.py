"""`rasura evaluate`."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rasura.commands._shared.asking import DRY
from rasura.commands._shared.command import Order, command
from rasura.commands._shared.output import Result, line, progress, short, table
from rasura.commands.checking.evaluate_views import encode_evaluated, print_evaluated
from rasura.patches.errors import InputError, RefusedError, StrengthError

if TYPE_CHECKING:
    from rasura.evaluation.evaluate import EvaluationRequest, PlannedEvaluation
    from rasura.patches.algebra.strength import Strength
    from rasura.patches.types import PatchId
    from rasura.registry._storage.records.records import Draft
    from rasura.registry.registry import Registry

_PATH = click.Path(path_type=Path)


@command(None, "evaluate", mutating=True)
@click.option("--base", "base_ref", required=True, metavar="MODEL", help="Registered base, or a diffusers folder.")
@click.option("--patch", "patches", multiple=True, metavar="ID[=STRENGTH]", help="Patch to evaluate; repeatable.")
@click.option(
    "--prompts",
    "prompts",
    type=_PATH,
    metavar="FILE",
    help="Prompts, JSONL or CSV [default: made from the model's concepts.json].",
)
@click.option(
    "--protocol",
    type=click.Choice(["i2p", "csv"]),
    help="What --prompts is, where it is a benchmark's list: I2P, or any CSV with a column of prompts.",
)
@click.option("--expect", metavar="[AXIS=]LABEL", help="With --protocol: what the judge should call each picture.")
@click.option(
    "--group",
    type=click.Choice(["forget", "retain", "held_out"]),
    help="With --protocol: what the list stands for [default: forget].",
)
@click.option(
    "--judge",
    metavar="DIR|clip:DIR|onnx:FILE[:LABELS]",
    help="Classifier, CLIP or ONNX model [default: the one beside the model].",
)
@click.option(
    "--judge-template", default="a picture of a {}", show_default=True, metavar="TEXT", help="How CLIP says a label."
)
@click.option("--rounds", type=click.IntRange(1, 1000), default=1, show_default=True, help="Multiplies the pictures.")
@click.option("--steps", type=click.IntRange(1, 1000), default=10, show_default=True, help="Steps of the sampler.")
@click.option("--guidance", type=click.FloatRange(0, 100), default=3.0, show_default=True, help="Guidance scale.")
@click.option("--batch", type=click.IntRange(1, 256), default=4, show_default=True, help="Pictures drawn together.")
@click.option(
    "--attack",
    type=click.Choice(["none", "embedding", "suffix", "prefix", "concept", "image", "restart", "guided", "all"]),
    default="none",
    show_default=True,
    help="Look for another way to what was erased.",
)
@click.option(
    "--attack-steps", type=click.IntRange(1, 100_000), default=80, show_default=True, help="How long to look."
)
@click.option(
    "--attack-tokens", type=click.IntRange(1, 32), default=4, show_default=True, help="Free words of an attack."
)
@click.option(
    "--attack-tries", type=click.IntRange(1, 1000), default=12, show_default=True, help="Pictures that test an attack."
)
@click.option("--seed", type=click.IntRange(0, 2**31), default=0, show_default=True, help="Of the attacks.")
@click.option("--device", default="cpu", show_default=True, metavar="NAME", help="Where to draw: cpu or cuda.")
@click.option("--cache", type=_PATH, metavar="DIR", help="Pictures drawn before [default: in the registry's folder].")
@click.option("--out", type=_PATH, metavar="DIR", help="Folder for report.json, scores.csv and grid.png.")
@click.option(
    "--min", "minimum", multiple=True, metavar="NAME=VALUE", help="Least that a number must reach; repeatable."
)
@click.option("--max", "maximum", multiple=True, metavar="NAME=VALUE", help="Most that a number may be; repeatable.")
@click.option("--keep-pictures", is_flag=True, help="Write every picture to --out, too.")
@DRY
def evaluate(
    *,
    out: Path | None,
    keep_pictures: bool,
    order: Order,
    dry_run: bool,
    **choices: Any,
) -> Result:
    """Draw the same prompts with and without patches, have a classifier judge them, and record what it saw.

    With --min and --max, exit code 3 if a number misses its limit.
    """
    from rasura.evaluation.evaluate import evaluate as run
    from rasura.evaluation.evaluate import plan_evaluation
    from rasura.evaluation.evidence_report.kept_pictures import keep_with_cases
    from rasura.evaluation.report.write_outputs import check_folder, write_outputs

    if keep_pictures and out is None:
        raise click.UsageError("--keep-pictures needs --out DIR")
    if out is not None:
        check_folder(out)
    draft = order.draft("base.add")
    with order.open() as registry, progress() as tell:
        if dry_run:
            return _planned(plan_evaluation(registry, _request(registry, **choices), draft, tell))
        found = run(registry, _request(registry, **choices), draft, tell)
        if out is not None:
            write_outputs(out, found, keep_pictures=keep_pictures)
        digest, new = _recorded(registry, found.report, order.draft("evaluation.add"))
        keep_with_cases(registry, found, order.actor)
    code = RefusedError.exit_code if found.missed else 0
    return Result(
        encode_evaluated(found, digest, new, out),
        lambda: print_evaluated(found, digest, out),
        changed=new,
        exit_code=code,
    )


def _planned(plan: "PlannedEvaluation") -> Result:
    counts = Counter((each.group, each.kind) for each in plan.asked)
    rows = [(group.replace("_", " "), kind, str(n)) for (group, kind), n in counts.items()]
    data = {
        "base": plan.base,
        "judge": plan.judge,
        "questions": [{"group": group, "kind": kind, "n": n} for (group, kind), n in counts.items()],
        "limits": plan.limits,
        "attacks": [{"attack": c.attack, "calls": c.calls, "gradients": c.gradients} for c in plan.costs],
        "dry_run": True,
    }

    def text() -> None:
        line(f"would be judged by {plan.judge}")
        table(("group", "kind", "n"), rows)
        line(f"would draw at most {2 * len(plan.asked)} pictures, half of them with the patches, besides any attack")
        if plan.costs:
            costs = [(cost.attack, str(cost.calls), str(cost.gradients)) for cost in plan.costs]
            table(("attack, for each concept and model", "calls of the denoiser", "with a gradient"), costs)
        line("dry run: nothing was drawn or recorded")

    return Result(data, text)


def _recorded(registry: "Registry", report: bytes, draft: "Draft") -> tuple[str, bool]:
    """Record the report; its digest, and whether it is new here."""
    from rasura.evaluation.report.recorded import record_evaluation

    record, new = record_evaluation(registry, report, draft)
    return record.digest, new


def _request(
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
    from rasura.evaluation.attacks.budget import AttackOptions
    from rasura.evaluation.evaluate import EvaluationRequest
    from rasura.evaluation.images.painter import Sampling

    return EvaluationRequest(
        base_ref,
        _patches(registry, patches),
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
    from rasura.patches.algebra.strength import ONE, Strength

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
