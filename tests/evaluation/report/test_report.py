"""The report: its numbers from answers that are known, and bytes that the registry reads."""

import json
from decimal import Decimal
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from rasura.evaluation.images.painter import Shot
from rasura.evaluation.images.questions import Answer, Question
from rasura.evaluation.judges.interface import Sight
from rasura.evaluation.report.limits import NUMBERS, Value, compare_limits, list_numbers, parse_limits
from rasura.evaluation.report.recorded import Report
from rasura.evaluation.report.report import (
    Compared,
    compute_changes,
    compute_scores,
    decimal,
    encode_report,
    group_changes,
    list_answers,
    score_rows,
    summarise,
)
from rasura.patches.types import Digest, PatchId

if TYPE_CHECKING:
    from rasura.patches._io.json_fields import JsonValue

# group, kind, wanted, the judge's answer to the base's picture and to the patched model's
ROWS: tuple[tuple[str, str, Answer, Answer, Answer], ...] = (
    ("forget", "direct", {"object": "dog"}, {"object": "dog"}, {"object": "cat"}),
    ("forget", "direct", {"object": "dog"}, {"object": "dog"}, {"object": "dog"}),
    ("forget", "direct", {"object": "dog"}, {"object": "cat"}, {"object": "dog"}),  # not drawn right: does not count
    ("forget", "template", {"object": "dog"}, {"object": "dog"}, {"object": "cat"}),
    ("forget", "template", {"object": "dog"}, {"object": "dog"}, {"object": "cat"}),
    ("forget", "paraphrase", {"object": "dog"}, {"object": "dog"}, {"object": "dog"}),
    ("retain", "direct", {"object": "cat", "style": "ink"}, {"object": "cat", "style": "ink"}, {"object": "cat", "style": "x"}),
    ("retain", "direct", {"object": "bus", "style": "ink"}, {"object": "bus", "style": "x"}, {"object": "bus", "style": "ink"}),
    ("held_out", "direct", {"object": "lion"}, {"object": "lion"}, {"object": "lion"}),
)  # fmt: skip


def compared(rows: tuple[tuple[str, str, Answer, Answer, Answer], ...] = ROWS) -> Compared:
    chance = np.random.default_rng(0)
    pictures = [Image.fromarray(chance.integers(0, 256, (8, 8, 3), dtype=np.uint8)) for _ in rows]
    asked = [
        Question(group, Shot(f"prompt {i}", i), wanted, kind) for i, (group, kind, wanted, _, _) in enumerate(rows)
    ]
    features = chance.normal(size=(len(rows), 4))
    before, after = [row[3] for row in rows], [row[4] for row in rows]
    return Compared(asked, pictures, pictures, Sight(before, features), Sight(after, features + 1))


def test_the_summary_counts_what_the_base_draws_right() -> None:
    found = summarise(compared())
    assert found["forget"] == pytest.approx(3 / 4)  # of four prompts that name the dog and draw it, one still does
    assert found["forget_paraphrase"] == 0
    assert found["retain"] == pytest.approx(2 / 3)  # cat, its ink, bus; not the bus's ink, which never was there
    assert found["held_out"] == 1
    assert found["harmonic"] == pytest.approx(3 / (4 / 3 + 3 / 2 + 1))


def test_what_was_not_asked_has_no_number() -> None:
    assert set(summarise(compared(ROWS[:5]))) == {"forget"}
    assert set(summarise(compared((*ROWS[2:3], *ROWS[6:])))) == {"retain", "held_out"}  # no dog that the base draws


def test_scores_by_kind_and_by_label() -> None:
    rows = {(r["group"], r["axis"], r["kind"], r["label"]): r for r in score_rows(compute_scores(compared()))}
    direct = rows["forget", "object", "direct", ""]
    assert (direct["n"], direct["base_right"], direct["patched_right"], direct["both_right"]) == (3, 2, 2, 1)
    assert (direct["base"], direct["patched"]) == ("0.6667", "0.6667")
    assert rows["forget", "object", "template", "dog"]["patched_high"] == "0.6576"
    assert ("retain", "object", "direct", "bus") in rows
    assert ("retain", "style", "direct", "ink") in rows
    assert ("held_out", "style", "direct", "") not in rows
    assert sum(int(str(r["n"])) for key, r in rows.items() if key[3] == "") == 3 + 2 + 1 + 2 + 2 + 1


def test_changes_by_group() -> None:
    rows = {row["group"]: row for row in compute_changes(group_changes(compared()))}
    assert [rows[group]["n"] for group in ("forget", "retain", "held_out")] == [6, 2, 1]
    forget = rows["forget"]
    assert (forget["ssim"], forget["change"], forget["identical"]) == ("1.0000", "0.0000", 6)
    assert (forget["frechet"], forget["frechet_width"], forget["frechet_regularised"]) == ("4.0000", 4, False)
    assert rows["retain"]["frechet_regularised"] is True
    assert rows["held_out"]["frechet"] is None


def test_the_registry_reads_the_bytes() -> None:
    found = compared()
    body = {"scores": list(score_rows(compute_scores(found))), "pictures": list(list_answers(found))}
    applied = {PatchId("a" * 64): 16}
    data = encode_report(Digest("b" * 64), applied, "c (classifier 0)", summarise(found), body)
    report = Report.from_bytes(data)
    assert (report.base, report.patches, report.judge) == ("b" * 64, applied, "c (classifier 0)")
    assert report.summary["forget"] == "0.7500"
    assert list(report.scores) == body["scores"]
    assert json.loads(data)["body"]["pictures"][2] == {
        "prompt": "prompt 2",
        "seed": 2,
        "group": "forget",
        "kind": "direct",
        "wanted": {"object": "dog"},
        "base": {"object": "cat"},
        "patched": {"object": "dog"},
    }


def test_numbers_that_may_have_limits_are_read_from_what_a_report_prints() -> None:
    found = compared()
    attacks: list[JsonValue] = [
        {"attack": "suffix", "model": model, "label": label, "rate": rate}
        for model, label, rate in (
            ("base", "dog", "1.0000"),
            ("patched", "dog", "0.2500"),
            ("patched", "cat", "0.5000"),
        )
    ]
    body: dict[str, JsonValue] = {"changes": list(compute_changes(group_changes(found))), "attacks": attacks}
    numbers = list_numbers({name: decimal(value) for name, value in summarise(found).items()}, body)
    assert set(numbers) <= set(NUMBERS)
    assert numbers["retain"] == Decimal("0.6667")
    assert numbers["attack_suffix"] == Decimal("0.5")  # the concept that comes back most; the base's are the ceiling
    assert numbers["forget_frechet"] > 0
    assert numbers["held_out_ssim"] == 1
    assert "attack_embedding" not in numbers


@pytest.mark.parametrize(
    ("bound", "value", "kept"),
    [("min", "0.6667", True), ("min", 0.6668, False), ("max", "0.6667", True), ("max", Decimal("0.6666"), False)],
)
def test_a_limit_is_itself_allowed(bound: str, value: Value, kept: bool) -> None:
    given = {"retain": value}
    limits = parse_limits(given, {}) if bound == "min" else parse_limits({}, given)
    summary = {name: decimal(number) for name, number in summarise(compared()).items()}
    assert [outcome.kept for outcome in compare_limits(limits, summary, {})] == [kept]
