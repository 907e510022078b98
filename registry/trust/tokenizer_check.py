"""Whether a model reads text as the patches' base did: the same ids for the same words.

Loading tokenizers takes seconds, and a motion has none to give. So what a folder's files turned out to be is remembered
by the digest of their bytes, beside the keys; files of other bytes are loaded and looked at. The tokenizers of a live
pipeline are loaded already; what each gave is remembered for as long as it lives and its vocabulary keeps its size.
"""

from __future__ import annotations

from collections.abc import Sequence, Sized
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast
from weakref import WeakKeyDictionary

from rasura.patches._io import canonical_json
from rasura.patches._io.sha256 import digest_of
from rasura.patches.errors import BaseMismatchError
from rasura.patches.format.member import Member
from rasura.patches.hosts.interface import Host
from rasura.patches.models.families import encoders_of, find_family
from rasura.patches.models.text_encoders.tokenizer_reading import say_reading
from rasura.patches.types import SHORT, Digest
from rasura.registry._storage.files.durable_files import read_own_file, write_atomic
from rasura.registry.registry import Registry

if TYPE_CHECKING:
    from rasura.patches.models.text_encoders.clip_or_t5 import Tower

__all__ = ["check_tokenizer", "remember_tokenizer"]

_MEMORY: Final = "tokenizers"
_FORM: Final = "reading 1"
"""Of the identity; what another form gave is not remembered."""
_LIMIT: Final = 1 << 20
_FILE_LIMIT: Final = 1 << 27
_LIVE: Final[WeakKeyDictionary[Any, tuple[tuple[tuple[int, int], ...], Digest]]] = WeakKeyDictionary()
"""What live tokenizers were found to be, by the first of them: each with its size, and the digest of all."""


def check_tokenizer(registry: Registry, host: Host, stack: Sequence[Member]) -> None:
    """Refuse a model whose tokenizers give other ids than those that the patches were computed with.

    A single file, a folder without tokenizers and a live module without its pipeline cannot be asked.

    Raises:
        BaseMismatchError: naming what its tokenizers do otherwise.
        UnsupportedHostError: they cannot be loaded, or say two things at once.
    """
    folder = host.model_folder()
    if folder is None and stack:
        _check_live(host, stack)
    if folder is None or not stack or (raw := _raw_digest(host, folder)) is None:
        return
    known = _known(registry).get(raw)
    wrong = [m for m in stack if m.patch.manifest.base.tokenizer != known]
    if not wrong:
        return
    # Needs torch and the tokenizers' library; files that were looked at before need neither.
    from rasura.patches.models.text_encoders.load_encoder import load_readers
    from rasura.patches.models.text_encoders.text_encoder import tokenizer_state

    towers = load_readers(folder, find_family(host.parameters()))
    found = digest_of(canonical_json.dumps(tokenizer_state(towers)))
    _remember(registry, raw, found)
    _refuse_other(str(folder), stack, found, towers, hint=f"rasura base add {folder} --name NEW")


def _check_live(host: Host, stack: Sequence[Member]) -> None:
    parts, family = host.pipeline_parts(), find_family(host.parameters())
    kinds = encoders_of(family)
    tokenizers = [_unwrap(parts.get(kind.tokenizer)) for kind in kinds]
    if any(tokenizer is None for tokenizer in tokenizers):
        return
    seen = tuple((id(tokenizer), len(cast("Sized", tokenizer))) for tokenizer in tokenizers)
    known = _LIVE.get(tokenizers[0])
    expected = {member.patch.manifest.base.tokenizer for member in stack}
    if known is not None and known[0] == seen and expected == {known[1]}:
        return
    # As above; who has a live pipeline has both.
    from rasura.patches.models.text_encoders.load_encoder import take_readers
    from rasura.patches.models.text_encoders.text_encoder import tokenizer_state

    towers = take_readers(parts, kinds)
    if towers is None:
        return
    found = digest_of(canonical_json.dumps(tokenizer_state(towers)))
    _LIVE[tokenizers[0]] = seen, found
    _refuse_other(host.location, stack, found, towers, hint="rasura.attach(pipe)")


def _unwrap(part: object) -> object:
    """A tokenizer; of a processor of text and pictures (FLUX.2's, Qwen-Image 2.1's) the one that lies in it."""
    return part if hasattr(part, "__len__") else getattr(part, "tokenizer", part)


def _refuse_other(where: str, stack: Sequence[Member], found: Digest, towers: Sequence[Tower], *, hint: str) -> None:
    for member in stack:
        if (expected := member.patch.manifest.base.tokenizer) != found:
            odd = "; ".join(f"{t.kind.tokenizer}: {say_reading(t.reading())}" for t in towers if t.reading())
            raise BaseMismatchError(
                f"{where}: reads text otherwise than the base of patch {member.patch_id[:SHORT]}, whose words would "
                f"not be found: expected the tokenizer {expected[:SHORT]}, got {found[:SHORT]}{odd and f' ({odd})'}",
                hint=hint,
                tokenizer=found,
            )


def remember_tokenizer(registry: Registry, host: Host, tokenizer: Digest) -> None:
    """Note what a folder's tokenizers were found to be, so that the next motion need not load them."""
    if (folder := host.model_folder()) is not None and (raw := _raw_digest(host, folder)) is not None:
        _remember(registry, raw, tokenizer)


def _raw_digest(host: Host, folder: Path) -> Digest | None:
    """Digest of the bytes of everything that decides what the tokenizers are; None where one is missing."""
    family = find_family(host.parameters())
    encoders = encoders_of(family)
    files: dict[str, canonical_json.JsonValue] = {"": _FORM}
    for encoder in encoders:
        if not (folder / encoder.tokenizer).is_dir():
            return None
        paths = [path for path in (folder / encoder.tokenizer).iterdir() if path.is_file()]
        for path in (*paths, folder / encoder.component / "config.json"):
            if path.is_file():
                with path.open("rb") as file:  # Hub caches link to their files
                    files[path.relative_to(folder).as_posix()] = digest_of(file.read(_FILE_LIMIT))
    return digest_of(canonical_json.dumps(files))


def _known(registry: Registry) -> dict[str, str]:
    path = registry.keys_folder / _MEMORY
    if not path.exists():
        return {}
    lines = read_own_file(path, limit=_LIMIT, what=str(path)).decode("ascii", "replace").splitlines()
    return {raw: found for raw, _, found in (line.partition(" ") for line in lines)}


def _remember(registry: Registry, raw: Digest, found: Digest) -> None:
    known = _known(registry)
    if known.get(raw) != found:
        lines = [f"{key} {value}" for key, value in [*known.items(), (raw, found)][-1000:]]
        write_atomic(registry.keys_folder / _MEMORY, "".join(f"{line}\n" for line in lines).encode(), mode=0o600)
