"""Keys: made, trusted, revoked, and which one signs."""

import functools
import shlex
import stat
from pathlib import Path

import pytest
from support.commandline import rasura
from support.registries.registry_fixtures import Place

from rasura.api import front_door as api
from rasura.patches.errors import ExistsError, FormatError, InputError, NotFoundError, RegistryError, RevokedKeyError
from rasura.patches.format.signatures.signing_key import PrivateKey, read_private, write_private
from rasura.registry._storage.records.records import Draft
from rasura.registry.log.verify import verify_log
from rasura.registry.registry import Registry
from rasura.registry.trust.keys.key_files import find_private_path, is_key_locked, make_key, signer, trust_file
from rasura.registry.trust.keys.passwords import read_password_file

NEW = Draft("alice", "", "key.add", "success")
TRUST = Draft("alice", "", "key.trust", "success")
REVOKE = Draft("alice", "", "key.revoke", "success")


@pytest.fixture(params=["sqlite"])
def kind(request: pytest.FixtureRequest) -> str:
    """Keys are files: which database holds their rows has tests of its own."""
    return str(request.param)


@pytest.fixture
def public(tmp_path: Path) -> Path:
    """A stranger's public key."""
    path = tmp_path / "carol.example.pub"
    path.write_text(PrivateKey.generate().public.pem)
    return path


def test_a_new_key_signs_and_is_trusted(registry: Registry) -> None:
    record = make_key(registry, "alice", NEW)
    assert (record.owned, record.trusted, record.revoked_at) == (True, True, None)
    assert registry.key("alice") == record
    assert signer(registry, None).public.key_id == signer(registry, "alice").public.key_id == record.key_id
    path = find_private_path(registry, "alice")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(registry.keys_folder.stat().st_mode) == 0o700
    verify_log(registry)


@pytest.mark.parametrize("name", ["", ".hidden", "../up", "a/b", "a b", "é", "x" * 65, "-x", "a\n"])
def test_names_that_could_be_something_else(registry: Registry, public: Path, name: str) -> None:
    before = sorted(registry.keys_folder.iterdir())
    with pytest.raises(InputError, match="key name"):
        make_key(registry, name, NEW)
    if name:  # no name is the file's
        with pytest.raises(InputError, match="key name"):
            trust_file(registry, public, name, TRUST)
    assert registry.keys() == ()
    assert sorted(registry.keys_folder.iterdir()) == before


def test_a_name_is_taken_once(registry: Registry, public: Path) -> None:
    make_key(registry, "alice", NEW)
    key = find_private_path(registry, "alice").read_bytes()
    with pytest.raises(ExistsError, match="named 'alice'"):
        make_key(registry, "alice", NEW)
    with pytest.raises(ExistsError):
        trust_file(registry, public, "alice", TRUST)
    assert find_private_path(registry, "alice").read_bytes() == key
    assert len(registry.keys()) == 1


def test_a_private_key_without_its_row_is_taken(registry: Registry) -> None:
    """As after a crash between the file and the row: the name is not lost, and the key is the one that was made."""
    left = PrivateKey.generate()
    write_private(find_private_path(registry, "alice"), left)
    assert make_key(registry, "alice", NEW).key_id == left.public.key_id
    assert signer(registry, "alice").public == left.public
    with pytest.raises(ExistsError, match="named 'alice'"):
        make_key(registry, "alice", NEW)
    verify_log(registry)


@pytest.mark.parametrize("damage", ["empty", "text", "open", "folder"])
def test_what_lies_in_place_of_a_private_key_is_named(registry: Registry, damage: str) -> None:
    path = find_private_path(registry, "alice")
    if damage == "folder":
        path.mkdir()
    else:
        path.write_bytes({"empty": b"", "text": b"precious", "open": PrivateKey.generate().pem()}[damage])
        path.chmod(0o644 if damage == "open" else 0o600)
    with pytest.raises(ExistsError) as caught:
        make_key(registry, "alice", NEW)
    assert caught.value.hint == f"rm {shlex.quote(str(path))}"
    assert path.exists()
    assert registry.keys() == ()


