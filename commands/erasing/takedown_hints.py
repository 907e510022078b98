"""What to type next where a takedown or an erasure stopped: the command as it was typed, with what was wrong mended."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rasura.commands._shared.retyping import retype
from rasura.patches.errors import RasuraError
from rasura.patches.models.text_encoders.plain_text import normal

if TYPE_CHECKING:
    from rasura.registry.registry import Registry

__all__ = ["mending_concepts", "mending_takedown"]

_IN_FILE: Final = ("--concept", "--anchor", "--also-called", "--template", "rasura takedown", "rasura erase")
"""How hints begin that change what stands in a request file."""
_ROOM: Final = 24  # bytes of the longest template that a shortened concept must fit in, besides the one that was seen


@contextmanager
def mending_takedown(registry: "Registry", model: Path | None, typed: Mapping[str, Any]) -> Iterator[None]:
    """Where something stands in the way of a takedown, each hint is a command that this program takes.

    Raises:
        RasuraError: the same.
    """
    try:
        yield
    except RasuraError as error:
        for each in (error, *error.others):
            each.hint = _mend(each, registry, model, typed)
        raise


def _mend(error: RasuraError, registry: "Registry", model: Path | None, typed: Mapping[str, Any]) -> str:
    if typed["request_file"] is not None:
        if error.hint.endswith("--retain FILE") and typed["retain"] is None:
            return retype(retain=("FILE",))
        return retype(dry_run=(True,), yes=()) if error.hint.startswith(_IN_FILE) else error.hint
    match error.details:
        case {"method": str(), "training": True}:
            return _train(registry, model, typed)
        case {"seen": dict(shown)}:
            return _try_anchor(typed["concepts"], typed["anchors"], shown)
    return _mend_concepts(error, typed)


@contextmanager
def mending_concepts(typed: Mapping[str, Any]) -> Iterator[None]:
    """The same of an erasure: a concept that is named twice, or has no room.

    Raises:
        RasuraError: the same.
    """
    try:
        yield
    except RasuraError as error:
        for each in (error, *error.others):
            each.hint = _mend_concepts(each, typed)
        raise


def _mend_concepts(error: RasuraError, typed: Mapping[str, Any]) -> str:
    """The command with each concept once, or with a shorter one; else the hint that there is."""
    concepts = typed["concepts"]
    match error.details:
        case {"repeated": [*_]}:
            return _name_once(typed)
        case {"prompt": str(prompt), "most": int(most)}:
            for place, concept in enumerate(concepts):
                short = _shorten(concept, most - 2 - _ROOM - len(prompt.encode()) + len(concept.encode()))
                if concept in prompt and short != concept:
                    return retype(concepts=[*concepts[:place], short, *concepts[place + 1 :]])
            return retype(template_files=()) if typed["template_files"] else error.hint
    return error.hint


def _try_anchor(concepts: Sequence[str], anchors: Sequence[str], shown: Mapping[str, Any]) -> str:
    """What to try where concepts are still seen: another anchor; where the nearest was taken, the plan without it."""
    own = [*anchors] if len(anchors) == len(concepts) else [*(anchors or ["auto"])[:1]] * len(concepts)
    mended = ["auto" if concept in shown else anchor for concept, anchor in zip(concepts, own, strict=True)]
    return retype(dry_run=(True,), yes=()) if mended == own else retype(anchors=mended)


def _name_once(typed: Mapping[str, Any]) -> str:
    """The command with each concept once, and what belongs to it; an anchor that is erased itself gives way."""
    from rasura.patches.prompts.retain_set import naming

    concepts = typed["concepts"]
    places: dict[str, int] = {}
    for place, concept in enumerate(concepts):
        places.setdefault(normal(concept), place)
    kept = sorted(places.values())

    def own(name: str) -> list[Any]:
        given = typed.get(name) or ()
        return [given[place] for place in kept] if len(given) == len(concepts) > 1 else [*given]

    anchors = own("anchors")
    if len(anchors) == len(kept):
        others = [naming(concepts[b] for b in kept if b != a) for a in kept]
        anchors = ["auto" if erased(anchor) else anchor for erased, anchor in zip(others, anchors, strict=True)]
    elif anchors and naming(concepts[place] for place in kept)(anchors[0]):
        anchors = ["auto"]
    names = [text for text in typed["names"] if normal(text.rpartition("=")[2]) not in places]
    names = list({normal(text.rpartition("=")[2]): text for text in reversed(names)}.values())[::-1]
    changed = {"concepts": [concepts[place] for place in kept], "anchors": anchors, "names": names}
    return retype(**changed, name_files=own("name_files"), template_files=own("template_files"))


def _shorten(concept: str, room: int) -> str:
    """As many of its first words as fit in so many bytes: a token is a byte at least; of one long word, a part."""
    most = max(8, room)
    if len(concept.encode()) <= most:
        return concept
    cut = concept.encode()[:most].decode(errors="ignore")
    return cut.rpartition(" ")[0].rstrip() or cut


def _train(registry: "Registry", model: Path | None, typed: Mapping[str, Any]) -> str:
    """The command that erases the same by a method which no takedown can solve anew."""
    host = None if model is None else registry.find_host(str(model.absolute()))
    names = {base.digest: base.name for base in registry.bases()}
    base = str(model) if host is None else names.get(host.base, str(model))
    options = (
        ("--concept", "concepts"),
        ("--anchor", "anchors"),
        ("--also-called", "names"),
        ("--names", "name_files"),
        ("--templates", "template_files"),
        ("--retain", "retain"),
        ("--retain-column", "retain_column"),
        ("--method", "method"),
        ("--set", "settings"),
        ("--seed", "seed"),
        ("--layers", "layers"),
        ("--tokens", "tokens"),
        ("--rank-rule", "rank_rule"),
    )
    words = ["rasura", "erase", "--base", base]
    for option, name in options:
        value = typed[name]
        for item in value if isinstance(value, tuple) else () if value is None else (value,):
            words += [option, str(item)]
    return shlex.join(words)
