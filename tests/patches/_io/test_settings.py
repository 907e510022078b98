"""What the front door hands in: read once, when the package is imported."""

import os
import subprocess
import sys

import pytest

from rasura.patches._io.settings import CACHE, FUSED, THREADS, Settings, get_settings, use

_SHOW = "from rasura.patches._io.settings import get_settings; print(get_settings().threads, get_settings().fused)"


def test_an_environment_is_read_by_name() -> None:
    assert Settings.read({}) == Settings("", "", "")
    assert Settings.read({THREADS: "3", FUSED: "1", CACHE: "/c", "OTHER": "x"}) == Settings("3", "1", "/c")


def test_what_is_handed_in_is_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    before = get_settings()
    monkeypatch.setenv(THREADS, "5")
    assert get_settings() == before  # nobody looks at the environment meanwhile
    try:
        use(Settings(threads="5"))
        assert get_settings().threads == "5"
    finally:
        use(before)


def test_importing_the_package_hands_the_environment_in() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), THREADS: "7", FUSED: "0"}
    done = subprocess.run([sys.executable, "-c", _SHOW], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["7", "0"]
