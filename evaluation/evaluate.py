"""Evaluating patches: the same prompts from the same noise, drawn by a base and by the patched model, and judged.

(1) the patches are verified, the base opened and compared with what they were computed on;
(2) the questions are read, or made from the model's concepts.json, and the judge must know every label;
(3) the base draws, then the patched model; what was drawn before is taken from the cache;
(4) the judge names every picture;
(5) attacks look for another way to what was erased;
(6) the report: canonical bytes that hold every answer.

Nothing is written to the model, whatever is applied to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rasura.evaluation.attacks.attack import Bench, check_attacks, run_attacks
from rasura.evaluation.attacks.budget import AttackOptions, Cost, list_costs
from rasura.evaluation.images.drawable import check_pipeline
from rasura.evaluation.images.image_cache import PictureCache
from rasura.evaluation.images.painter import Sampling
from rasura.evaluation.images.patched_model import EvaluatedPatch, PatchedModel, check_drawable
from rasura.evaluation.images.questions import Question, Subjects
from rasura.evaluation.judges.classifier import FACTS
from rasura.evaluation.judges.interface import CLIP, ONNX, TEMPLATE, Judge
from rasura.evaluation.judges.open_judge import open_judge
from rasura.evaluation.report import question_kinds
from rasura.evaluation.report.evaluated import Evaluated
from rasura.evaluation.report.limits import Value, compare_limits, parse_limits
from rasura.evaluation.report.prompt_file import check_prompt, read_questions
from rasura.evaluation.report.protocols import Format, Protocol, read_protocol
from rasura.evaluation.report.report import GROUPS, Compared, decimal, encode_report, summarise
from rasura.evaluation.report.report_details import build_body
from rasura.patches.algebra.strength import Strength
from rasura.patches.errors import InputError
from rasura.patches.types import PatchId, Progress
from rasura.registry._storage.records.records import Draft
from rasura.registry.erase.base_models import OpenBase, open_base
from rasura.registry.registry import Registry
from rasura.registry.trust.verified_patch import load_verified

PICTURES: Final = "pictures"
"""Folder of the cache, in the registry's."""


@dataclass(frozen=True, slots=True)
class EvaluationRequest:
    """What to evaluate, and how.

    Attributes:
        base: name, digest or folder of the base.
        patches: what to apply, in memory, and how strongly.
        prompts: a file of prompts; None makes them from the model's concepts.json.
        judge: a classifier's folder, `clip:` and a CLIP model's, or `onnx:FILE[:LABELS]`; None takes the
            classifier beside the model.
        judge_template: how a CLIP judge says a label.
        rounds: multiplies the pictures of questions that are made.
        sampling: how to draw.
        attack: what to attack with.
        cache: folder of pictures; None is in the registry's.
        device: where to draw.
        minimum: the least that numbers must reach, by name: `{"forget": "0.9"}`; see `report.limits.NUMBERS`.
        maximum: the most that they may be.
        protocol: what the file of prompts is, where it is a benchmark's list: `i2p` or `csv`; None is one of questions.
        expect: with a protocol, what a judge should call each picture: `LABEL` or `AXIS=LABEL`.
        group: with a protocol, what the list stands for; None is `forget`.
    """

    base: str
    patches: Mapping[PatchId, Strength]
    prompts: Path | None = None
    judge: str | None = None
    judge_template: str = TEMPLATE
    rounds: int = 1
    sampling: Sampling = field(default_factory=lambda: Sampling(batch=4))
    attack: AttackOptions = field(default_factory=AttackOptions)
    cache: Path | None = None
    device: str = "cpu"
    minimum: Mapping[str, Value] = field(default_factory=dict)
    maximum: Mapping[str, Value] = field(default_factory=dict)
    protocol: Format | None = None
    expect: str | None = None
    group: str | None = None


def evaluate(registry: Registry, request: EvaluationRequest, draft: Draft, progress: Progress) -> Evaluated:
    """Evaluate a set of patches over a base; the report is not recorded here.

    Args:
        registry: where the patches are.
        request: what and how.
        draft: the audit entry of a base that is new here.
        progress: told what is going on.

    Raises:
        NotFoundError, VerificationError, BaseMismatchError, DriftError: patches or base are not what they should be.
        InputError: no patch, no judge, bad prompts, a label that the judge does not know, a limit on no known number.
        UnsupportedHostError: no pipeline that can draw, or an attack on a model with several text encoders.
    """
    limits = parse_limits(request.minimum, request.maximum)
    stack, opened = _opened(registry, request, draft, progress)  # (1)
    asked, judge = questions_and_judge(request, opened, stack)  # (2)
    model = PatchedModel.load(opened.host, opened.identity, stack, request.sampling, request.device)
    cache = PictureCache(request.cache or registry.location.folder / PICTURES)
    compared = draw_and_judge(model, judge, asked, cache, progress)  # (3), (4)
    attacked = run_attacks(Bench(model, judge, request.attack, cache, progress), asked)  # (5)
    numbers = summarise(compared)
    document = build_body(stack, compared, attacked, request.sampling, request.attack, judge=judge)
    outcomes = compare_limits(limits, {name: decimal(value) for name, value in numbers.items()}, document)
    if outcomes:  # a report without limits keeps its bytes
        document["limits"] = [outcome.encode() for outcome in outcomes]
    applied = {m.patch.patch_id: m.strength.sixteenths for m in stack}
    report = encode_report(opened.identity.digest, applied, judge.title, numbers, document)  # (6)
    name = opened.record.name
    return Evaluated(report, name, judge.title, stack, compared, numbers, attacked, cache.effort, outcomes)


