"""A bundle: patches, the public keys of their signers, a lock and evaluations in one file for somebody else.

    bundle.json                      inventory: format, SHA-256 of every other file, the sender's names of the keys
    patches/<PatchId>/<file>         each patch's folder, as `patch export` writes it, further signatures among it
    keys/<KeyId>.pem                 public keys
    rasura.lock                      at most one lock of a stack
    evaluations/<digest>.json        evaluation reports

The file is a ZIP archive that any program unpacks, in the one encoding that is read here: entries stored, in order of
their names, no extra fields, dates, comments or gaps. It is not parsed as other readers do it, from a directory at the
end: local headers are walked from the first byte, and the archive that `encode_bundle` makes of what was found must be
the file, byte for byte. So no two readers see different contents, nothing is unpacked that could grow, and names are
only those above: none leads anywhere else.

Nothing in a bundle is believed: an inventory names bytes, it vouches for nobody. Patches carry their own signatures.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from rasura.patches._io import canonical_json
from rasura.patches._io.json_fields import Fields, JsonValue
from rasura.patches._io.sha256 import digest_of
from rasura.patches.errors import DigestMismatchError, FormatError
from rasura.patches.format.file_names import BASIS, FURTHER, MANIFEST, SIGNATURE, TARGETS, WEIGHTS
from rasura.patches.types import Digest, KeyId, PatchId

__all__ = ["BUNDLE_LIMIT", "FORMAT", "LOCK", "BundleFiles", "decode_bundle", "encode_bundle"]

FORMAT: Final = "rasura-bundle/1"
FORMAT_2: Final = "rasura-bundle/2"
"""Of a bundle with further signatures: a file has the lowest number that can say what is in it."""
INVENTORY: Final = "bundle.json"
LOCK: Final = "rasura.lock"
BUNDLE_LIMIT: Final = 2**30
"""Most bytes of a bundle, which is read into memory whole."""
MAX_FILES: Final = 20_000
_INVENTORY_LIMIT: Final = 8 * 2**20
_PATCH: Final = "|".join(re.escape(name) for name in (BASIS, MANIFEST, SIGNATURE, TARGETS, WEIGHTS))
_NAME: Final = re.compile(
    rf"(?:bundle\.json|rasura\.lock|keys/[0-9a-f]{{64}}\.pem|evaluations/[0-9a-f]{{64}}\.json"
    rf"|patches/[0-9a-f]{{64}}/(?:{_PATCH}|{FURTHER.pattern}))"
)
_LOCAL: Final = struct.Struct("<4s5H3I2H")
_CENTRAL: Final = struct.Struct("<4s6H3I5H2I")
_END: Final = struct.Struct("<4s4H2IH")
_VERSION: Final = 20
_UNIX: Final = 3 << 8
_DATE: Final = 33  # 1 January 1980, the first day there is
_MODE: Final = 0o100644 << 16
_AGAIN: Final = "ask for the bundle again: rasura bundle make ID -o FILE"


@dataclass(frozen=True, slots=True, eq=False)
class BundleFiles:
    """What is in a bundle, read but not believed.

    Attributes:
        patches: the files of each patch.
        keys: PEM bytes of public keys.
        key_names: what the sender calls them.
        lock: bytes of a lock file, or None.
        evaluations: bytes of evaluation reports, each under its SHA-256.
    """

    patches: Mapping[PatchId, Mapping[str, bytes]]
    keys: Mapping[KeyId, bytes]
    key_names: Mapping[KeyId, str]
    lock: bytes | None = None
    evaluations: Mapping[Digest, bytes] | None = None


def encode_bundle(bundle: BundleFiles) -> bytes:
    """The one file of these contents.

    Raises:
        FormatError: too many or too large for one file.
    """
    return _archive(_files(bundle))


def decode_bundle(data: bytes, what: str) -> BundleFiles:
    """The contents of these very bytes; the only inverse of `encode_bundle`.

    Args:
        data: the whole file.
        what: what it is, for messages.

    Raises:
        FormatError: anything but the one encoding of a bundle, within its limits.
        DigestMismatchError: a file is not what the inventory names.
    """
    files = _entries(data, what)
    if _archive(files) != data:
        raise _bad(what, "the layout that rasura writes, to the last byte", "another")
    names = _check_inventory(files, what)
    patches: dict[PatchId, dict[str, bytes]] = {}
    keys: dict[KeyId, bytes] = {}
    evaluations: dict[Digest, bytes] = {}
    for name, content in files.items():
        room, _, rest = name.partition("/")
        match room:
            case "patches":
                patch_id, _, file = rest.partition("/")
                patches.setdefault(PatchId(patch_id), {})[file] = content
            case "keys":
                keys[KeyId(rest.removesuffix(".pem"))] = content
            case "evaluations":
                evaluations[Digest(rest.removesuffix(".json"))] = content
            case _:
                pass  # the inventory and the lock
    return BundleFiles(patches, keys, names, files.get(LOCK), evaluations)


def _files(bundle: BundleFiles) -> dict[str, bytes]:
    files = {f"patches/{i}/{name}": data for i, patch in bundle.patches.items() for name, data in patch.items()}
    files |= {f"keys/{key_id}.pem": pem for key_id, pem in bundle.keys.items()}
    files |= {f"evaluations/{digest}.json": data for digest, data in (bundle.evaluations or {}).items()}
    files |= {} if bundle.lock is None else {LOCK: bundle.lock}
    digests: dict[str, JsonValue] = {name: digest_of(data) for name, data in files.items()}
    names: dict[str, JsonValue] = {str(key_id): name for key_id, name in bundle.key_names.items()}
    inventory = canonical_json.dumps({"format": _format(files), "files": digests, "keys": names})
    return {**files, INVENTORY: inventory}


def _format(files: Iterable[str]) -> str:
    return FORMAT_2 if any(FURTHER.fullmatch(name.rpartition("/")[2]) for name in files) else FORMAT


def _check_inventory(files: Mapping[str, bytes], what: str) -> dict[KeyId, str]:
    """The sender's names of the keys, if the inventory names every file as it is."""
    if INVENTORY not in files:
        raise _bad(what, f"a {INVENTORY}", "none")
    where = f"{what}: {INVENTORY}"
    fields = Fields.of(canonical_json.loads(files[INVENTORY], what=where, limit=_INVENTORY_LIMIT), where)
    expected = _format(files)
    if (found := fields.text("format")) != expected:
        raise FormatError(f"{where}: expected format {expected!r}, got {found!r}", hint="pip install --upgrade rasura")
    named, keys = fields.fields("files"), fields.fields("keys")
    digests = {name: named.digest(name) for name in named.names()}
    names = {KeyId(key_id): keys.text(key_id, limit=64) for key_id in keys.names()}
    fields.done()
    if digests.keys() != files.keys() - {INVENTORY}:
        raise _bad(where, "exactly the files of the bundle", "other names")
    for name, digest in digests.items():
        if digest_of(files[name]) != digest:
            raise DigestMismatchError(f"{what}: {name}: expected what {INVENTORY} names, got other bytes", hint=_AGAIN)
    if {f"keys/{key_id}.pem" for key_id in names} != {name for name in files if name.startswith("keys/")}:
        raise _bad(where, "a name for every key", "other keys")
    for name in files:
        room, _, rest = name.partition("/")
        if room == "evaluations" and f"{digest_of(files[name])}.json" != rest:
            raise _bad(f"{what}: {name}", "a report under its own SHA-256", "another")
    return names


