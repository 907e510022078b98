"""`model.sig`: accepted by the stock tool, and nothing accepted that was not signed."""

import base64
import copy
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from hypothesis import given, settings
from hypothesis import strategies as st

from rasura.patches.errors import (
    DigestMismatchError,
    FormatError,
    SignatureError,
    UntrustedKeyError,
    VerificationError,
)
from rasura.patches.format.signatures.model_signature import (
    PrivateKey,
    PublicKey,
    Statement,
    check_files,
    read_statement,
    sign,
    verify,
)

VECTORS = Path(__file__).parents[3] / "vectors"

# The private number of DSSE's own test vector (protocol.md, "Test Vectors"); public, hence good for nothing but tests.
DSSE_NUMBER = 97358161215184420915383655311931858321456579547487070936769975997791359926199
DSSE_KEY = ec.derive_private_key(DSSE_NUMBER, ec.SECP256R1())
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551

KEY = PrivateKey.load(
    DSSE_KEY.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
)
OTHER_KEY = PrivateKey.generate()
FILES = {
    "manifest.json": b'{"format":1}',
    "pytorch_lora_weights.safetensors": b"\x02\0\0\0\0\0\0\0{}",
    "basis.safetensors": b"\x02\0\0\0\0\0\0\0{}",
}
STATEMENT = "application/vnd.in-toto+json"


def envelope_bytes(payload: bytes, kind: str = STATEMENT) -> bytes:
    """DSSE's pre-authentication encoding, written out a second time so as not to trust the first."""
    return b"DSSEv1 %d %s %d %s" % (len(kind.encode()), kind.encode(), len(payload), payload)


def bundle_of(payload: bytes, key: PrivateKey = KEY, kind: str = STATEMENT) -> dict[str, Any]:
    """A bundle whose signature is good, whatever the payload says."""
    return {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {"publicKey": {"hint": key.public.hint}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": kind,
            "signatures": [{"sig": base64.b64encode(key.sign(envelope_bytes(payload, kind))).decode(), "keyid": ""}],
        },
    }


def statement_of(files: dict[str, bytes]) -> dict[str, Any]:
    digests = {name: hashlib.sha256(files[name]) for name in sorted(files)}
    root = hashlib.sha256(b"".join(digest.digest() for digest in digests.values())).hexdigest()
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "patch", "digest": {"sha256": root}}],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": ["model.sig", ".git", ".gitattributes", ".github", ".gitignore"],
            },
            "resources": [
                {"name": name, "algorithm": "sha256", "digest": digest.hexdigest()} for name, digest in digests.items()
            ],
        },
    }


def seal(statement: Any) -> bytes:
    return json.dumps(bundle_of(json.dumps(statement).encode())).encode()


def bundle() -> dict[str, Any]:
    return bundle_of(json.dumps(statement_of(FILES)).encode())


def put(where: str, value: Any) -> Callable[[Any], None]:
    """Sets the value at a path such as `predicate.resources.0.name`."""

    def change(document: Any) -> None:
        *parents, last = where.split(".")
        for step in parents:
            document = document[int(step) if step.isdigit() else step]
        document[int(last) if last.isdigit() else last] = value

    return change


def drop(where: str) -> Callable[[Any], None]:
    def change(document: Any) -> None:
        *parents, last = where.split(".")
        for step in parents:
            document = document[int(step) if step.isdigit() else step]
        del document[int(last) if last.isdigit() else last]

    return change


# Vectors and oracles


def test_the_vector_of_the_dsse_specification() -> None:
    message = envelope_bytes(b"hello world", "http://example.com/HelloWorld")
    assert message == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    r, s = decode_dss_signature(KEY.sign(message))
    assert base64.b64encode(r.to_bytes(32) + s.to_bytes(32)) == (
        b"A3JqsQGtVsJ2O2xqrI5IcnXip5GToJ3F+FnZ+O88SjtR6rDAajabZKciJTfUiHqJPcIAriEGAHTVeCUjW2JIZA=="
    )


