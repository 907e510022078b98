"""What the log says, in sentences for somebody who has never seen a model's weights."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from rasura.patches.algebra.strength import SIXTEENTHS, Strength
from rasura.registry.apply.hosts.host_state import STRENGTH

if TYPE_CHECKING:
    from rasura.registry._storage.records.records import EntryRecord

__all__ = [
    "GROUPS",
    "NOT_PROMISED",
    "SIGHTS",
    "WORDS",
    "describe_entry",
    "find_force",
    "name_approvals",
    "say_span",
]

GROUPS: Final = {
    "forget": "asked to be suppressed",
    "retain": "named as to be kept",
    "held_out": "not named when the change was made",
}

SIGHTS: Final = {
    "as written": "its touched weights were read back for this report, and are those that the registry wrote",
    "changed": "its weights were read back for this report, and are NOT those that the registry wrote",
    "recorded": "nobody read it back for this report",
    "unreadable": "it could not be read back for this report",
    "gone": "nothing lies there any more",
    "live": "it is or was in a running program, which no command can read back",
}

_DID: Final = {
    ("case.open", "success"): "A request was received, and a case was opened for it.",
    ("case.add", "success"): "Pictures were kept with the case.",
    ("case.close", "success"): "The case was closed.",
    ("case.reopen", "success"): "The case was opened again.",
    ("case.hold", "success"): "A legal hold was put on the case: what was said in it cannot be deleted.",
    ("case.release", "success"): "The legal hold was taken off.",
    ("case.forget", "success"): "Who asked and what they wrote was deleted.",
    ("base.add", "success"): "The unchanged model was measured, so that changes to it can be told.",
    ("key.add", "success"): "A key to sign with was registered.",
    ("patch.erase", "success"): "A change of the model that suppresses {what} was computed and signed.",
    ("patch.adopt", "success"): "A change that another program made to suppress {what} was taken over and signed.",
    ("patch.rebase", "success"): "The change that suppresses {what} was computed anew, beside others, and signed.",
    ("patch.apply", "begun"): "Putting the suppression of {what} into force{where} was begun.",
    (
        "patch.apply",
        "done",
    ): "The suppression of {what} came into force{where}: the model's weights were written and read back.",
    ("patch.switch", "begun"): "Moving the model to another set of changes{where} was begun.",
    ("patch.switch", "done"): "The new set of changes came into force{where}: weights were written and read back.",
    ("patch.revert", "begun"): "Taking the suppression of {what} out of force{where} was begun.",
    (
        "patch.revert",
        "done",
    ): "The suppression of {what} was taken out of force{where}: the model's weights were written and read back.",
    ("patch.retire", "success"): "The change that suppresses {what} was retired: it is not to be used any more.",
    ("patch.sign", "success"): "The change that suppresses {what} got a further signature.",
    ("patch.approve", "success"): "The change that suppresses {what} was approved: it may be put into force.",
    ("plan.approve", "success"): "A plan of what was to be changed was approved.",
    ("trust.set", "success"): "Who may sign and who must approve was laid down.",
    ("policy.set", "success"): "The limits that changes must keep were laid down.",
    ("patch.push", "success"): "The signed change was published.",
    (
        "evaluation.add",
        "success",
    ): "Pictures were drawn with and without the suppression of {what}, and judged; the result was recorded.",
    ("stack.create", "success"): "A named set of changes was made.",
    ("stack.add", "success"): "It was put into the named set of changes that models follow.",
    ("stack.set", "success"): "The named set of changes that models follow was changed.",
    ("stack.remove", "success"): "It was taken out of the named set of changes.",
    ("stack.update", "success"): "The named set of changes took newer versions of its changes.",
    ("takedown.cover", "success"): "{what} was found to be suppressed already by another change.",
}
_DID_AT: Final = {
    ("patch.apply", "begun"): "Putting in the change for {what} at strength {strength}{where} was begun.",
    ("patch.apply", "done"): (
        "The change for {what} was put in at strength {strength}{where}, not at 1, at which it suppresses: the model's "
        "weights were written and read back."
    ),
}
"""The same of a change at another strength than 1."""
_ENDED: Final = {"refused": "was refused", "failed": "failed", "begun": "was begun", "done": "was done"}

NOT_PROMISED: Final = (
    (
        "Nothing was deleted from what the model has learnt. The changes suppress what it draws when it is asked in words, as far as "
        "this report measured it; how far they do where nothing was measured, it does not say. Whoever holds the model's files can "
        "take them out again."
    ),
    (
        "Other words, other languages, pictures as a starting point, further training, or an attack that nobody tried may still "
        "bring it back. What was tried is listed under “What was measured”; nothing else was."
    ),
    (
        "The numbers are of the pictures that were drawn and of the judge that looked at them, a program that errs. The ranges "
        "say how far chance alone may have moved them."
    ),
    (
        "Only the models that are listed are spoken of, at the times that are given. Copies elsewhere, and models made from "
        "these, are not."
    ),
    (
        "The record proves who said what and in which order, and that it was not changed since. It does not prove that what was "
        "said is true: whoever controlled the machine when an entry was written could have it say what they liked."
    ),
    "This is no legal opinion, and no statement that a law is complied with.",
)

WORDS: Final = {
    "model": "the program that draws pictures from words; it consists of numbers, its weights",
    "change (patch)": "a small file of numbers that, added to the weights, suppresses one thing; signed, and exactly removable",
    "in force": "a change is part of the weights that a model draws with",
    "entry": "one line of the record: who did what, when and why; it cannot be altered later without that showing",
    "record (log)": "all entries in order, sealed after each one with a signature",
    "digest": "64 characters that are computed from a file; another file has others",
    "judge": "a program that says what a picture shows",
    "range": "if the same were measured many times over, about 95 of 100 such ranges would hold the true share",
}


def describe_entry(entry: EntryRecord, concepts: str, place: str) -> str:
    """What an entry says, as a sentence.

    Args:
        entry: the entry.
        concepts: what its patches suppress; "" where they are not known.
        place: the model that it is about; "" where it is about none.
    """
    step, sixteenths = (entry.action, entry.outcome), int(entry.details.get(STRENGTH, SIXTEENTHS))
    sentence = _DID.get(step) if sixteenths == SIXTEENTHS else _DID_AT.get(step, _DID.get(step))
    where = f" on the model “{place}”" if place else ""
    if sentence is None:
        return f"The step “{entry.action}”{where} {_ENDED.get(entry.outcome, 'was done')}."
    what = f"“{concepts}”" if concepts else "something"
    said = sentence.format(what=what, where=where, strength=Strength(sixteenths))
    return said[:1].upper() + said[1:]


def say_span(span: timedelta) -> str:
    """A span of time as people say it."""
    minutes = int(span.total_seconds()) // 60
    hours, days = minutes // 60, minutes // 1440
    if days >= 2:  # noqa: PLR2004
        return f"{days} days {hours % 24} hours"
    if hours:
        return f"{hours} hours {minutes % 60} minutes"
    if minutes == 0:
        return "less than a minute"
    return f"{minutes} minutes" if minutes != 1 else "1 minute"


def find_force(document: Any) -> dict[str, str]:
    """Where each change is in force; of one that another for the same has taken the place of, that."""
    places = {
        patch["id"]: ", ".join(
            place["model"] + ("" if strength == "1" else f" (at strength {strength})")
            for place in document["places"]
            if (strength := place["patches"].get(patch["id"])) is not None
        )
        for patch in document["patches"]
    }
    present = [patch["concepts"] for patch in document["patches"] if places[patch["id"]]]
    return {
        patch["id"]: places[patch["id"]]
        or ("no model: another change for the same is" if patch["concepts"] in present else "no model")
        for patch in document["patches"]
    }


def name_approvals(patch: Any) -> str:
    """Who approved a change."""
    return ", ".join(each["name"] for each in patch["approved_by"]) or "nobody"
