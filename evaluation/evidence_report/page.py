"""The page: one HTML file, for a reader who knows nothing of tensors; no script, nothing from elsewhere.

It is a pure function of what was gathered. Between the markers of `signed_report` it holds nothing yet; the signed twin
is put there afterwards.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from rasura.evaluation.evidence_report.html_text import begin_sentence as _begin
from rasura.evaluation.evidence_report.html_text import escape as _e
from rasura.evaluation.evidence_report.html_text import write_share as _share
from rasura.evaluation.evidence_report.html_text import write_time as _when
from rasura.evaluation.evidence_report.kept_pictures import inline_picture
from rasura.evaluation.evidence_report.page_measured import write_kept, write_measured, write_pictures
from rasura.evaluation.evidence_report.page_short import write_short
from rasura.evaluation.evidence_report.page_style import STYLE
from rasura.evaluation.evidence_report.page_verify import write_verify
from rasura.evaluation.evidence_report.plain_words import SIGHTS, WORDS, find_force, name_approvals
from rasura.evaluation.evidence_report.signed_report import END, START

if TYPE_CHECKING:
    from rasura.evaluation.evidence_report.gather import Gathered

__all__ = ["write_page"]

_POLICY: Final = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_SECTIONS: Final = (
    ("asked", "What was asked"),
    ("done", "What was done, when, and by whom"),
    ("pictures", "Before and after"),
    ("measured", "What was measured"),
    ("kept", "What is kept"),
    ("force", "Where it is in force"),
    ("together", "How the changes stand to each other"),
    ("limits", "What is not promised"),
    ("verify", "How to check every line of this"),
    ("words", "Words"),
)
_KEY_ACTIONS: Final = frozenset({"case.open", "patch.apply", "patch.switch", "patch.revert", "case.close"})


def write_page(gathered: Gathered) -> bytes:
    """The page's bytes."""
    document: Any = gathered.document
    parts = {
        "asked": _asked(document, gathered.sent),
        "done": _done(document),
        "pictures": write_pictures(document, gathered),
        "measured": write_measured(document),
        "kept": write_kept(document),
        "force": _force(document),
        "together": _together(document, gathered.heat_map),
        "limits": f"<ul>{''.join(f'<li>{_e(text)}</li>' for text in document['not_promised'])}</ul>",
        "verify": write_verify(document),
        "words": "<dl>" + "".join(f"<dt>{_e(word)}</dt><dd>{_e(said)}</dd>" for word, said in WORDS.items()) + "</dl>",
    }
    title = _title(document)
    contents = "".join(f'<li><a href="#{name}">{_e(head)}</a></li>' for name, head in _SECTIONS)
    sections = "".join(
        f'<section aria-labelledby="{name}"><h2 id="{name}">{at}. {_e(head)}</h2>{parts[name]}</section>\n'
        for at, (name, head) in enumerate(_SECTIONS, 1)
    )
    made = document["made"]
    return (
        (
            f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{_e(title)}</title>\n'
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<meta name="referrer" content="no-referrer">\n'
            f"<style>{STYLE}</style>\n</head>\n<body>\n"
            '<a class="skip" href="#content">Skip to the report</a>\n'
            f'<header>\n<h1>{_e(title)}</h1>\n<p class="soft">Made {_when(made["at"])} with rasura {_e(made["rasura"])} from '
            f"the record {_e(document['log']['origin'])}.</p>\n</header>\n"
            f'<main id="content">\n<section class="card" aria-labelledby="short"><h2 id="short" '
            f'style="margin:0;padding:0;border:0">In short</h2>{write_short(document)}</section>\n'
            f'<nav aria-label="Contents"><ol>{contents}</ol></nav>\n{sections}</main>\n'
            f'<footer><p class="soft">Every character of this page is covered by the signature in it. A copy that was changed, '
            "however little, does not verify: section 9 says how to check.</p></footer>\n"
        ).encode()
        + START
        + END
        + b"\n</body>\n</html>\n"
    )


def _title(document: Any) -> str:
    kind, name = document["about"]["kind"], document["about"]["name"]
    if kind == "case":
        return f"What was done about request {name}"
    return f"What is suppressed in the model {name}" if kind == "model" else f"What the set {name} suppresses"


def _asked(document: Any, sent: Sequence[bytes]) -> str:
    case = document["case"]
    if case is None:
        kind = document["about"]["kind"]
        return f"<p>This report is about a {_e(kind)} as it stands; it belongs to no single request.</p>"
    rows = [("Number", _e(document["about"]["name"])), ("Received", _when(case["received_at"]))]
    rows.append(("To be done by", "no deadline was set" if case["due_at"] is None else _when(case["due_at"])))
    rows.append(("Asked by", _said(case, case["requester"])))
    rows.append(("State", _state(case) + (", under a legal hold" if case["held"] else "")))
    listed = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in rows)
    text = (
        ""
        if case["text"] is None
        else f"<h3>In the words of the request</h3><blockquote>{_e(case['text'])}</blockquote>"
    )
    shown = "".join(
        f'<figure><img src="{inline_picture(data)}" alt="Picture {at} that was kept with the case"><figcaption>Picture {at}, kept '
        "with the case</figcaption></figure>"
        for at, data in enumerate(sent, 1)
    )
    note = (
        '<p class="soft">What people said is kept outside the record, so that it can be deleted; the record holds '
        "sealed fingerprints of it.</p>"
    )
    return f"<dl>{listed}</dl>{text}{shown}{note}"


