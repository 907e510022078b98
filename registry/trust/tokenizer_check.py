"""Whether a model folder reads text as the patches' base did: the same ids for the same words.

Loading tokenizers takes seconds, and a motion has none to give. So what a folder's files turned out to be is remembered
by the digest of their bytes, beside the keys; files of other bytes are loaded and looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rasura.patches._io import canonical_json
from rasura.patches._io.sha256 import digest_of
from rasura.patches.errors import BaseMismatchError
from rasura.patches.format.member import Member
from rasura.patches.hosts.interface import Host
from rasura.patches.models.families import CLIP, find_family
from rasura.patches.models.text_encoder import load_readers, state_of
from rasura.patches.models.tokenizer_reading import say_reading
from rasura.patches.types import SHORT, Digest
from rasura.registry._storage.durable_files import read_regular, write_atomic
from rasura.registry.registry import Registry

__all__ = ["check_tokenizer", "remember_tokenizer"]

_MEMORY: Final = "tokenizers"
_FORM: Final = "reading 1"
"""Of the identity; what another form gave is not remembered."""
_LIMIT: Final = 1 << 20
_FILE_LIMIT: Final = 1 << 27


def check_tokenizer(registry: Registry, host: Host, stack: Sequence[Member]) -> None:
    """Refuse a folder whose tokenizers give other ids than those that the patches were computed with.

    A live model, a single file, or a folder without tokenizers cannot be asked.

    Raises:
        BaseMismatchError: naming what its tokenizers do otherwise.
        UnsupportedHostError: they cannot be loaded, or say two things at once.
    """
    folder = host.model_folder()
    if folder is None or not stack or (raw := _raw_digest(host, folder)) is None:
        return
    known = _known(registry).get(raw)
    wrong = [m for m in stack if m.patch.manifest.base.tokenizer != known]
    if not wrong:
        return
    towers = load_readers(folder, find_family(host.parameters()))
    found = digest_of(canonical_json.dumps(state_of(towers)))
    _remember(registry, raw, found)
    for member in stack:
        if (expected := member.patch.manifest.base.tokenizer) != found:
            odd = "; ".join(f"{t.kind.tokenizer}: {say_reading(t.reading())}" for t in towers if t.reading())
            raise BaseMismatchError(
                f"{folder}: reads text otherwise than the base of patch {member.patch_id[:SHORT]}, whose words would "
                f"not be found: expected the tokenizer {expected[:SHORT]}, got {found[:SHORT]}{odd and f' ({odd})'}",
                hint=f"rasura base add {folder} --name NEW",
                tokenizer=found,
            )


def remember_tokenizer(registry: Registry, host: Host, tokenizer: Digest) -> None:
    """Note what a folder's tokenizers were found to be, so that the next motion need not load them."""
    if (folder := host.model_folder()) is not None and (raw := _raw_digest(host, folder)) is not None:
        _remember(registry, raw, tokenizer)


def _raw_digest(host: Host, folder: Path) -> Digest | None:
    """Digest of the bytes of everything that decides what the tokenizers are; None where one is missing."""
    family = find_family(host.parameters())
    encoders = [CLIP] if family is None else [encoder for part in family.sequence for encoder in part]
    files: dict[str, canonical_json.JsonValue] = {"": _FORM}
    for encoder in encoders:
        if not (folder / encoder.tokenizer).is_dir():
            return None
        paths = [path for path in (folder / encoder.tokenizer).iterdir() if path.is_file()]
        for path in (*paths, folder / encoder.component / "config.json"):
            if path.is_file():
                files[path.relative_to(folder).as_posix()] = digest_of(_bytes(path))
    return digest_of(canonical_json.dumps(files))


def _bytes(path: Path) -> bytes:
    with path.open("rb") as file:  # Hub caches link to their files
        return file.read(_FILE_LIMIT)


def _known(registry: Registry) -> dict[str, str]:
    path = registry.keys_folder / _MEMORY
    if not path.exists():
        return {}
    lines = read_regular(path, limit=_LIMIT, what=str(path)).decode("ascii", "replace").splitlines()
    return {raw: found for raw, _, found in (line.partition(" ") for line in lines)}


def _remember(registry: Registry, raw: Digest, found: Digest) -> None:
    known = _known(registry)
    if known.get(raw) != found:
        lines = [f"{key} {value}" for key, value in [*known.items(), (raw, found)][-1000:]]
        write_atomic(registry.keys_folder / _MEMORY, "".join(f"{line}\n" for line in lines).encode(), mode=0o600)
