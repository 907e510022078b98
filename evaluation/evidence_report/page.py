"""The page: one HTML file, for a reader who knows nothing of tensors; no script, nothing from elsewhere.

It is a pure function of what was gathered. Between the markers of `signed_report` it holds nothing yet; the signed twin
is put there afterwards.
"""

from __future__ import annotations

import html
import shlex
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from rasura.evaluation.evidence_report.kept_pictures import inline
from rasura.evaluation.evidence_report.page_style import STYLE
from rasura.evaluation.evidence_report.plain_words import GROUPS, SIGHTS, WORDS, format_span
from rasura.evaluation.evidence_report.signed_report import END, START
from rasura.registry._storage.validation import from_instant

if TYPE_CHECKING:
    from rasura.evaluation.evidence_report.gather import Gathered
    from rasura.evaluation.evidence_report.kept_pictures import Pair

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
        "pictures": _pictures(document, gathered),
        "measured": _measured(document),
        "kept": _kept(document),
        "force": _force(document),
        "together": _together(document, gathered.heat_map),
        "limits": f"<ul>{''.join(f'<li>{_e(text)}</li>' for text in document['not_promised'])}</ul>",
        "verify": _verify(document),
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
            f'style="margin:0;padding:0;border:0">In short</h2>{_short(document)}</section>\n'
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


def _short(document: Any) -> str:
    lines = [*_short_case(document), *_short_measured(document), *_short_force(document)]
    lines.append("This is a <strong>measured suppression with known limits</strong>, not a deletion: section 8.")
    return f"<ul>{''.join(f'<li>{line}</li>' for line in lines)}</ul>"


def _short_case(document: Any) -> Iterator[str]:
    case = document["case"]
    concepts = _list_concepts(document)
    if case is None:
        yield f"Suppressed: <strong>{_e(concepts)}</strong>."
        return
    yield f"The request came {_when(case['received_at'])}."
    if case["acted"] is None:
        yield '<span class="bad">Nothing has come into force so far.</span>'
        return
    after = format_span(timedelta(seconds=case["seconds"]))
    due = case["due_at"]
    said = (
        ""
        if due is None
        else ', <span class="bad">after the deadline</span>'
        if case["late"]
        else (', <span class="good">before the deadline</span>')
    )
    yield f"{_e(_begin(after))} later a change that suppresses <strong>{_e(concepts)}</strong> came into force{said}."


def _short_measured(document: Any) -> Iterator[str]:
    if not document["evaluations"]:
        yield "Nobody has looked at pictures: <strong>what the change does was not measured</strong>."
        return
    newest = document["evaluations"][0]
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
    read = [place for place in document["places"] if place["sight"] == "as written" and place["patches"]]
    if read:
        names = ", ".join(f"“{place['model']}”" for place in read)
        yield f"It was found in force on {_e(names)} when this report was made: the weights were read back."
    else:
        yield "On no model was it found in force when this report was made."


