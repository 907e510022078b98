"""Which patches of a commit are wanted: all, or those that a person named by id or concept."""

import re
import unicodedata
from collections.abc import Mapping, Sequence

from rasura.patches.errors import (
    AmbiguousIdError,
    FormatError,
    NotFoundError,
    VerificationError,
)
from rasura.patches.format.file_names import MANIFEST, SIGNATURE
from rasura.patches.format.manifest import MANIFEST_LIMIT, Manifest
from rasura.patches.types import SHORT
from rasura.registry.hub.pull_source import PinnedSource, open_patch
from rasura.registry.hub.refs import FOLDER

_SPOT = re.compile(rf"(?:(?P<folder>{FOLDER}/(?P<id>[0-9a-f]{{64}}))/)?{re.escape(SIGNATURE)}")
_ABBREVIATION = re.compile(r"[0-9a-f]{4,64}")
SHOWN = 8  # patches named in a message


def find_folders(source: PinnedSource) -> list[str]:
    """Where signatures lie."""
    matches = [match for match in map(_SPOT.fullmatch, sorted(source.listed)) if match]
    if len(matches) > source.limits.patches:
        limit = source.limits.patches
        raise FormatError(f"{source.pinned.repo}: expected at most {limit} patches, got {len(matches)}")
    return [match["folder"] or "" for match in matches]


def choose_patches(source: PinnedSource, folders: Sequence[str], only: Sequence[str]) -> None:
    """Open the patches that are wanted. The root has no id in its name, so it is looked into whatever is wanted."""
    begun = [each.lower() for each in only if _ABBREVIATION.fullmatch(each.lower())]
    for folder in folders:
        if not only or not folder or any(folder.startswith(f"{FOLDER}/{digits}") for digits in begun):
            open_patch(source, folder)
    if not only:
        return
    if any(not _beginning(source, each) for each in only):  # a concept, which only manifests tell
        for folder in folders:
            if folder not in source.opened and folder not in source.refused:
                open_patch(source, folder)
    wanted = {_only(source, each) for each in only}
    for found in (source.opened, source.refused):
        for folder in [folder for folder in found if folder not in wanted]:
            found.pop(folder)


def _beginning(source: PinnedSource, text: str) -> list[str]:
    """Folders of the patches whose ids begin so."""
    digits = text.lower()
    if not _ABBREVIATION.fullmatch(digits):
        return []
    named = {folder: patch.patch_id for folder, patch in source.opened.items()}
    named |= {folder: refused.patch_id or "" for folder, refused in source.refused.items()}
    return sorted(folder for folder, patch_id in named.items() if patch_id.startswith(digits))


def _only(source: PinnedSource, text: str) -> str:
    """The folder of the one patch that a person means.

    Raises:
        NotFoundError, AmbiguousIdError: none, or several.
    """
    manifests = {} if _beginning(source, text) else _manifests(source)
    found = _beginning(source, text) or _current(manifests, text)
    ids = {folder: patch.patch_id for folder, patch in source.opened.items()}
    ids |= {folder: refused.patch_id or "" for folder, refused in source.refused.items()}
    names = sorted({ids[folder] for folder in found})
    if len(names) > 1:
        listed = ", ".join(name[:SHORT] for name in names[:SHOWN])
        raise AmbiguousIdError(
            f"{source.pinned.repo}: {text[:120]!a} stands for {len(names)} patches: {listed}",
            hint=f"rasura pull {source.pinned.repo} {names[0][:SHORT]}",
            candidates=names,
        )
    if not found:
        concepts = sorted({manifest.concept.text for manifest in manifests.values()})
        known = f"; there are {', '.join(f'{c[:60]!a}' for c in concepts[:SHOWN])}" if concepts else ""
        raise NotFoundError(
            f"{source.pinned.repo}: expected the id, its first digits or the concept of a patch there, "
            f"got {text[:120]!a}{known}",
            hint=f"rasura pull {source.pinned.repo}",
        )
    return found[0]


def _manifests(source: PinnedSource) -> dict[str, Manifest]:
    """The manifest of every patch whose signature is believed, by folder; one that is not as signed is refused."""
    found: dict[str, Manifest] = {}
    for folder, patch in list(source.opened.items()):
        try:
            path = patch.where(MANIFEST)
            if source.listed[path].size > MANIFEST_LIMIT:
                raise FormatError(f"{source.name(path)}: expected at most {MANIFEST_LIMIT} bytes")
            found[folder] = Manifest.from_bytes(source.content(path, patch.digests[MANIFEST]))
        except KeyError:
            source.refuse(folder, patch.signature, FormatError(f"{source.name(folder)}: expected a {MANIFEST}"))
        except VerificationError as error:
            source.refuse(folder, patch.signature, error)
    return found


def _current(manifests: Mapping[str, Manifest], concept: str) -> list[str]:
    """The folders of the patches of a concept that no other patch there, of the same base, supersedes."""
    old = {(earlier, m.base.sha256) for m in manifests.values() for earlier in m.supersedes}
    named = [folder for folder, manifest in manifests.items() if _spelt(manifest.concept.text) == _spelt(concept)]
    return [f for f in named if (manifests[f].patch_id, manifests[f].base.sha256) not in old]


def _spelt(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