def _state(case: Any) -> str:
    if case["state"] == "open":
        return "open"
    return "closed; what was said is deleted" if case["state"] == "forgotten" else f"closed {_when(case['closed_at'])}"


def _said(case: Any, value: str | None) -> str:
    if value is not None:
        return _e(value)
    if case["withheld"]:
        return "withheld from this report"
    return "deleted" if case["forgotten_at"] is not None else "not recorded"


def _done(document: Any) -> str:
    items = []
    for event in document["events"]:
        key = ' class="key"' if event["action"] in _KEY_ACTIONS and event["outcome"] != "begun" else ""
        reason = f" Reason given: “{_e(event['reason'])}”." if event["reason"] else ""
        bad = event["outcome"] in {"refused", "failed"}
        said = f'<span class="bad">{_e(event["said"])}</span>' if bad else _e(event["said"])
        items.append(
            f"<li{key}><strong>{_when(event['time'])}</strong>, {_e(event['actor'])}: {said}{reason}<br>"
            f"<small>Entry {event['index']} of the record ({_e(event['action'])}, {_e(event['outcome'])})</small></li>"
        )
    force = find_force(document)
    patches = "".join(
        f'<tr><th scope="row">{_e(", ".join(patch["concepts"]))}'
        f"{' <small>(computed anew, not asked for here)</small>' if patch.get('anew') else ''}</th>"
        f'<td data-label="becomes">{_e(patch["becomes"] or "nothing in particular")}</td>'
        f'<td data-label="made">{_when(patch["made_at"])}</td>'
        f'<td data-label="signed by">{_e(patch["signed_by"] or "nobody that is known here")}</td>'
        f'<td data-label="approved by">{_e(name_approvals(patch))}</td>'
        f'<td data-label="in force on">{_e(force[patch["id"]])}</td>'
        f'<td data-label="identity"><span class="digest">{patch["id"]}</span></td></tr>'
        for patch in document["patches"]
    )
    table = (
        '<h3>The changes</h3><table class="stack"><caption>Each change suppresses one thing and is signed. Others approve it where the operator’s rules ask for that.</caption><thead>'
        '<tr><th scope="col">Suppresses</th><th scope="col">Is drawn instead</th><th scope="col">Made</th>'
        f'<th scope="col">Signed by</th><th scope="col">Approved by</th><th scope="col">In force on</th><th scope="col">Identity</th></tr></thead><tbody>{patches}</tbody></table>'
    )
    return f'<ol class="line">{"".join(items)}</ol>{table if patches else ""}'


def _force(document: Any) -> str:
    if not document["places"]:
        return "<p>On no model that the record knows.</p>"
    items = []
    for place in document["places"]:
        changes = len(place["patches"])
        good = "good" if place["sight"] == "as written" else "bad" if place["sight"] in {"changed", "gone"} else "soft"
        number = "no change" if not changes else "1 change" if changes == 1 else f"{changes} changes"
        others = sum(strength != "1" for strength in place["patches"].values())
        number += f", {others} of them at another strength than 1," if others else ""
        since = "" if place["since"] is None else f", since {_when(place['since'])} (entry {place['entry']})"
        items.append(
            f"<li><strong>{_e(place['model'])}</strong>: {number} on the model “{_e(place['base'])}”{since}.<br>"
            f'<span class="{good}">{_e(_begin(SIGHTS[place["sight"]]))}.</span><br>'
            f'<small>Digest of the touched weights: <span class="digest">{place["state"]}</span></small></li>'
        )
    return f"<ul>{''.join(items)}</ul>"


def _together(document: Any, heat_map: bytes) -> str:
    found = document["interference"]
    if found is None:
        return (
            "<p>No more than one change is in force on any of these models: there is nothing that it could disturb.</p>"
        )
    if found["said"] is not None:
        return f"<p>They could not be compared: {_e(found['said'])}</p>"
    worst, limit = found["worst"], found["limit"]
    said = "Of none of the pairs can it be said how much one disturbs the other."
    if worst is not None:
        said = (
            f"Of all pairs, the change against “{_e(worst['disturbing'])}” disturbs that against "
            f"“{_e(worst['disturbed'])}” most: by {_share(worst['share'])} of its effect"
            + ("." if limit is None else f"; {float(limit):.1%} is allowed.")
        )
    picture = ""
    if heat_map:
        alt = f"Map of {len(found['names'])} changes against each other: rows disturb columns. {said}"
        picture = (
            f'<figure class="map"><img src="{inline_picture(heat_map)}" alt="{html.escape(html.unescape(alt))}"><figcaption>Each '
            "square is one change (row) and how much of another’s effect (column) it disturbs.</figcaption></figure>"
        )
    return f"<p>{len(found['names'])} changes are in force together. {said}</p>{picture}"