@dataclass(frozen=True, slots=True)
class PlannedEvaluation:
    """What an evaluation would do, as far as it shows before anything is drawn.

    Attributes:
        base: the base's name.
        judge: who would answer.
        asked: the questions; each is drawn with the base and with the patches, if that was not done before.
        limits: how many numbers would be compared with a limit.
        costs: what each attack would take, for each concept and each of the two models.
    """

    base: str
    judge: str
    asked: tuple[Question, ...]
    limits: int
    costs: tuple[Cost, ...] = ()


def plan_evaluation(
    registry: Registry, request: EvaluationRequest, draft: Draft, progress: Progress
) -> PlannedEvaluation:
    """Steps (1) and (2) of `evaluate`, which refuse what can be refused before a picture; nothing is written.

    Raises:
        RasuraError: as for `evaluate`.
    """
    limits = parse_limits(request.minimum, request.maximum)
    stack, opened = _opened(registry, request, draft, progress, dry_run=True)
    asked, judge = questions_and_judge(request, opened, stack)
    costs = list_costs(request.attack, request.sampling)
    return PlannedEvaluation(opened.record.name, judge.title, asked, len(limits), costs)


def _opened(
    registry: Registry, request: EvaluationRequest, draft: Draft, progress: Progress, *, dry_run: bool = False
) -> tuple[tuple[EvaluatedPatch, ...], OpenBase]:
    stack = tuple(EvaluatedPatch(load_verified(registry, p), strength) for p, strength in request.patches.items())
    opened = open_base(registry, request.base, draft, progress, dry_run=dry_run)
    check_drawable(opened.host, opened.identity, stack)
    check_pipeline(opened.host.folder)
    check_attacks(opened.host, request.attack)
    return stack, opened


def questions_and_judge(
    request: EvaluationRequest, opened: OpenBase, stack: Sequence[EvaluatedPatch]
) -> tuple[tuple[Question, ...], Judge]:
    """What is asked, and who answers.

    Raises:
        InputError: neither prompts nor a concepts.json, no judge, or a question that it cannot answer.
    """
    spec = request.judge or _judge_beside(opened.host.folder)
    protocol = _protocol(request)
    if protocol is not None and request.prompts is not None:
        asked = read_protocol(request.prompts, protocol)
    elif request.prompts is not None:
        asked = read_questions(request.prompts, opened.encoder)
    else:
        places = [opened.host.folder, *([] if spec.startswith((CLIP, ONNX)) else [Path(spec)])]
        asked = make_questions(places, stack, request.rounds)
        for question in asked:
            check_prompt(opened.encoder, question.shot.prompt, question_kinds.CONCEPTS)
    return asked, open_judge(spec, asked, request.judge_template, request.device)


def make_questions(places: Sequence[Path], stack: Sequence[EvaluatedPatch], rounds: int) -> tuple[Question, ...]:
    """Questions about what the patches erase, from the concepts.json beside the model or the judge.

    Raises:
        InputError: there is none, or it does not know a concept.
    """
    found = question_kinds.find_beside(question_kinds.CONCEPTS, places)
    if found is None:
        raise InputError(
            f"expected {question_kinds.CONCEPTS} beside {' or '.join(str(p) for p in places)} "
            "or a file of prompts, got neither",
            hint="rasura evaluate --prompts FILE.jsonl",
        )
    subjects = Subjects.load(found)
    erased = question_kinds.Erasures.of(subjects, [member.patch.manifest.concept.text for member in stack])
    paraphrases = question_kinds.read_paraphrases(
        question_kinds.find_beside(question_kinds.PARAPHRASES, [found.parent])
    )
    return question_kinds.make_default_questions(subjects, erased, paraphrases, rounds=rounds)


def draw_and_judge(
    model: PatchedModel, judge: Judge, asked: Sequence[Question], cache: PictureCache, progress: Progress
) -> Compared:
    """Draw every question with the base and with the patched model, and have the pictures judged."""
    shots = [question.shot for question in asked]
    before = cache.draw(model.painter, model.show(patched=False), shots, "drawing with the base", progress)
    after = cache.draw(model.painter, model.show(patched=True), shots, "drawing with the patches", progress)
    return Compared(asked, before, after, judge.look(before), judge.look(after))


def _protocol(request: EvaluationRequest) -> Protocol | None:
    """How the file of prompts is to be read; None is as one of questions.

    Raises:
        InputError: a protocol without its file or its label, or these without a protocol.
    """
    if request.protocol is None:
        if request.expect is not None or request.group is not None:
            raise InputError("a label or a group for all pictures: expected a protocol with it", hint="--protocol csv")
        return None
    if request.prompts is None or request.expect is None:
        lacks = "a file of prompts" if request.prompts is None else "what the judge should call the pictures"
        raise InputError(
            f"protocol {request.protocol}: expected {lacks}, got nothing",
            hint=f"rasura evaluate --protocol {request.protocol} --prompts FILE.csv --expect LABEL",
        )
    return Protocol(request.protocol, request.expect, request.group or GROUPS[0])


def _judge_beside(folder: Path) -> str:
    found = question_kinds.find_beside(FACTS, [folder])
    if found is None:
        raise InputError(
            f"no judge was named, and none lies beside {folder}: expected a classifier's folder or a CLIP model's",
            hint="rasura evaluate --judge DIR, or --judge clip:DIR",
        )
    return str(found.parent)
