"""C2SP signed notes and checkpoints: other people's vectors, one of ours, and every malformed note."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from rasura.patches.errors import AuditError
from rasura.registry.log.notes.signed_note import (
    Checkpoint,
    Note,
    PlainNotes,
    VerifyKey,
    parse_note,
    sign_note,
    verify_note,
)

LOG_SEED = bytes(range(32))
LOG_VKEY = "registry.example/rasura/log1+6308a0a5+AQOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4"
CHECKPOINT = "registry.example/rasura/log1\n8\nXcnaeacGWamtVZy3Ad7ZoqudgjqtL0lgz+Nw7/RgQyg=\n"
LOG_LINE = (
    "— registry.example/rasura/log1 "
    "YwigpRZg+7gsJRpRX3g9No05wChEgYWAnS/NzRKwrYzoHcBJ54f0tsQXnyS/sA9Jre0F9bJu4NWg33hl+QWPdT+XKws=\n"
)
WITNESS_LINE = (
    "— witness.example/w1 IDJKvgAAAABpVbkAE3DIkRh/1v+7Zr/bfxdReRxu6LSnb5l5fLbeyOA3FGbM4erKdDjct7C1Riy+1Z+snBdSP2Hg"
    "yhqhvtbUtLnWBg==\n"
)
SIGNED = CHECKPOINT + "\n" + LOG_LINE

VECTORS = {
    "C2SP": (
        "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
        "This is an example message.\n",
        (
            "— example.com/foo "
            "Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
        ),
    ),
    "Go": (
        "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n",
        "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n",
    ),
    "sum.golang.org": (
        "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8",
        "go.sum database tree\n35225469\nvt5T6GaLCXvyHFl9VUvvItR43XZxfLgftEcTyO3eJCQ=\n",
        (
            "— sum.golang.org "
            "Az3grpukl5AXaVfYkLiDGORx/DN2nlcS5kZHR5uYOBV2KA2HgXpD+gu9HHONebHLAyaKbbTM75QTtPydhKCExixSfwQ=\n"
        ),
    ),
}


def log_key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(LOG_SEED)


@pytest.mark.parametrize("name", VECTORS)
def test_published_notes_verify(name: str) -> None:
    vkey, text, line = VECTORS[name]
    key = VerifyKey.parse(vkey)
    note = parse_note(f"{text}\n{line}".encode())
    assert str(key) == vkey
    assert note.text == text
    assert str(note) == f"{text}\n{line}"
    assert verify_note(note, [key]) == (key,)


def test_our_own_checkpoint_is_signed_to_the_byte() -> None:
    note = sign_note(CHECKPOINT, "registry.example/rasura/log1", log_key())
    assert str(note) == SIGNED
    assert str(VerifyKey("registry.example/rasura/log1", log_key().public_key().public_bytes_raw())) == LOG_VKEY
    assert Checkpoint.parse(CHECKPOINT).size == 8
    assert Checkpoint.parse(CHECKPOINT).text == CHECKPOINT


def test_a_witness_that_nobody_asked_about_is_ignored() -> None:
    note = parse_note((SIGNED + WITNESS_LINE).encode())
    assert len(note.signatures) == 2
    assert verify_note(note, [VerifyKey.parse(LOG_VKEY)]) == (VerifyKey.parse(LOG_VKEY),)


def test_signing_twice_counts_once() -> None:
    note = parse_note((SIGNED + LOG_LINE).encode())
    assert len(verify_note(note, [VerifyKey.parse(LOG_VKEY)])) == 1


def test_a_bad_signature_by_a_known_key_spoils_the_note() -> None:
    good = parse_note(SIGNED.encode())
    signature = good.signatures[0]
    forged = type(signature)(signature.name, signature.key_id, bytes(64))
    note = Note(good.text, (signature, forged))
    with pytest.raises(AuditError, match="does not verify"):
        verify_note(note, [VerifyKey.parse(LOG_VKEY)])


def test_a_note_by_somebody_else_is_not_verified() -> None:
    other = sign_note(CHECKPOINT, "registry.example/rasura/log1", Ed25519PrivateKey.from_private_bytes(bytes(32)))
    with pytest.raises(AuditError, match="expected a signature by"):
        verify_note(other, [VerifyKey.parse(LOG_VKEY)])


BAD_NOTES = {
    "empty": "",
    "no signature": CHECKPOINT,
    "no empty line": CHECKPOINT + LOG_LINE,
    "nothing after the empty line": CHECKPOINT + "\n",
    "no final newline": SIGNED.removesuffix("\n"),
    "carriage returns": SIGNED.replace("\n", "\r\n"),
    "control character": SIGNED.replace("8", "\x07"),
    "NUL": SIGNED.replace("8", "\0"),
    "hyphen for dash": SIGNED.replace("—", "-"),
    "no name": CHECKPOINT + "\n— " + LOG_LINE.rpartition(" ")[2],
    "plus in the name": SIGNED.replace("— registry", "— reg+istry"),
    "padding missing": SIGNED.replace("Kws=", "Kws"),
    "padding bits set": SIGNED.replace("Kws=", "Kwt="),
    "space in base64": SIGNED.replace("Ywig", "Ywi g"),
    "url alphabet": SIGNED.replace("+", "-"),
    "key id alone": CHECKPOINT + "\n— log AAAAAA==\n",
    "too many signatures": CHECKPOINT + "\n" + LOG_LINE * 65,
    "too long": "x" * 70_000 + "\n\n" + LOG_LINE,
}


@pytest.mark.parametrize("name", BAD_NOTES)
def test_malformed_notes_are_refused(name: str) -> None:
    with pytest.raises(AuditError):
        parse_note(BAD_NOTES[name].encode())


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(AuditError, match="UTF-8"):
        parse_note(b"\xff\xfe" + SIGNED.encode())


def test_the_text_ends_at_the_last_empty_line() -> None:
    text = "one\n\ntwo\n"
    note = parse_note(str(sign_note(text, "log", log_key())).encode())
    assert note.text == text


ROOT = "XcnaeacGWamtVZy3Ad7ZoqudgjqtL0lgz+Nw7/RgQyg="
BAD_CHECKPOINTS = {
    "extension line": CHECKPOINT + "more\n",
    "two lines": "log\n8\n",
    "no origin": f"\n8\n{ROOT}\n",
    "leading zero": f"log\n08\n{ROOT}\n",
    "sign": f"log\n+8\n{ROOT}\n",
    "negative": f"log\n-8\n{ROOT}\n",
    "space": f"log\n8 \n{ROOT}\n",
    "Arabic digit": f"log\n٨\n{ROOT}\n",
    "past 63 bits": f"log\n9223372036854775808\n{ROOT}\n",
    "very long": f"log\n{'9' * 5000}\n{ROOT}\n",
    "short root": "log\n8\nAAAA\n",
    "root in hexadecimal": f"log\n8\n{'5d' * 32}\n",
}


@pytest.mark.parametrize("name", BAD_CHECKPOINTS)
def test_malformed_checkpoints_are_refused(name: str) -> None:
    with pytest.raises(AuditError):
        Checkpoint.parse(BAD_CHECKPOINTS[name])


BAD_KEYS = {
    "another id": LOG_VKEY.replace("6308a0a5", "6308a0a6"),
    "upper-case id": LOG_VKEY.replace("6308a0a5", "6308A0A5"),
    "witness type": "witness.example/w1+20324abe+BCmsuuFBvMrwsi4alNNNC8c2HlJtC/4SyJeUvJMilm3X",
    "no parts": "registry.example",
    "empty": "",
    "31 bytes": "log+00000000+" + "AQ" + "A" * 40 + "==",
}


@pytest.mark.parametrize("name", BAD_KEYS)
def test_malformed_keys_are_refused(name: str) -> None:
    with pytest.raises(AuditError):
        VerifyKey.parse(BAD_KEYS[name])


P = 2**255 - 19
Y8 = 2707385501144840649318225287225658788936804267575313519463743609750303402022
SMALL = {y | sign << 255 for y in (0, 1, P - 1, Y8, P - Y8) for sign in (0, 1)}
UNREDUCED = {y | sign << 255 for y in range(P, 2**255) for sign in (0, 1)}


@pytest.mark.parametrize("point", sorted(SMALL | UNREDUCED))
def test_points_that_accept_forgeries_are_no_keys(point: int) -> None:
    with pytest.raises(AuditError, match="large order"):
        VerifyKey("log", point.to_bytes(32, "little"))


def test_the_identity_would_have_accepted_a_forgery() -> None:
    """Why those points are refused: the library underneath takes a signature over anything."""
    identity = (1).to_bytes(32, "little")
    Ed25519PublicKey.from_public_bytes(identity).verify(identity + bytes(32), b"any message at all")


@given(st.binary(max_size=300))
def test_any_bytes_are_a_note_or_a_typed_refusal(data: bytes) -> None:
    try:
        note = parse_note(data)
    except AuditError:
        return
    assert str(note).encode() == data


@given(st.text(max_size=60), st.integers(0, 2**63 - 1), st.binary(min_size=32, max_size=32))
def test_checkpoints_read_back(origin: str, size: int, root: bytes) -> None:
    origin = "log" + "".join(c for c in origin if c.isprintable())
    assert Checkpoint.parse(Checkpoint(origin, size, root).text) == Checkpoint(origin, size, root)


def test_the_form_of_a_checkpoint_is_that_of_one_signature_in_its_one_spelling() -> None:
    private = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    key = VerifyKey("rasura/log/1", private.public_key().public_bytes_raw())
    other = VerifyKey(key.name, Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key().public_bytes_raw())
    plain = PlainNotes(key)
    for size in range(40):
        tree = Checkpoint(key.name, size, bytes([size]) * 32)
        text = str(sign_note(tree.text, key.name, private))
        assert plain.match(text, size, tree.root)
        assert plain.verify(text, size, tree.root)
        for at in range(len(text)):
            bad = text[:at] + ("B" if text[at] == "A" else "A") + text[at + 1 :]
            assert not plain.verify(bad, size, tree.root)
            if plain.match(bad, size, tree.root):  # then it differs in the signature alone
                signature = parse_note(bad.encode()).signatures[0]
                assert (signature.name, signature.key_id, len(signature.value)) == (key.name, key.key_id, 64)
        for odd in (text + text.splitlines()[-1] + "\n", text + "\n", text[:-1], " " + text, ""):
            assert not plain.match(odd, size, tree.root)
            assert not plain.verify(odd, size, tree.root)
        assert not plain.match(text, size + 1, tree.root)
        assert not plain.match(text, size, bytes([size + 1]) * 32)
        assert not PlainNotes(other).match(text, size, tree.root)
        assert not PlainNotes(other).verify(text, size, tree.root)
