"""Sentences for what does not hold: the pair, the number, the limit, and the command that resolves it."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import assert_never

from rasura.patches.checks.kernels.footprint import proves
from rasura.patches.checks.relations import Relations
from rasura.patches.checks.verdict import SHORT, CheckName, Reason, Relation
from rasura.patches.format.member import Member
from rasura.patches.models.text_encoders.plain_text import normal
from rasura.patches.plain_numbers import say_number, say_over
from rasura.patches.types import PatchId


def structure(stack: Sequence[Member], *, separable: bool = False) -> Iterator[Reason]:
    """What makes a set of patches no stack at all, whatever they do."""
    ids = [member.patch_id for member in stack]
    for patch_id in sorted(i for i, times in Counter(ids).items() if times > 1):
        yield Reason(
            f"patch {patch_id[:SHORT]} stands twice in the stack", f"rasura patch check {join_short(set(ids))}"
        )
    yield from _missing(stack, set(ids))
    yield from _versions(stack)
    yield from _one_base(stack)
    if separable:
        yield from _not_separable(stack)


def reason(relation: Relation, relations: Relations) -> Reason:
    """Why a relation that does not hold stands in the way."""
    members = {member.patch_id: member for member in relations.stack}
    concepts = {i: member.patch.manifest.concept.text for i, member in members.items()}
    number = say_over(relation.value, relation.limit)
    p, q = (f"{i[:SHORT]} ({concepts[i]})" for i in (relation.patch, relation.other))
    match relation.check:
        case CheckName.OWN:
            again = suggest_erase([concepts[relation.patch]])
            return Reason(f"patch {p} breaks its own promise: it leaks {number} on its protected set", again)
        case CheckName.PAIR:
            return Reason(f"patch {p} disturbs patch {q}: {number} of its effect", _resolving(relation, relations))
        case CheckName.STACK:
            most = _most(relation, relations)
            text = f"the stack leaks {number} on the protected set of patch {q}; most of it patch {most}"
            return Reason(text, suggest_erase(concepts.values()))
        case CheckName.RESIDUAL:
            text = f"the stack leaves up to {number} of what patch {q} erases"
            return Reason(text, suggest_erase(concepts.values()))
        case CheckName.CAPACITY:
            text = f"the stack takes {number} of the text embedding's dimensions"
            return Reason(text, f"rasura patch join {join_short(members)}")
        case CheckName.BOUND:
            weaker = f"rasura patch apply {join_short(members)} --model MODEL --strength 0.5"
            return Reason(f"the stack may reach {number}: float64 would round", weaker)
        case CheckName.SITE | CheckName.MOVED_OWN | CheckName.MOVED_PAIR | CheckName.MOVED_STACK:
            raise AssertionError(relation.check)  # `explain_encoder_effect` tells of these
        case CheckName.ONE_SIDED | CheckName.KEPT | CheckName.LOST | CheckName.LEFT:
            raise AssertionError(relation.check)  # shown, never refused: their limit lies where no value does
        case _:
            assert_never(relation.check)


def explain_encoder_effect(relation: Relation, stack: Sequence[Member]) -> Reason:
    """Why a number that was measured behind the patched text encoder stands in the way."""
    concepts = {member.patch_id: member.patch.manifest.concept.text for member in stack}
    number = say_over(relation.value, relation.limit)
    p, q = (f"{i[:SHORT]} ({concepts[i]})" for i in (relation.patch, relation.other))
    apart = suggest_erase([concepts[relation.other]]) + " --method clip-null-space"
    match relation.check:
        case CheckName.SITE:
            text = f"patches of the text encoder, {p} the last, undo {number} of what patch {q} erases"
            return Reason(text, suggest_rebase(relation.patch, [relation.other]))
        case CheckName.MOVED_PAIR:
            text = f"behind the patched text encoder, patch {p} disturbs patch {q}: {number} of its effect"
            return Reason(text, apart)
        case CheckName.MOVED_OWN | CheckName.MOVED_STACK:
            what = "the stack" if relation.check is CheckName.MOVED_STACK else f"patch {p}"
            text = f"behind the patched text encoder, {what} leaks {number} more on what patch {q} retains"
            return Reason(text, apart)
        case CheckName.OWN | CheckName.PAIR | CheckName.STACK | CheckName.RESIDUAL | CheckName.CAPACITY:
            raise AssertionError(relation.check)  # never measured there
        case CheckName.ONE_SIDED | CheckName.KEPT | CheckName.BOUND | CheckName.LOST | CheckName.LEFT:
            raise AssertionError(relation.check)
        case _:
            assert_never(relation.check)


def moves(broken: Iterable[Relation]) -> tuple[tuple[PatchId, tuple[PatchId, ...]], ...]:
    """Which patches to solve anew, and what each must protect, so that no pair is disturbed."""
    found: dict[PatchId, set[PatchId]] = {}
    for relation in broken:
        found.setdefault(relation.patch, set()).add(relation.other)
    return tuple((patch_id, tuple(sorted(others))) for patch_id, others in sorted(found.items()))


def suggest_rebase(patch: PatchId, others: Iterable[PatchId]) -> str:
    """The command that solves a patch anew with others protected."""
    protected = " ".join(f"--protect {i[:SHORT]}" for i in sorted(others))
    return f"rasura patch rebase {patch[:SHORT]} {protected}"


def suggest_erase(concepts: Iterable[str]) -> str:
    """The command that solves these together; each once."""
    named = " ".join(f"--concept {shlex.quote(concept)}" for concept in dict.fromkeys(concepts))
    return f"rasura erase --base MODEL {named} --retain FILE"


def join_short(ids: Iterable[PatchId]) -> str:
    """Abbreviated ids, sorted."""
    return " ".join(sorted(i[:SHORT] for i in ids))


def _resolving(relation: Relation, relations: Relations) -> str:
    p, q = relations.places[relation.patch], relations.places[relation.other]
    one, other = (relations.stack[place].patch.manifest for place in (p, q))
    if not proves(relations.stack[p].patch):
        return suggest_erase([one.concept.text, other.concept.text])
    if proves(relations.stack[q].patch) and relations.share(q, p) > relations.policy.pair:
        return f"rasura patch rebase {join_short([relation.patch, relation.other])}"
    return suggest_rebase(relation.patch, [relation.other])


def _most(relation: Relation, relations: Relations) -> str:
    """The patch that leaks the most on a promise by itself."""
    shares = relations.contributions(relations.places[relation.other])
    place = max(range(len(shares)), key=shares.__getitem__)
    member = relations.stack[place]
    return f"{member.patch_id[:SHORT]} ({member.patch.manifest.concept.text}), {say_number(shares[place])} alone"


def _missing(stack: Sequence[Member], ids: set[PatchId]) -> Iterator[Reason]:
    for member in stack:
        for needed in member.patch.manifest.requires:
            if needed not in ids:
                yield Reason(
                    f"patch {member.patch_id[:SHORT]} requires patch {needed[:SHORT]}, which is not in the stack",
                    f"rasura patch apply {needed[:SHORT]} {member.patch_id[:SHORT]} --model MODEL",
                )


def _versions(stack: Sequence[Member]) -> Iterator[Reason]:
    """Two patches that erase one concept in the same parameters, or of which one supersedes the other."""
    seen: dict[tuple[str, str], Member] = {}
    by_id = {member.patch_id: member for member in stack}
    said: set[frozenset[PatchId]] = set()
    for member in stack:
        manifest = member.patch.manifest
        earlier = [by_id[i] for i in manifest.supersedes if i in by_id]
        for name in member.patch.arrays.increments:
            first = seen.setdefault((normal(manifest.concept.text), name), member)
            earlier += [first] if first.patch_id != member.patch_id else []
        for other in earlier:
            pair = frozenset({member.patch_id, other.patch_id})
            if pair not in said:
                said.add(pair)
                yield _version(other, member)


def _version(first: Member, second: Member) -> Reason:
    older, newer = (first, second) if first.patch_id in second.patch.manifest.supersedes else (second, first)
    return Reason(
        f"patches {first.patch_id[:SHORT]} and {second.patch_id[:SHORT]} are two versions of one concept, "
        f"{second.patch.manifest.concept.text!r}: expected one of them",
        f"rasura patch revert {older.patch_id[:SHORT]} --model MODEL"
        if older is first
        else f"rasura patch show {newer.patch_id[:SHORT]}",
    )


def _one_base(stack: Sequence[Member]) -> Iterator[Reason]:
    seen: dict[str, tuple[str, PatchId]] = {}
    for member in stack:
        base = member.patch.manifest.base
        parts = {"the text encoder": base.text_encoder, "the tokenizer": base.tokenizer}
        for name, sha256 in [*parts.items(), *((p.name, p.sha256) for p in base.parameters)]:
            digest, first = seen.setdefault(name, (sha256, member.patch_id))
            if digest != sha256:
                yield Reason(
                    f"patches {first[:SHORT]} and {member.patch_id[:SHORT]} were computed on different bases: "
                    f"{name} is {digest[:SHORT]}… for one, {sha256[:SHORT]}… for the other",
                    "rasura patch list",
                )
                return


def _not_separable(stack: Sequence[Member]) -> Iterator[Reason]:
    for member in stack:
        manifest = member.patch.manifest
        if not proves(member.patch):
            yield Reason(
                f"patch {member.patch_id[:SHORT]} is not separable: what it does to other prompts is measured, not "
                "proved, and the policy asks for proof",
                f"rasura erase --base MODEL --concept {shlex.quote(manifest.concept.text)} --method null-space",
            )