def test_a_key_that_was_interrupted_is_made_by_the_next_try(made: Place) -> None:
    class Full(Registry):
        def add_key(self, record: object, entry: Draft) -> bool:  # noqa: ARG002
            raise KeyboardInterrupt

    class Broken(Registry):
        def add_key(self, record: object, entry: Draft) -> bool:  # noqa: ARG002
            raise RegistryError("the disk is full")

    with Broken.open(made.location) as registry:
        with pytest.raises(RegistryError):
            make_key(registry, "alice", NEW)
        assert not find_private_path(registry, "alice").exists()
    with Full.open(made.location) as registry, pytest.raises(KeyboardInterrupt):
        make_key(registry, "alice", NEW)
    with Registry.open(made.location) as registry:
        made_now = make_key(registry, "alice", NEW)
        assert signer(registry, "alice").public.key_id == made_now.key_id


def test_trusting_a_file(registry: Registry, public: Path) -> None:
    record = trust_file(registry, public, None, TRUST)
    assert (record.name, record.owned, record.trusted) == ("carol", False, True)
    assert trust_file(registry, public, None, TRUST) == record
    registry.set_trusted("carol", False, TRUST)  # noqa: FBT003
    assert trust_file(registry, public, "another name", TRUST).trusted
    assert len(registry.keys()) == 1
    with pytest.raises(NotFoundError, match="private half of key 'carol'"):
        signer(registry, "carol")
    with pytest.raises(NotFoundError, match="no key to sign with") as caught:
        signer(registry, None)
    assert caught.value.hint == "rasura key new NAME"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        b"\xff" * 100,
        b"-" * 20_000,
    ],
    ids=["empty", "text", "no key", "a private key", "bytes", "too long"],
)
def test_trusting_what_is_no_public_key(registry: Registry, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key.pub"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"key file .*key\.pub") as caught:
        trust_file(registry, path, None, TRUST)
    assert caught.value.hint == "rasura key export NAME -o FILE"
    assert "PRIVATE" not in caught.value.message or "BEGIN" not in caught.value.message
    with pytest.raises(NotFoundError, match="does not exist"):
        trust_file(registry, tmp_path / "none", None, TRUST)
    assert registry.keys() == ()


def test_revoking_is_for_good(registry: Registry, public: Path) -> None:
    record = trust_file(registry, public, None, TRUST)
    assert registry.revoke_key(record.key_id[:8], registry.now(), REVOKE)
    assert not registry.revoke_key("carol", registry.now(), REVOKE)
    with pytest.raises(RevokedKeyError, match="'carol' was revoked on 20"):
        trust_file(registry, public, None, TRUST)
    make_key(registry, "alice", NEW)
    registry.revoke_key("alice", registry.now(), REVOKE)
    with pytest.raises(RevokedKeyError, match="signs no more"):
        signer(registry, "alice")
    with pytest.raises(NotFoundError, match="no key to sign with"):
        signer(registry, None)


def test_several_keys_ask_for_a_name(registry: Registry) -> None:
    for name in ("alice", "bob"):
        make_key(registry, name, NEW)
    with pytest.raises(InputError, match="alice, bob") as caught:
        signer(registry, None)
    assert caught.value.hint == "--key alice"
    assert signer(registry, "bob").public.key_id == registry.key("bob").key_id


def test_a_private_key_that_was_exchanged(registry: Registry) -> None:
    make_key(registry, "alice", NEW)
    path = find_private_path(registry, "alice")
    path.unlink()
    write_private(path, PrivateKey.generate())
    with pytest.raises(FormatError, match="not the one that was registered"):
        signer(registry, "alice")
    assert read_private(path).public.key_id != registry.key("alice").key_id


# --- with a password ------------------------------------------------------------------------------------------------


def test_a_locked_key_signs_with_its_password_only(registry: Registry) -> None:
    record = make_key(registry, "alice", NEW, password=b"correct horse")
    pem = find_private_path(registry, "alice").read_bytes()
    assert pem.startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    assert (is_key_locked(registry, record), b"correct" in pem) == (True, False)
    with pytest.raises(InputError, match="locked with a password: expected it in RASURA_KEY_PASSWORD") as caught:
        signer(registry, "alice")
    assert caught.value.hint == "--password-file FILE"
    asked: list[str] = []
    for password in (b"wrong horse", b"correct horse"):
        registry.ask_password = functools.partial(_answer, asked, password)
        if password == b"wrong horse":
            with pytest.raises(InputError, match="got another one") as caught:
                signer(registry, "alice")
            assert "horse" not in f"{caught.value!r} {caught.value.hint} {caught.value.details}"
    assert signer(registry, None).public.key_id == record.key_id
    assert asked == ["alice", "alice"]
    make_key(registry, "bob", NEW)
    assert (is_key_locked(registry, registry.key("bob")), signer(registry, "bob").public.key_id) == (
        False,
        registry.key("bob").key_id,
    )
    assert len(asked) == 2


def _answer(asked: list[str], password: bytes, name: str) -> bytes:
    asked.append(name)
    return password


@pytest.mark.parametrize("password", [b"", b"x" * 1024])
def test_what_cannot_be_a_password(registry: Registry, password: bytes) -> None:
    with pytest.raises(InputError, match="a password of 1 to 1023 bytes"):
        make_key(registry, "alice", NEW, password=password)
    assert registry.keys() == ()
    assert not find_private_path(registry, "alice").exists()


def test_an_orphan_that_is_locked_is_taken_with_its_password(registry: Registry) -> None:
    private = PrivateKey.generate()
    write_private(find_private_path(registry, "alice"), private, b"secret")
    with pytest.raises(ExistsError, match="none that can be used"):
        make_key(registry, "alice", NEW)
    assert make_key(registry, "alice", NEW, password=b"secret").key_id == private.public.key_id


def test_a_password_file_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "pass word"
    path.write_bytes(b"p\xc3\xa4ss \n\n")
    path.chmod(0o644)
    with pytest.raises(InputError, match="only its owner can read") as caught:
        read_password_file(path)
    assert caught.value.hint == f"chmod 600 {shlex.quote(str(path))}"
    path.chmod(0o600)
    assert read_password_file(path) == b"p\xc3\xa4ss \n"
    path.write_bytes(b"\r\n")
    with pytest.raises(InputError, match="got 0"):
        read_password_file(path)
    with pytest.raises(NotFoundError):
        read_password_file(tmp_path / "none")


def test_the_commands_take_a_password_from_a_file_or_the_environment(tmp_path: Path) -> None:
    rasura("init", cwd=tmp_path)
    none = rasura("key", "new", "alice", "--encrypt", cwd=tmp_path)
    assert (none.code, "expected a password in RASURA_KEY_PASSWORD" in none.err) == (2, True)
    file = tmp_path / "secret"
    file.write_text("correct horse\n")
    file.chmod(0o600)
    made = rasura("key", "new", "alice", "--encrypt", "--password-file", file, "--json", cwd=tmp_path)
    assert (made.data["locked"], "horse" in made.out) == (True, False)
    assert "with a password" in rasura("key", "list", cwd=tmp_path).out
    known = {"RASURA_KEY_PASSWORD": "correct horse"}
    assert rasura("key", "new", "bob", "--encrypt", cwd=tmp_path, variables=known).code == 0
    with Registry.open(tmp_path) as registry:
        registry.ask_password = lambda _: b"correct horse"
        assert {signer(registry, name).public.key_id for name in ("alice", "bob")} == {
            key.key_id for key in registry.keys()
        }


def test_python_takes_a_password_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("correct horse\n")
    file.chmod(0o600)
    api.init(tmp_path).close()
    with api.open(tmp_path, password_file=file) as registry:
        record = registry.new_key("alice", encrypt=True)
        assert signer(registry.store, "alice").public.key_id == record.key_id
    with api.open(tmp_path) as registry:
        with pytest.raises(InputError, match="locked with a password"):
            signer(registry.store, "alice")
        with pytest.raises(InputError, match="expected its password"):
            registry.new_key("bob", encrypt=True)
        assert registry.new_key("bob", encrypt=True, password_file=file).name == "bob"
