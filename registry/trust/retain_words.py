"""Retain sets, kept as blobs: a patch names its own by digest, and whoever solves it anew needs the words.

The blob holds exactly the bytes that the digest is of: the concepts, each followed by a newline. It goes into the
store when a patch is made here. A patch that was pulled, or made by a program that did not keep them, comes without;
then the file that it was made from does as well, and its digest must be the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rasura.patches.errors import DigestMismatchError, NotFoundError, RetainSetError
from rasura.patches.format.protected_spec import RetainSpec
from rasura.patches.prompts.retain_set import RETAIN_LIMIT, RetainSet, load_retain_set
from rasura.registry.registry import Registry

__all__ = ["find_retained", "keep_retained"]


def keep_retained(registry: Registry, retain: RetainSet) -> None:
    """Store the words of a retain set; storing them again changes nothing.

    Raises:
        RegistryError: disk full, read-only, I/O error; nothing was changed.
    """
    registry.blobs.put(retain.text.encode(), retain.sha256)


def find_retained(
    registry: Registry,
    spec: RetainSpec,
    file: Path | None = None,
    *,
    column: str | None = None,
    names: Iterable[str] = (),
) -> RetainSet:
    """The retain set that a manifest names.

    Args:
        registry: whose store is asked where no file is given.
        spec: what the manifest says of it.
        file: the retain file, in place of the store.
        column: which column of that file, as for `load_retain_set`.
        names: the concepts that were erased; what names one was taken out of the file before its digest.

    Raises:
        NotFoundError: the store does not hold it.
        DigestMismatchError: the file holds another retain set, or the blob was changed.
        NotFoundError: the file is missing.
        RetainSetError: it is no retain file.
    """
    if file is not None:
        return _from_file(spec, load_retain_set(file, column), tuple(names))
    try:
        data = registry.blobs.read(spec.sha256, limit=RETAIN_LIMIT)
    except NotFoundError:
        raise NotFoundError(
            f"the retain set {spec.source} ({spec.count} concepts, {spec.sha256[:12]}) is not in this registry: "
            "expected its words, or the file they came from",
            hint="--retain FILE",
            retain_set=spec.sha256,
        ) from None
    return _set(spec, tuple(data.decode().split("\n")[:-1]))


def _from_file(spec: RetainSpec, loaded: RetainSet, names: tuple[str, ...]) -> RetainSet:
    if loaded.sha256 == spec.sha256:
        return _set(spec, loaded.concepts)
    try:
        left = loaded.without(names)
    except RetainSetError:  # nothing is left: not the file
        left = loaded
    if left.sha256 == spec.sha256:
        return _set(spec, left.concepts)
    raise DigestMismatchError(
        f"{loaded.source} is not the retain set of this patch: expected {spec.count} concepts of {spec.source} with "
        f"SHA-256 {spec.sha256[:12]}, got {len(left.concepts)} with {left.sha256[:12]}"
        + (f"; {spec.cut} of its texts were cut, and a file does not say which" if spec.cut else ""),
        hint="--retain FILE",
    )


def _set(spec: RetainSpec, concepts: tuple[str, ...]) -> RetainSet:
    # Lines that stood in no template are whole prompts, or as good as such.
    return RetainSet(spec.source, concepts, whole=spec.templates == ("{}",), cut=spec.cut)
