"""Quantised layers as bitsandbytes, torchao and GGUF make them.

Wherever these libraries can be imported, diffusers does it, which takes seconds for every process. So they lie in a
folder apart, and one process runs the tests that need them.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIBRARIES = Path(sys.prefix) / "quantised"


@pytest.mark.slow
def test_the_tests_that_need_the_libraries() -> None:
    if not LIBRARIES.is_dir():
        pytest.skip("bitsandbytes, gguf and torchao are not there: make .venv/quantised/.made")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-n",
            "0",
            "-p",
            "no:cacheprovider",
            "tests/registry/apply/test_quantised.py",
            "-k",
            "not float8 and not a_plain_model",  # which need no library
        ],
        cwd=ROOT,
        env={**{k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}, "PYTHONPATH": str(LIBRARIES)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout, done.stdout