def _list_concepts(document: Any) -> str:
    found = [concept for patch in document["patches"] for concept in patch["concepts"]]
    return ", ".join(f"“{each}”" for each in dict.fromkeys(found)) or "nothing"


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
        f'<figure><img src="{inline(data)}" alt="Picture {at} that was kept with the case"><figcaption>Picture {at}, kept '
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
    force = _find_force(document)
    patches = "".join(
        f'<tr><th scope="row">{_e(", ".join(patch["concepts"]))}</th>'
        f'<td data-label="becomes">{_e(patch["becomes"] or "nothing in particular")}</td>'
        f'<td data-label="made">{_when(patch["made_at"])}</td>'
        f'<td data-label="signed by">{_e(patch["signed_by"] or "nobody that is known here")}</td>'
        f'<td data-label="approved by">{_e(_name_approvals(patch))}</td>'
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


def _find_force(document: Any) -> dict[str, str]:
    """Where each change is in force; of one that another for the same has taken the place of, that."""
    places = {
        patch["id"]: ", ".join(place["model"] for place in document["places"] if patch["id"] in place["patches"])
        for patch in document["patches"]
    }
    present = [patch["concepts"] for patch in document["patches"] if places[patch["id"]]]
    return {
        patch["id"]: places[patch["id"]]
        or ("no model: another change for the same is" if patch["concepts"] in present else "no model")
        for patch in document["patches"]
    }


def _name_approvals(patch: Any) -> str:
    return ", ".join(each["name"] for each in patch["approved_by"]) or "nobody"


def _pictures(document: Any, gathered: Gathered) -> str:
    shown = [each for each in document["evaluations"] if each["digest"] in gathered.pictures]
    if not shown:
        looked = (
            "Pictures were drawn and judged, but none was kept for this report."
            if document["evaluations"]
            else (
                "<strong>Not looked at.</strong> No pictures were drawn with and without the change, so nobody can say from this "
                "report what it does."
            )
        )
        return f"<p>{looked}</p>"
    parts = [
        (
            "<p>Each pair was drawn from the same words and the same random start: on the left by the unchanged model, on the "
            "right with the changes. Below each stands what the judge took it for.</p>"
        )
    ]
    for each in shown:
        pairs = gathered.pictures[each["digest"]].pairs
        for group in GROUPS:
            chosen = [pair for pair in pairs if pair.group == group]
            if chosen:
                parts.append(f"<h3>Things {_e(GROUPS[group])}</h3>")
                parts.append(f'<ul class="pairs">{"".join(map(_pair, chosen))}</ul>')
    return "".join(parts)


def _pair(pair: Pair) -> str:
    def figure(when: str, data: bytes, seen: str) -> str:
        alt = f"{when}, the picture drawn for “{pair.prompt}”; the judge took it for “{seen}”"
        return (
            f'<figure><img src="{inline(data)}" alt="{_e(alt)}"><figcaption>{when}: “{_e(seen)}”</figcaption></figure>'
        )

    missed = pair.group == "forget" and pair.wanted != pair.seen_before
    note = "<small>It was not found before either: this pair says nothing of the change.</small>" if missed else ""
    return (
        f'<li><p style="margin-top:0">Asked for “{_e(pair.prompt)}”</p><div class="pair">'
        f"{figure('Before', pair.before, pair.seen_before)}{figure('After', pair.after, pair.seen_after)}</div>{note}</li>"
    )


def _measured(document: Any) -> str:
    if not document["evaluations"]:
        return "<p><strong>Nothing was measured.</strong> No evaluation is recorded.</p>"
    parts = []
    for each in document["evaluations"]:
        rows = [row for row in each["scores"] if row["group"] == "forget"]
        parts.append(
            f"<p>Recorded {_when(each['made_at'])}; judged by {_e(each['judge'])}. The thin line is the range in which the "
            "true share lies with about 95 % certainty, if only chance is at work.</p>"
        )
        parts += [
            f"<h3>Pictures that show “{_e(row['label'])}” when asked {_ask(row)}</h3>{_bars(row)}" for row in rows
        ]
        parts.append(_attacks(each["attacks"]))
    return "".join(parts)


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
        '<h3>Attacks</h3><table class="stack"><caption>Somebody with the model tried to bring it back.</caption><thead><tr>'
        '<th scope="col">What</th><th scope="col">Attack</th><th scope="col">On</th><th scope="col">Came back</th></tr>'
        f"</thead><tbody>{rows}</tbody></table>"
    )


def _kept(document: Any) -> str:
    if not document["evaluations"]:
        return "<p>Whether other things are still drawn as before <strong>was not measured</strong>.</p>"
    parts = ["<p>A change that suppresses one thing should leave all others. Of the pictures of other things:</p>"]
    for each in document["evaluations"]:
        rows = [row for row in each["scores"] if row["group"] != "forget"]
        for row in rows:
            head = f"{_e(_begin(str(row['axis'])))}s {_e(GROUPS[row['group']])}, asked {_ask(row)}: drawn right"
            parts.append(f"<h3>{head}</h3>{_bars(row)}")
        if not rows:
            parts.append("<p>This evaluation asked for nothing else.</p>")
    return "".join(parts)