def _entries(data: bytes, what: str) -> dict[str, bytes]:
    """Every entry, from local header to local header; what is not one ends the walk."""
    if len(data) > BUNDLE_LIMIT:
        raise _bad(what, f"at most {BUNDLE_LIMIT} bytes", str(len(data)))
    found: dict[str, bytes] = {}
    at = 0
    while data[at : at + 4] == b"PK\x03\x04":
        if at + _LOCAL.size > len(data) or len(found) == MAX_FILES:
            raise _bad(what, f"whole entries, at most {MAX_FILES}", "more or less")
        *_, size, _, name_size, _ = _LOCAL.unpack_from(data, at)
        at += _LOCAL.size
        name = data[at : at + name_size].decode("ascii", errors="replace")
        at += name_size
        if not _NAME.fullmatch(name) or name in found:
            raise _bad(what, "the names of a bundle's files, each once", ascii(name[:80]))
        if at + size > len(data):
            raise _bad(what, f"{size} bytes of {name}", str(len(data) - at))
        found[name] = data[at : at + size]
        at += size
    if not found:
        raise _bad(what, "a bundle", "no archive of files")
    return found


def _archive(files: Mapping[str, bytes]) -> bytes:
    """The ZIP archive of these files."""
    if len(files) > MAX_FILES or sum(map(len, files.values())) + 200 * len(files) > BUNDLE_LIMIT:
        raise FormatError(
            f"a bundle holds at most {MAX_FILES} files and {BUNDLE_LIMIT} bytes, got {len(files)} and "
            f"{sum(map(len, files.values()))}",
            hint="rasura bundle make ID -o FILE, with fewer patches in each",
        )
    local: list[bytes] = []
    central: list[bytes] = []
    at = 0
    for name in sorted(files):
        content, spelled = files[name], name.encode()
        sums = (zlib.crc32(content), len(content), len(content))
        header = _LOCAL.pack(b"PK\x03\x04", _VERSION, 0, 0, 0, _DATE, *sums, len(spelled), 0)
        local += [header, spelled, content]
        central += [
            _CENTRAL.pack(
                b"PK\x01\x02", _UNIX | _VERSION, _VERSION, 0, 0, 0, _DATE, *sums, len(spelled), 0, 0, 0, 0, _MODE, at
            ),
            spelled,
        ]
        at += len(header) + len(spelled) + len(content)
    size = sum(map(len, central))
    end = _END.pack(b"PK\x05\x06", 0, 0, len(files), len(files), size, at, 0)
    return b"".join([*local, *central, end])


def _bad(what: str, expected: str, got: str) -> FormatError:
    return FormatError(f"{what}: expected {expected}, got {got}", hint=_AGAIN)
