"""Whose registry is used where none was named, and whose key signs the log."""

import os
from pathlib import Path

import pytest
from support.commandline import rasura

from rasura.patches.errors import NoRegistryError
from rasura.registry._storage.location import find_location

STRANGER = 54321


@pytest.fixture
def made(tmp_path: Path) -> Path:
    assert rasura("init", cwd=tmp_path).code == 0
    return tmp_path


@pytest.mark.skipif(os.geteuid() != 0, reason="needs the right to give files away")
@pytest.mark.parametrize("given", [".rasura", ".rasura/registry.db"])
def test_a_registry_of_somebody_else_must_be_named(made: Path, given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUDO_UID", raising=False)
    inner = made / "work/deep"
    inner.mkdir(parents=True)
    assert find_location(inner) == made / ".rasura"
    os.chown(made / given, STRANGER, -1)
    with pytest.raises(NoRegistryError, match=f"somebody else .user {STRANGER}"):
        find_location(inner)
    run = rasura("key", "list", "--json", cwd=inner)
    assert (run.code, run.envelope["error"]["code"]) == (1, "no_registry")
    assert run.envelope["error"]["hint"] == f"rasura status --registry {made / '.rasura'}"
    assert rasura("key", "list", "--registry", made, cwd=inner).code == 0
    assert rasura("key", "list", cwd=inner, variables={"RASURA_REGISTRY": str(made)}).code == 0
    for caller, code in ((str(STRANGER), 0), ("12", 1), ("²", 1), ("", 1)):
        assert rasura("key", "list", cwd=inner, variables={"SUDO_UID": caller}).code == code


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o622])
def test_a_log_key_that_others_can_read_signs_nothing(made: Path, mode: int) -> None:
    path = made / ".rasura/keys/log.pem"
    path.chmod(mode)
    run = rasura("key", "new", "bob", "--json", cwd=made)
    assert (run.code, run.envelope["error"]["code"]) == (1, "registry")
    assert run.envelope["error"]["hint"] == f"chmod 600 {path}"
    assert rasura("key", "list", cwd=made).code == 0  # looking is allowed
    assert not (made / ".rasura/keys/bob.signer.pem").exists()
    path.chmod(0o600)
    assert rasura("key", "new", "bob", cwd=made).code == 0
    assert rasura("audit", "verify", cwd=made).code == 0