def test_the_golden_bundle_is_written_and_read() -> None:
    golden = (VECTORS / "model.sig").read_bytes()
    assert sign(FILES, name="patch", key=KEY) == golden
    assert sign(dict(reversed(FILES.items())), name="patch", key=KEY) == golden
    assert verify({**FILES, "model.sig": golden}, [KEY.public]) == Statement(
        key_id=KEY.public.key_id,
        root=statement_of(FILES)["subject"][0]["digest"]["sha256"],
        files={name: hashlib.sha256(FILES[name]).hexdigest() for name in sorted(FILES)},  # type: ignore[misc]
    )


def test_the_golden_bundle_of_the_stock_tool_is_read() -> None:
    """Written by `model_signing sign key` 1.1.1 with the same key over the same files."""
    stock = (VECTORS / "model_signing-1.1.1.sig").read_bytes()
    assert (
        verify({**FILES, "model.sig": stock}, [KEY.public]).root
        == verify({**FILES, "model.sig": sign(FILES, name="another name", key=KEY)}, [KEY.public]).root
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A signed patch as it lies on disk, and its public key beside it."""
    path = tmp_path / "patch"
    path.mkdir()
    for name, data in FILES.items():
        (path / name).write_bytes(data)
    (path / "model.sig").write_bytes(sign(FILES, name="patch", key=KEY))
    (tmp_path / "key.pub").write_text(KEY.public.pem)
    return path


def stock(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "model_signing", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def stock_verify(folder: Path) -> subprocess.CompletedProcess[str]:
    return stock(
        "verify", "key", folder, "--public_key", folder.parent / "key.pub", "--signature", folder / "model.sig"
    )


def test_the_stock_command_accepts_ours_and_refuses_changes(folder: Path) -> None:
    done = stock_verify(folder)
    assert done.returncode == 0, done.stderr
    (folder / ".gitattributes").write_text("* -text")  # Hugging Face adds one to every repository
    shutil.copytree(folder, folder.parent / "renamed")
    assert stock_verify(folder.parent / "renamed").returncode == 0
    (folder / "manifest.json").write_bytes(b'{"format":2}')
    assert stock_verify(folder).returncode != 0


def test_the_stock_library_accepts_ours_and_refuses_changes(folder: Path) -> None:
    """Unlike its command, the library leaves no signature file out of itself: ours says that it must."""
    from model_signing import verifying

    config = verifying.Config().use_elliptic_key_verifier(public_key=folder.parent / "key.pub")
    config.verify(folder, folder / "model.sig")
    (folder / "extra.bin").touch()
    with pytest.raises(ValueError, match="extra"):
        config.verify(folder, folder / "model.sig")


def test_we_accept_the_stock_command(folder: Path) -> None:
    (folder / "model.sig").unlink()
    key = folder.parent / "key.pem"
    key.write_bytes(KEY.pem())
    done = stock("sign", "key", folder, "--private_key", key, "--signature", folder / "model.sig")
    assert done.returncode == 0, done.stderr
    found = verify({path.name: path.read_bytes() for path in folder.iterdir()}, [OTHER_KEY.public, KEY.public])
    assert set(found.files) == set(FILES)
    assert found.key_id == KEY.public.key_id


# What must not verify


def test_every_flipped_bit_of_the_bundle_is_refused() -> None:
    data = sign(FILES, name="patch", key=KEY)
    for index in range(len(data)):
        for bit in (1, 32):
            changed = data[:index] + bytes([data[index] ^ bit]) + data[index + 1 :]
            with pytest.raises((SignatureError, UntrustedKeyError)):
                read_statement(changed, [KEY.public])


def test_every_flipped_byte_of_every_file_is_refused() -> None:
    statement = read_statement(sign(FILES, name="patch", key=KEY), [KEY.public])
    check_files(statement, FILES)
    for name, data in FILES.items():
        for index in range(len(data)):
            changed = data[:index] + bytes([data[index] ^ 1]) + data[index + 1 :]
            with pytest.raises(DigestMismatchError, match=f"^{name}: expected sha256 "):
                check_files(statement, {**FILES, name: changed})


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_bytes_at_random_are_refused(data: bytes) -> None:
    with pytest.raises(SignatureError):
        read_statement(data, [KEY.public])


BAD_BUNDLES: dict[str, Callable[[Any], None]] = {
    "old media type": put("mediaType", "application/vnd.dev.sigstore.bundle+json;version=0.2"),
    "no media type": drop("mediaType"),
    "unknown field": put("extra", 1),
    "empty hint": put("verificationMaterial.publicKey.hint", ""),
    "no hint": drop("verificationMaterial.publicKey.hint"),
    "null hint": put("verificationMaterial.publicKey.hint", None),
    "upper-case hint": put("verificationMaterial.publicKey.hint", KEY.public.hint.upper()),
    "key beside the hint": put("verificationMaterial.publicKey.rawBytes", "MA=="),
    "envelope with a field more": put("dsseEnvelope.extra", 1),
    "no key": drop("verificationMaterial.publicKey"),
    "certificate in the key's place": put(
        "verificationMaterial", {"x509CertificateChain": {"certificates": [{"rawBytes": "MA=="}]}, "tlogEntries": []}
    ),
    "certificate beside the key": put("verificationMaterial.certificate", {"rawBytes": "MA=="}),
    "log entries": put("verificationMaterial.tlogEntries", [{}]),
    "no log entries": drop("verificationMaterial.tlogEntries"),
    "message signature": put("messageSignature", {}),
    "no signature": put("dsseEnvelope.signatures", []),
    "extra signature": lambda b: b["dsseEnvelope"]["signatures"].append({"sig": "MA==", "keyid": ""}),
    "bogus signature first": lambda b: b["dsseEnvelope"]["signatures"].insert(0, {"sig": "MA==", "keyid": ""}),
    "the same signature twice": lambda b: b["dsseEnvelope"]["signatures"].append(b["dsseEnvelope"]["signatures"][0]),
    "signature without bytes": put("dsseEnvelope.signatures.0.sig", ""),
    "signature no DER": put("dsseEnvelope.signatures.0.sig", base64.b64encode(bytes(64)).decode()),
    "signature of zeros": put("dsseEnvelope.signatures.0.sig", base64.b64encode(encode_dss_signature(0, 0)).decode()),
    "signature with a key's name": put("dsseEnvelope.signatures.0.keyid", KEY.public.hint),
    "signature with a field more": put("dsseEnvelope.signatures.0.cert", ""),
    "payload type of an attestation": put("dsseEnvelope.payloadType", "application/vnd.dsse+json"),
    "payload type in upper case": put("dsseEnvelope.payloadType", STATEMENT.upper()),
    "payload of another patch": put(
        "dsseEnvelope.payload", base64.b64encode(json.dumps(statement_of({"a": b""})).encode()).decode()
    ),
    "payload no base64": put("dsseEnvelope.payload", "e30"),
    "payload in url-safe base64": put("dsseEnvelope.payload", "_-8="),
    "payload with a newline": lambda b: put("dsseEnvelope.payload", b["dsseEnvelope"]["payload"] + "\n")(b),
    "payload with unused bits": put("dsseEnvelope.payload", "e31="),
    "payload null": put("dsseEnvelope.payload", None),
    "hint of another key": put("verificationMaterial.publicKey.hint", OTHER_KEY.public.hint),
}
"""Changes to a good bundle, each of which must keep it from verifying."""


@pytest.mark.parametrize("name", BAD_BUNDLES)
def test_bad_bundles_are_refused(name: str) -> None:
    keys = [KEY.public, OTHER_KEY.public]
    document = bundle()
    read_statement(json.dumps(document).encode(), keys)
    BAD_BUNDLES[name](document)
    with pytest.raises(SignatureError, match=r"expected .+, got "):
        read_statement(json.dumps(document).encode(), keys)


DIGEST = hashlib.sha256(b"").hexdigest()

BAD_STATEMENTS: dict[str, Callable[[Any], None]] = {
    "older statement": put("_type", "https://in-toto.io/Statement/v0.1"),
    "older predicate": put("predicateType", "https://model_signing/Digests/v0.1"),
    "another attestation": put("predicateType", "https://slsa.dev/provenance/v1"),
    "unknown field": put("extra", 1),
    "unknown field in the predicate": put("predicate.extra", 1),
    "no subject": put("subject", []),
    "two subjects": lambda s: s["subject"].append(s["subject"][0]),
    "subject without name": drop("subject.0.name"),
    "subject with a field more": put("subject.0.uri", "https://example.com"),
    "subject with another digest too": put("subject.0.digest.sha512", "0" * 128),
    "root of other files": put("subject.0.digest.sha256", DIGEST),
    "no files": lambda s: (
        put("predicate.resources", [])(s),
        put("subject.0.digest.sha256", DIGEST)(s),
    )[0],
    "file twice": lambda s: s["predicate"]["resources"].insert(0, s["predicate"]["resources"][0]),
    "files out of order": lambda s: s["predicate"]["resources"].reverse(),
    "one file fewer": drop("predicate.resources.0"),
    "name upwards": put("predicate.resources.0.name", "../basis.safetensors"),
    "name absolute": put("predicate.resources.0.name", "/basis.safetensors"),
    "name in a folder": put("predicate.resources.0.name", "a/basis.safetensors"),
    "name of a hidden file": put("predicate.resources.0.name", ".gitattributes"),
    "name in upper case": put("predicate.resources.0.name", "Basis.safetensors"),
    "name from home": put("predicate.resources.0.name", "~"),
    "name with a nul": put("predicate.resources.0.name", "basis\0"),
    "name with a newline": put("predicate.resources.0.name", "basis\n"),
    "name empty": put("predicate.resources.0.name", ""),
    "name of 101 characters": put("predicate.resources.0.name", "a" * 101),
    "name of the signature": put("predicate.resources.2.name", "model.sig"),
    "file without digest": drop("predicate.resources.0.digest"),
    "file with a field more": put("predicate.resources.0.size", 1),
    "other algorithm": put("predicate.resources.0.algorithm", "blake2b"),
    "digest in upper case": put("predicate.resources.0.digest", "AB" * 32),
    "shards": put("predicate.serialization.method", "shards"),
    "other hash": put("predicate.serialization.hash_type", "blake3"),
    "links allowed": put("predicate.serialization.allow_symlinks", value=True),
    "links allowed as text": put("predicate.serialization.allow_symlinks", "false"),
    "links not mentioned": drop("predicate.serialization.allow_symlinks"),
    "weights ignored": lambda s: s["predicate"]["serialization"]["ignore_paths"].append("pytorch_model.bin"),
    "everything ignored": put("predicate.serialization.ignore_paths", ["."]),
    "ignored path no text": put("predicate.serialization.ignore_paths", [1]),
    "ignored paths null": put("predicate.serialization.ignore_paths", None),
    "shard size": put("predicate.serialization.shard_size", 1),
    "no serialization": drop("predicate.serialization"),
}
"""Statements that a trusted key did sign, and that are still no signature of a patch."""


@pytest.mark.parametrize("name", BAD_STATEMENTS)
def test_bad_statements_are_refused_though_signed(name: str) -> None:
    statement = statement_of(FILES)
    read_statement(seal(statement), [KEY.public])
    BAD_STATEMENTS[name](statement)
    with pytest.raises(SignatureError, match=r"expected .+, got ") as caught:
        read_statement(seal(statement), [KEY.public])
    assert caught.value.details["key_id"] == KEY.public.key_id


def test_a_statement_without_ignored_paths_is_the_strictest_and_accepted() -> None:
    statement = statement_of(FILES)
    drop("predicate.serialization.ignore_paths")(statement)
    assert set(read_statement(seal(statement), [KEY.public]).files) == set(FILES)


BAD_PAYLOADS: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"hello",
    "a list": b"[]",
    "duplicate key": b'{"_type":"a",' + json.dumps(statement_of(FILES)).encode()[1:],
    "NaN": b'{"x":NaN}',
    "not UTF-8": b'{"x":"\xff"}',
    "200 000 levels": b"[" * 200_000,
    "older format's text": repr(json.dumps(statement_of(FILES)).encode()).encode(),
}


@pytest.mark.parametrize("name", BAD_PAYLOADS)
def test_bad_payloads_are_refused_though_signed(name: str) -> None:
    with pytest.raises(SignatureError, match=r"^model\.sig: statement: expected"):
        read_statement(json.dumps(bundle_of(BAD_PAYLOADS[name])).encode(), [KEY.public])


def test_the_signature_of_another_protocol_is_refused() -> None:
    """The same payload, rightly signed as another type, and the encodings of DSSE's past."""
    payload = json.dumps(statement_of(FILES)).encode()
    document = bundle_of(payload, kind="application/vnd.example")
    put("dsseEnvelope.payloadType", STATEMENT)(document)
    messages = (payload, b"DSSEV1 %d %s %d %r" % (len(STATEMENT), STATEMENT.encode(), len(payload), payload))
    signatures = [base64.b64encode(KEY.sign(message)).decode() for message in messages]
    for signature in [document["dsseEnvelope"]["signatures"][0]["sig"], *signatures]:
        put("dsseEnvelope.signatures.0.sig", signature)(document)
        with pytest.raises(SignatureError, match="does not verify"):
            read_statement(json.dumps(document).encode(), [KEY.public])


def test_duplicate_keys_in_the_bundle_are_refused() -> None:
    data = json.dumps(bundle()).encode()
    with pytest.raises(SignatureError, match="unique keys"):
        read_statement(b'{"mediaType":"x",' + data[1:], [KEY.public])


def test_base64_has_one_spelling() -> None:
    """Unused bits, which every decoder drops, must not make a second bundle of the same payload."""
    padded = (bundle_of(json.dumps(statement_of(FILES)).encode() + b" " * spaces) for spaces in range(3))
    document = next(each for each in padded if each["dsseEnvelope"]["payload"].endswith("=="))
    text = document["dsseEnvelope"]["payload"]
    other = text[:-3] + chr(ord(text[-3]) + 1) + "=="
    assert base64.b64decode(other, validate=True) == base64.b64decode(text, validate=True)
    read_statement(json.dumps(document).encode(), [KEY.public])
    put("dsseEnvelope.payload", other)(document)
    with pytest.raises(SignatureError, match="payload: expected base64"):
        read_statement(json.dumps(document).encode(), [KEY.public])


def test_a_bundle_over_the_limit_is_refused_unread() -> None:
    with pytest.raises(SignatureError, match="expected at most 1048576 bytes, got 4000000"):
        read_statement(b"[" * 4_000_000, [KEY.public])


def test_rewritten_signatures_verify_and_name_the_same_root() -> None:
    """Anyone can turn (r, s) into (r, n - s): so the root digest is the identity, never the signature."""
    document = bundle()
    place = document["dsseEnvelope"]["signatures"][0]
    r, s = decode_dss_signature(base64.b64decode(place["sig"]))
    twin = copy.deepcopy(document)
    put("dsseEnvelope.signatures.0.sig", base64.b64encode(encode_dss_signature(r, P256_ORDER - s)).decode())(twin)
    assert twin != document
    found = [read_statement(json.dumps(each).encode(), [KEY.public]) for each in (document, twin)]
    assert found[0] == found[1]


def test_signatures_in_loose_der_are_refused() -> None:
    document = bundle()
    signature = base64.b64decode(document["dsseEnvelope"]["signatures"][0]["sig"])
    r, s = decode_dss_signature(signature)
    for loose in (
        signature + b"\0",
        signature[:-1],
        b"\x30\x81" + signature[1:],
        r.to_bytes(32) + s.to_bytes(32),
        encode_dss_signature(r + P256_ORDER, s),
    ):
        put("dsseEnvelope.signatures.0.sig", base64.b64encode(loose).decode())(document)
        with pytest.raises(SignatureError, match="does not verify"):
            read_statement(json.dumps(document).encode(), [KEY.public])


# Keys


def test_unknown_keys_are_named() -> None:
    data = sign(FILES, name="patch", key=KEY)
    keys: list[list[PublicKey]] = [[], [OTHER_KEY.public]]
    for trusted in keys:
        with pytest.raises(UntrustedKeyError, match=KEY.public.hint) as caught:
            read_statement(data, trusted)
        assert caught.value.details == {"key_hint": KEY.public.hint}


def test_the_right_key_is_found_among_many() -> None:
    many = [PrivateKey.generate().public for _ in range(5)]
    data = sign(FILES, name="patch", key=KEY)
    assert read_statement(data, [*many, KEY.public, KEY.public]).key_id == KEY.public.key_id
    assert read_statement(data, iter([*many, KEY.public])).key_id == KEY.public.key_id


# Files


def test_unsigned_folders_are_refused() -> None:
    with pytest.raises(SignatureError, match="unsigned"):
        verify(FILES, [KEY.public])


def test_missing_extra_and_swapped_files_are_named() -> None:
    statement = read_statement(sign(FILES, name="patch", key=KEY), [KEY.public])
    missing = {name: data for name, data in FILES.items() if name != "manifest.json"}
    with pytest.raises(SignatureError, match=r"^manifest\.json: expected the signed file, got none"):
        check_files(statement, missing)
    for extra in ("pytorch_model.bin", ".gitattributes", "manifest.JSON", "a\nb"):
        with pytest.raises(SignatureError, match="one that nobody signed") as caught:
            check_files(statement, {**FILES, extra: b""})
        assert caught.value.details["file"] == extra
    swapped = {**FILES, "manifest.json": FILES["basis.safetensors"], "basis.safetensors": FILES["manifest.json"]}
    with pytest.raises(DigestMismatchError, match=r"^basis\.safetensors: "):
        check_files(statement, swapped)
    with pytest.raises(SignatureError, match="got none"):
        check_files(statement, {})


def test_the_signature_of_one_patch_does_not_fit_another() -> None:
    other = {**FILES, "manifest.json": b'{"format":1,"strength":"-1"}'}
    with pytest.raises(DigestMismatchError, match=r"^manifest\.json: "):
        verify({**other, "model.sig": sign(FILES, name="patch", key=KEY)}, [KEY.public])


@pytest.mark.parametrize("name", ["", "../x", "/x", "a/b", ".git", "A", "model.sig", "a b", "x" * 101, "é", "a\n"])
def test_names_that_verifiers_refuse_are_not_signed(name: str) -> None:
    with pytest.raises(FormatError, match="expected file names like"):
        sign({**FILES, name: b""}, name="patch", key=KEY)


@pytest.mark.parametrize("files", [{}, {f"f{i}": b"" for i in range(1001)}], ids=["none", "1001"])
def test_nothing_and_too_much_are_not_signed(files: dict[str, bytes]) -> None:
    with pytest.raises(FormatError, match="expected 1 to 1000 files"):
        sign(files, name="patch", key=KEY)


@pytest.mark.parametrize("name", ["x" * 256, "\ud800"])
def test_folder_names_that_verifiers_refuse_are_not_signed(name: str) -> None:
    with pytest.raises(FormatError):
        sign(FILES, name=name, key=KEY)


@given(
    st.dictionaries(
        st.from_regex(r"[a-z0-9][a-z0-9._-]{0,20}", fullmatch=True).filter(lambda n: n != "model.sig"),
        st.binary(max_size=20),
        min_size=1,
        max_size=8,
    ),
    st.text(st.characters(codec="utf-8"), max_size=30),
)
@settings(deadline=None, max_examples=50)
def test_what_is_signed_verifies(files: dict[str, bytes], name: str) -> None:
    data = sign(files, name=name, key=KEY)
    assert list(verify({**files, "model.sig": data}, [KEY.public]).files) == sorted(files)
    assert sign(files, name=name, key=KEY) == data


def test_a_thousand_files_fit() -> None:
    files = {f"{i:0100d}": b"" for i in range(1000)}
    assert len(verify({**files, "model.sig": sign(files, name="x" * 255, key=KEY)}, [KEY.public]).files) == 1000


def test_every_refusal_is_a_verification_error() -> None:
    assert issubclass(SignatureError, VerificationError)
    assert issubclass(UntrustedKeyError, VerificationError)
    assert issubclass(DigestMismatchError, VerificationError)


def test_the_signature_is_ecdsa_over_sha256() -> None:
    """By the book, without our verifier."""
    document = json.loads(sign(FILES, name="patch", key=KEY))["dsseEnvelope"]
    payload = base64.b64decode(document["payload"])
    signature = base64.b64decode(document["signatures"][0]["sig"])
    DSSE_KEY.public_key().verify(signature, envelope_bytes(payload), ec.ECDSA(hashes.SHA256()))