def _force(document: Any) -> str:
    if not document["places"]:
        return "<p>On no model that the record knows.</p>"
    items = []
    for place in document["places"]:
        changes = len(place["patches"])
        good = "good" if place["sight"] == "as written" else "bad" if place["sight"] in {"changed", "gone"} else "soft"
        number = "no change" if not changes else "1 change" if changes == 1 else f"{changes} changes"
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
            f'<figure class="map"><img src="{inline(heat_map)}" alt="{html.escape(html.unescape(alt))}"><figcaption>Each '
            "square is one change (row) and how much of another’s effect (column) it disturbs.</figcaption></figure>"
        )
    return f"<p>{len(found['names'])} changes are in force together. {said}</p>{picture}"


def _verify(document: Any) -> str:
    log, files = document["log"], document["files"]
    page, twin = shlex.quote(files["page"]), shlex.quote(files["twin"])
    key = log["vkey"]
    steps = [
        (
            (
                "Get the record’s public key from the operator by another way than this file: a call, a letter, their web "
                "page. It must read:"
            ),
            key,
        ),
        (
            (
                "With rasura (pip install rasura): every character of the page, every event in section 2 against its sealed "
                "entry, and the pictures."
            ),
            "\n".join(f"rasura verify {name} \\\n  --vkey '{key}'" for name in (page, twin)),
        ),
        (
            (
                "Without rasura: take the entries out of the twin and check them with a script of a hundred lines that needs "
                "Python and the package “cryptography” (examples/verify_log.py in rasura’s sources)."
            ),
            (
                f"python3 -c \"import json; print(json.load(open({files['twin']!r}))['document']['log']['bundle'], end='')\" > entries.jsonl\n"
                f"python3 verify_log.py entries.jsonl '{key}'"
            ),
        ),
    ]
    steps += [
        (
            "A change, with the public tool of the OpenSSF (pip install model-signing), from whoever has the registry:",
            (
                f"rasura patch export {patch['id'][:12]} -o change\n"
                f"model_signing verify key change --public_key {patch['signed_by'] or 'SIGNER'}.pem --signature change/model.sig"
            ),
        )
        for patch in document["patches"][:1]
    ]
    steps += [
        (
            (
                "A model, against what the operator attests of it (rasura attest); nothing of the operator’s is needed but "
                "the files and the public key:"
            ),
            f"rasura verify --model {shlex.quote(place['model'])} \\\n  --attestation {shlex.quote(place['model'] + '.intoto.json')} --key SIGNER.pem \\\n  --vkey '{key}'",
        )
        for place in document["places"][:1]
    ]
    steps += [
        (
            (
                "The measurements, with every single answer of the judge: signed, from whoever has the registry, and checked "
                "with nothing but the public keys:"
            ),
            (
                f"rasura attest --evaluation {each['digest'][:12]} -o evaluation.intoto.json\n"
                f"rasura verify evaluation.intoto.json --key SIGNER.pem \\\n  --vkey '{key}'"
            ),
        )
        for each in document["evaluations"][:1]
    ]
    listed = "".join(f'<li>{_e(text)}<pre tabindex="0">{_e(command)}</pre></li>' for text, command in steps)
    return (
        f"<ol>{listed}</ol><p>The record had {log['size']} entries when this was made; its seal (root) was "
        f'<span class="digest">{log["root"]}</span>. Keep it: a record that was rewritten later has another.</p>'
    )


def _when(text: str) -> str:
    time = from_instant(text)
    return f'<time datetime="{text}">{time:%-d %B %Y, %H:%M} UTC</time>'


def _begin(text: str) -> str:
    """A text as the beginning of a sentence."""
    return text[:1].upper() + text[1:]


def _share(decimal: str) -> str:
    share = float(decimal)
    return "less than 0.1%" if 0 <= share < 0.001 else f"{share:.1%}"  # noqa: PLR2004


def _percent(decimal: str) -> str:
    return f"{float(decimal):.0%}"


def _e(text: object) -> str:
    """A text as HTML: markup is shown, and what turns the direction of reading is spelt out."""
    said = "".join(c if c.isprintable() or c in "\n\t" else f"\\u{ord(c):04x}" for c in str(text))
    return html.escape(said)
