"""Of the page: what pictures show, what was measured on them, and what of other things is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rasura.evaluation.evidence_report.html_text import begin_sentence as _begin
from rasura.evaluation.evidence_report.html_text import escape as _e
from rasura.evaluation.evidence_report.html_text import write_time as _when
from rasura.evaluation.evidence_report.kept_pictures import inline_picture
from rasura.evaluation.evidence_report.plain_words import GROUPS

if TYPE_CHECKING:
    from rasura.evaluation.evidence_report.gather import Gathered
    from rasura.evaluation.evidence_report.kept_pictures import PicturePair

__all__ = ["write_kept", "write_measured", "write_pictures"]


def write_pictures(document: Any, gathered: Gathered) -> str:
    """Pictures before and after, by what was asked for."""
    shown = [each for each in document["evaluations"] if each["digest"] in gathered.pictures]
    if not shown:
        looked = (
            "Pictures were drawn and judged, but none was kept for this report."
            if document["evaluations"]
            else (
                "<strong>Not looked at.</strong> No pictures were drawn with and without the change, so nobody can "
                "say from this report what it does."
            )
        )
        return f"<p>{looked}</p>"
    parts = [
        (
            "<p>Each pair was drawn from the same words and the same random start: on the left by the unchanged model, "
            "on the right with the changes. Below each stands what the judge took it for.</p>"
        )
    ]
    for each in shown:
        pairs = gathered.pictures[each["digest"]].pairs
        if other := _say_other(each):
            parts.append(f"<p>{other.strip()}</p>")
        for group in GROUPS:
            chosen = [pair for pair in pairs if pair.group == group]
            if chosen:
                parts.append(f"<h3>Things {_e(GROUPS[group])}</h3>")
                parts.append(f'<ul class="pairs">{"".join(map(_pair, chosen))}</ul>')
    return "".join(parts)


def _pair(pair: PicturePair) -> str:
    def figure(when: str, data: bytes, seen: str) -> str:
        alt = f"{when}, the picture drawn for “{pair.prompt}”; the judge took it for “{seen}”"
        return (
            f'<figure><img src="{inline_picture(data)}" alt="{_e(alt)}">'
            f"<figcaption>{when}: “{_e(seen)}”</figcaption></figure>"
        )

    missed = pair.group == "forget" and pair.wanted != pair.seen_before
    note = "<small>It was not found before either: this pair says nothing of the change.</small>" if missed else ""
    return (
        f'<li><p style="margin-top:0">Asked for “{_e(pair.prompt)}”</p><div class="pair">'
        f"{figure('Before', pair.before, pair.seen_before)}{figure('After', pair.after, pair.seen_after)}</div>"
        f"{note}</li>"
    )


def write_measured(document: Any) -> str:
    """How often what is suppressed was drawn, before and after, and whether attacks brought it back."""
    if not document["evaluations"]:
        return "<p><strong>Nothing was measured.</strong> No evaluation is recorded.</p>"
    parts = []
    for each in document["evaluations"]:
        rows = [row for row in each["scores"] if row["group"] == "forget"]
        parts.append(
            f"<p>Recorded {_when(each['made_at'])}; judged by {_e(each['judge'])}. The thin line is the range in which "
            f"the true share lies with about 95 % certainty, if only chance is at work.{_say_other(each)}</p>"
        )
        parts += [
            f"<h3>Pictures that show “{_e(row['label'])}” when asked {_ask(row)}</h3>{_bars(row)}" for row in rows
        ]
        parts.append(_attacks(each["attacks"]))
    return "".join(parts)


def _say_other(evaluation: Mapping[str, Any]) -> str:
    """That an evaluation did not measure what is there now."""
    if evaluation.get("current", True):
        return ""
    return " <strong>It is of other changes, or other strengths, than what is there now.</strong>"


def _ask(row: Mapping[str, Any]) -> str:
    return {
        "paraphrase": "in other words, without its name",
        "template": "by name, in sentences",
        "direct": "by name",
    }.get(str(row["kind"]), f"({row['kind']})")


def _bars(row: Mapping[str, Any]) -> str:
    def bar(head: str, right: int, name: str, kind: str) -> str:
        share, low, high = (float(row[f"{name}{end}"]) for end in ("", "_low", "_high"))
        said = f"{right} of {row['n']} ({share:.0%}; between {low:.0%} and {high:.0%})"
        return (
            f'<span>{head}</span><span><span class="number">{said}</span><span class="track" aria-hidden="true" '
            f'style="display:block"><span class="fill {kind}" style="width:{share:.1%}"></span>'
            f'<span class="range" style="left:{low:.1%};width:{high - low:.1%}"></span></span></span>'
        )

    before, after = (
        bar("Before", row["base_right"], "base", "before"),
        bar("After", row["patched_right"], "patched", "after"),
    )
    return f'<div class="bars">{before}{after}</div>'


def _attacks(attacks: Sequence[Mapping[str, Any]]) -> str:
    if not attacks:
        return "<h3>Attacks</h3><p>No attack was tried: nobody looked for other words that bring it back.</p>"
    rows = "".join(
        f'<tr><th scope="row">{_e(each["label"])}</th><td data-label="attack">{_e(each["attack"])}</td>'
        f'<td data-label="on">{_e(each["model"])}</td>'
        f'<td class="number" data-label="came back">{each["successes"]} of {each["tries"]} (between '
        f"{float(each['rate_low']):.0%} and {float(each['rate_high']):.0%})</td></tr>"
        for each in attacks
    )
    return (
        '<h3>Attacks</h3><table class="stack"><caption>Somebody with the model tried to bring it back.</caption><thead>'
        '<tr><th scope="col">What</th><th scope="col">Attack</th><th scope="col">On</th>'
        '<th scope="col">Came back</th></tr>'
        f"</thead><tbody>{rows}</tbody></table>"
    )


def write_kept(document: Any) -> str:
    """How often other things were drawn right, before and after."""
    if not document["evaluations"]:
        return "<p>Whether other things are still drawn as before <strong>was not measured</strong>.</p>"
    parts = ["<p>A change that suppresses one thing should leave all others. Of the pictures of other things:</p>"]
    for each in document["evaluations"]:
        rows = [row for row in each["scores"] if row["group"] != "forget"]
        if other := _say_other(each):
            parts.append(f"<p>{other.strip()}</p>")
        for row in rows:
            head = f"{_e(_begin(str(row['axis'])))}s {_e(GROUPS[row['group']])}, asked {_ask(row)}: drawn right"
            parts.append(f"<h3>{head}</h3>{_bars(row)}")
        if not rows:
            parts.append("<p>This evaluation asked for nothing else.</p>")
    return "".join(parts)
