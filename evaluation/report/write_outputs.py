"""What an evaluation leaves in a folder: the report's bytes, a table, a picture, and on request every picture."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rasura.evaluation.images.grid import Row, draw_grid, save_grid
from rasura.evaluation.images.patched_model import EvaluatedPatch
from rasura.evaluation.images.questions import Answer
from rasura.evaluation.report.evaluated import Evaluated
from rasura.evaluation.report.report import GROUPS, Compared, compute_scores, score_rows
from rasura.patches.algebra.strength import ONE
from rasura.patches.errors import ExistsError

REPORT: Final = "report.json"
SCORES: Final = "scores.csv"
GRID: Final = "grid.png"
PICTURES: Final = "pictures"
_COLUMNS: Final = {"forget": 6, "retain": 4, "held_out": 2}
"""How many pictures of each group the grid shows."""

_WORDS: Final = {"forget": "to be forgotten", "retain": "retained", "held_out": "held out"}


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds something else than an evaluation.

    Raises:
        ExistsError: it does.
    """
    ours = {REPORT, SCORES, GRID, PICTURES}
    if folder.exists() and (not folder.is_dir() or {path.name for path in folder.iterdir()} - ours):
        raise ExistsError(f"{folder} holds something else: expected a new folder", hint="rasura evaluate --out NEW")


def write_outputs(folder: Path, evaluated: Evaluated, *, keep_pictures: bool) -> None:
    """Write `report.json`, `scores.csv`, `grid.png`, and with `keep_pictures` every pair of pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / REPORT).write_bytes(evaluated.report)
    (folder / SCORES).write_text(encode_scores_csv(evaluated.compared), encoding="utf-8", newline="")
    save_evaluation_grid(folder / GRID, evaluated)
    if keep_pictures:
        (folder / PICTURES).mkdir(exist_ok=True)
        pairs = zip(evaluated.compared.before, evaluated.compared.after, strict=True)
        for i, (before, after) in enumerate(pairs):
            before.save(folder / PICTURES / f"{i:05d}_base.png")
            after.save(folder / PICTURES / f"{i:05d}_patched.png")


def encode_scores_csv(compared: Compared) -> str:
    """The report's scores as CSV."""
    rows = list(score_rows(compute_scores(compared)))
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()


def save_evaluation_grid(path: Path, evaluated: Evaluated) -> None:
    """A column a prompt: the base above, the patched model below, and what the judge calls each."""
    compared = evaluated.compared
    shown = choose_pictures(compared)
    rows = [
        Row(label, [pictures[i] for i in shown], [_caption(sight.answers[i]) for i in shown])
        for label, pictures, sight in (
            (f"base\n{evaluated.base}", compared.before, compared.seen_before),
            ("patched", compared.after, compared.seen_after),
        )
    ]
    heads = [_caption(compared.asked[i].wanted) for i in shown]
    erased = ", ".join(map(_name_member, evaluated.stack))
    groups = [compared.asked[i].group for i in shown]
    counted = ", ".join(f"{groups.count(group)} {_WORDS[group]}" for group in GROUPS if group in groups)
    title = f"Erased: {erased}. From the left: {counted}; the same noise in both rows. Below: {evaluated.judge}."
    save_grid(path, draw_grid(title, heads, rows))


def _name_member(member: EvaluatedPatch) -> str:
    """What a patch erases, and its strength where that is another than 1, at which it is not erased."""
    concept = repr(member.patch.manifest.concept.text)
    return concept if member.strength == ONE else f"{concept} at strength {member.strength}"


def choose_pictures(compared: Compared) -> list[int]:
    """Which questions the grid shows: some of each group, spread over its labels and kinds."""
    found: list[int] = []
    for group in GROUPS:
        spread: dict[tuple[str, ...], list[int]] = {}
        for i, question in enumerate(compared.asked):
            if question.group == group:
                spread.setdefault((*question.wanted.values(), question.kind), []).append(i)
        found += _evenly(list(spread.values()), _COLUMNS[group])
    return found


def _evenly(lists: Sequence[Sequence[int]], most: int) -> list[int]:
    """Up to `most` entries: of lists that lie evenly apart where there are many, else in turns of all lists."""
    if len(lists) >= most:
        return [lists[i * len(lists) // most][0] for i in range(most)]
    turns = max(map(len, lists), default=0)
    return sorted([each[turn] for turn in range(turns) for each in lists if turn < len(each)][:most])


def _caption(labels: Answer) -> str:
    return ", ".join(labels.values())
