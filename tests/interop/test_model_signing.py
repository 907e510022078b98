"""The stock `model_signing` command accepts an exported patch folder, and no changed one."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from support.values.factories import World

from rasura.patches.format.patch import CONTENT, SIGNATURE, read_folder, write_folder
from rasura.patches.format.signatures.model_signature import sign, verify
from rasura.patches.format.signatures.signing_key import PrivateKey

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("model_signing") is None, reason="needs model_signing: pip install rasura[dev]"
)
WORLD = World(width=24, retained=4, outs=(6, 8))


@pytest.fixture(scope="module")
def key() -> PrivateKey:
    return PrivateKey.generate()


@pytest.fixture
def folder(tmp_path: Path, key: PrivateKey) -> Path:
    (patch,) = WORLD.erase(WORLD.columns("dog", 1, 2))
    files = patch.files()
    write_folder(tmp_path / "patch", {**files, SIGNATURE: sign(files, name=patch.patch_id, key=key)})
    (tmp_path / "key.pub").write_text(key.public.pem)
    return tmp_path / "patch"


def stock_verify(folder: Path) -> int:
    arguments = (folder, "--public_key", folder.parent / "key.pub", "--signature", folder / SIGNATURE)
    command = [sys.executable, "-m", "model_signing", "verify", "key", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, check=False, timeout=120).returncode


def test_the_stock_command_accepts_an_exported_patch(folder: Path, key: PrivateKey) -> None:
    assert stock_verify(folder) == 0
    found = verify(read_folder(folder), [key.public])
    assert set(found.files) == set(CONTENT)


@pytest.mark.parametrize("change", ["flip", "add"])
def test_the_stock_command_refuses_a_changed_patch(folder: Path, change: str) -> None:
    weights = folder / "pytorch_lora_weights.safetensors"
    if change == "flip":
        data = bytearray(weights.read_bytes())
        data[-1] ^= 1
        weights.write_bytes(data)
    else:
        (folder / "extra.safetensors").write_bytes(b"")
    assert stock_verify(folder) != 0
