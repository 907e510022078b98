"""What a model card speaks of: bases, patches, and which of them took whose place."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from rasura.patches.errors import InputError
from rasura.patches.types import Digest, PatchId
from rasura.registry.hub.card.families import FamilyFacts, facts_of

MODEL = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?", re.ASCII)
ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class BaseFacts:
    """A base, as the card speaks of it.

    Attributes:
        digest: identity of its weights.
        name: in words.
        family: a name of `rasura.registry.hub.card.families`, or "" where it is not known.
        model: its id on the Hub, or "" when nobody has said one.
    """

    digest: Digest
    name: str
    family: str = ""
    model: str = ""

    def __post_init__(self) -> None:
        if not ID.fullmatch(self.digest):
            raise InputError(f"expected a base's SHA-256, got {self.digest[:80]!a}")
        if self.model and not MODEL.fullmatch(self.model):
            raise InputError(f"expected a base model's Hub id such as org/name, got {self.model!r}")

    @property
    def loads(self) -> FamilyFacts:
        """What programs load of it."""
        return facts_of(self.family)


@dataclass(frozen=True, slots=True)
class PatchFacts:
    """A line of the card's table.

    Attributes:
        patch_id: SHA-256 of the patch's manifest.
        concepts: what it suppresses, as a person wrote it.
        method: name of the eraser.
        base: the base that it was computed on.
        anchor: what the concepts become, or "".
        path: folder in the repository; "" is its root. `push` fills it in.
        licence: as signed in its manifest, or "".
        supersedes: the patches that it takes the place of.
        successor: a patch that takes its place, as the registry knows, or None; those of the repository count anyway.
        comfyui: its file for ComfyUI in the repository, or ""; current patches alone have one.
        retired: whether who pushed it, or knows it, has retired it.
    """

    patch_id: PatchId
    concepts: tuple[str, ...]
    method: str
    base: BaseFacts
    anchor: str = ""
    path: str = ""
    licence: str = ""
    supersedes: tuple[PatchId, ...] = ()
    successor: PatchId | None = None
    comfyui: str = ""
    retired: bool = False


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What the card says.

    Attributes:
        tool_version: version of rasura that writes the card.
        patches: the patches that are pushed.
        license: the licence that was asked for, or None; `rasura.registry.hub.card.licences` says what counts then.
        later: for patches that the registry has a successor of, such a one; those of the repository are told so, too.
        retired: for every patch that the registry holds, whether it is retired.
    """

    tool_version: str
    patches: tuple[PatchFacts, ...]
    license: str | None = None
    later: Mapping[PatchId, PatchId] = field(default_factory=dict)
    retired: Mapping[PatchId, bool] = field(default_factory=dict)


def find_superseded(patches: Sequence[PatchFacts]) -> dict[PatchId, PatchId]:
    """The patches of which a successor is known, each with one; of those in the card, the one that is current.

    A patch and its successors in a circle supersede nothing: somebody made that up.
    """
    later: dict[PatchId, PatchId] = {p.patch_id: p.successor for p in patches if p.successor}
    later |= {old: patch.patch_id for patch in patches for old in patch.supersedes if old != patch.patch_id}
    here = {patch.patch_id for patch in patches}
    return {old: new for old in later if old in here and (new := _last(old, later)) is not None}


def list_current(patches: Sequence[PatchFacts]) -> list[PatchFacts]:
    """Those that are to be loaded: neither retired nor superseded."""
    after = find_superseded(patches)
    return [patch for patch in patches if patch.patch_id not in after and not patch.retired]


def _last(start: PatchId, later: Mapping[PatchId, PatchId]) -> PatchId | None:
    seen, at = {start}, start
    while at in later:
        at = later[at]
        if at in seen:
            return None
        seen.add(at)
    return at


def list_bases(patches: Iterable[PatchFacts]) -> list[BaseFacts]:
    """Each base once, in the order of its patches."""
    return list(dict.fromkeys(patch.base for patch in patches))
