"""Of the page: what a reader should know who reads no further."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from rasura.evaluation.evidence_report.html_text import begin_sentence as _begin
from rasura.evaluation.evidence_report.html_text import escape as _e
from rasura.evaluation.evidence_report.html_text import write_percent as _percent
from rasura.evaluation.evidence_report.html_text import write_time as _when
from rasura.evaluation.evidence_report.plain_words import GROUPS, say_span

__all__ = ["write_short"]


def write_short(document: Any) -> str:
    """The first lines: what was done, what stands at another strength, what was measured, where it is in force."""
    lines = [
        *_short_case(document),
        *_short_otherwise(document),
        *_short_measured(document),
        *_short_force(document),
    ]
    lines.append("This is a <strong>measured suppression with known limits</strong>, not a deletion: section 8.")
    return f"<ul>{''.join(f'<li>{line}</li>' for line in lines)}</ul>"


def _short_case(document: Any) -> Iterator[str]:
    case = document["case"]
    concepts = _list_concepts(document)
    if case is None:
        yield f"Suppressed: <strong>{_e(_list_concepts(document, standing=True))}</strong>."
        return
    yield f"The request came {_when(case['received_at'])}."
    if case["acted"] is None:
        yield '<span class="bad">Nothing has come into force so far.</span>'
        return
    after = say_span(timedelta(seconds=case["seconds"]))
    due = case["due_at"]
    said = (
        ""
        if due is None
        else ', <span class="bad">after the deadline</span>'
        if case["late"]
        else (', <span class="good">before the deadline</span>')
    )
    yield f"{_e(_begin(after))} later a change that suppresses <strong>{_e(concepts)}</strong> came into force{said}."
    if any(patch.get("anew") for patch in document["patches"]):
        yield (
            f"Changes that suppress {_e(_list_concepts(document, anew=True))} were there before, by other requests; "
            "they were computed anew so that none disturbs another."
        )


def _short_otherwise(document: Any) -> Iterator[str]:
    """What stands at another strength than 1, at which a change suppresses nothing that anybody promised."""
    for patch in document["patches"]:
        found = [each for each in patch.get("strengths", ()) if each != "1"]
        if found:
            where = " elsewhere" if "1" in patch["strengths"] else ""
            yield (
                f'<span class="bad">Not suppressed: “{_e(", ".join(patch["concepts"]))}”, whose change stands at '
                f"strength {_e(' and '.join(found))}{where}; it suppresses at strength 1.</span>"
            )


def _short_measured(document: Any) -> Iterator[str]:
    if not document["evaluations"]:
        yield "Nobody has looked at pictures: <strong>what the change does was not measured</strong>."
        return
    newest = document["evaluations"][0]
    if not newest.get("current", True):
        yield (
            "Nobody has looked at pictures of what is there now: <strong>what it does was not measured</strong>. What "
            "was measured, in section 4, is of other changes or strengths."
        )
        return
    asked = [row for row in newest["scores"] if row["group"] == "forget"]
    labels = list(dict.fromkeys(str(row["label"]) for row in asked))
    for label in labels:
        it = f"“{_e(label)}”" if len(labels) > 1 else "it"
        for named, how in ((True, "by name"), (False, "in other words")):
            rows = [row for row in asked if row["label"] == label and (row["kind"] != "paraphrase") == named]
            n, before, after = (sum(row[name] for row in rows) for name in ("n", "base_right", "patched_right"))
            if n:
                yield (
                    f"Of {n} pictures that ask for {it} {how}, a judge found it in {before} before and in "
                    f"<strong>{after}</strong> after."
                )
    kept = [(name, newest["summary"][name]) for name in ("retain", "held_out") if name in newest["summary"]]
    if kept:
        said = " and ".join(f"{_percent(share)} of what was {_e(GROUPS[name])}" for name, share in kept)
        yield f"Of other things that were drawn right before, still drawn right: {said}."


def _short_force(document: Any) -> Iterator[str]:
    ids = {patch["id"] for patch in document["patches"]}
    read = [
        place
        for place in document["places"]
        if place["sight"] == "as written" and any(place["patches"].get(i) == "1" for i in ids)
    ]
    if read:
        names = ", ".join(f"“{place['model']}”" for place in read)
        yield f"It was found in force on {_e(names)} when this report was made: the weights were read back."
    else:
        yield "On no model was it found in force when this report was made."


def _list_concepts(document: Any, *, anew: bool = False, standing: bool = False) -> str:
    """What changes suppress: those that were asked for, or those that were only computed anew beside them.

    `standing`: without those that stand at another strength than 1.
    """
    found = [
        concept
        for patch in document["patches"]
        if patch.get("anew", False) == anew and not (standing and set(patch.get("strengths", ())) - {"1"})
        for concept in patch["concepts"]
    ]
    return ", ".join(f"“{each}”" for each in dict.fromkeys(found)) or "nothing"
