"""A bundle has one encoding, any program unpacks it, and every other byte, name or shape is refused."""

import io
import struct
import zipfile

import pytest

from rasura.patches._io.sha256 import digest_of
from rasura.patches.errors import DigestMismatchError, FormatError, VerificationError
from rasura.patches.format import bundle_file
from rasura.patches.format.bundle_file import BundleFiles, decode_bundle, encode_bundle
from rasura.patches.types import Digest, KeyId, PatchId

P, K = PatchId("a" * 64), KeyId("b" * 64)
REPORT = b'{"a":1}'


def small() -> BundleFiles:
    return BundleFiles(
        {P: {"manifest.json": b"{}", "model.sig": b"sig", "basis.safetensors": b""}},
        {K: b"-----BEGIN"},
        {K: "alice"},
        b"lock\n",
        {Digest(digest_of(REPORT)): REPORT},
    )


DATA = encode_bundle(small())


def test_it_comes_back_as_it_was() -> None:
    found = decode_bundle(DATA, "bundle")
    assert found.patches == small().patches
    assert (found.keys, found.key_names, found.lock, found.evaluations) == (
        {K: b"-----BEGIN"},
        {K: "alice"},
        b"lock\n",
        small().evaluations,
    )
    assert encode_bundle(found) == DATA


def test_any_program_unpacks_it() -> None:
    with zipfile.ZipFile(io.BytesIO(DATA)) as archive:
        assert archive.testzip() is None
        assert archive.read(f"patches/{P}/manifest.json") == b"{}"
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        assert [info.filename for info in archive.infolist()] == sorted(archive.namelist())


@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
def test_no_byte_may_differ(mask: int) -> None:
    for at in range(len(DATA)):
        changed = DATA[:at] + bytes([DATA[at] ^ mask]) + DATA[at + 1 :]
        with pytest.raises(VerificationError):
            decode_bundle(changed, "bundle")


def test_no_byte_may_lack_or_be_too_much() -> None:
    for at in range(len(DATA)):
        with pytest.raises(FormatError):
            decode_bundle(DATA[:at], "bundle")
    for odd in (DATA + b"\0", b"\0" + DATA, DATA + DATA, b""):
        with pytest.raises(FormatError):
            decode_bundle(odd, "bundle")


def zipped(names: dict[str, bytes], **how: int) -> bytes:
    """An archive by Python's own hand."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", how.get("compression", zipfile.ZIP_STORED)) as archive:
        for name, data in names.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "/etc/passwd",
        f"patches/{P}/../../evil",
        f"patches/{P}/other.bin",
        "patches/short/manifest.json",
        "keys/alice.pem",
        "C:\\evil",
        "rasura.lock/",
        "",
    ],
)
def test_names_lead_nowhere_else(name: str) -> None:
    with pytest.raises(FormatError, match="names of a bundle"):
        decode_bundle(zipped({name: b"x"}), "bundle")


def test_a_bomb_is_not_unpacked() -> None:
    bomb = zipped({"rasura.lock": bytes(10**6)}, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(FormatError):
        decode_bundle(bomb, "bundle")
    lies = bytearray(DATA)
    struct.pack_into("<I", lies, 18, 0xFFFFFFFF)  # a size that the file has not
    with pytest.raises(FormatError):
        decode_bundle(bytes(lies), "bundle")


def test_the_inventory_names_everything_as_it_is() -> None:
    files = {
        name: zipfile.ZipFile(io.BytesIO(DATA)).read(name) for name in zipfile.ZipFile(io.BytesIO(DATA)).namelist()
    }

    swapped = files | {f"patches/{P}/manifest.json": b"[]"}
    with pytest.raises(DigestMismatchError, match=r"manifest\.json"):
        decode_bundle(bundle_file._archive(swapped), "bundle")
    more = files | {f"patches/{P}/targets.safetensors": b""}
    with pytest.raises(FormatError, match="exactly the files"):
        decode_bundle(bundle_file._archive(more), "bundle")
    with pytest.raises(FormatError, match=r"a bundle\.json"):
        decode_bundle(bundle_file._archive({n: d for n, d in files.items() if n != "bundle.json"}), "bundle")


def test_a_report_stands_under_its_own_digest() -> None:
    wrong = encode_bundle(BundleFiles({P: {"manifest.json": b"{}"}}, {}, {}, None, {Digest("c" * 64): REPORT}))
    with pytest.raises(FormatError, match="own SHA-256"):
        decode_bundle(wrong, "bundle")
