"""Triton's kernel without a device: its logic in the interpreter, and the instructions that it becomes.

Triton comes with torch for CUDA. Elsewhere it is a gigabyte that nobody needs, so nothing here installs it.
"""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
TYPES = ("fp16", "bf16", "fp32")

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None,
    reason="Triton is not there: pip install --target DIR --no-deps triton, then PYTHONPATH=DIR",
)


def test_the_interpreter_gives_the_bits_of_the_plain_steps() -> None:
    """In a process of its own: Triton asks for this when it is imported."""
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
            "tests/interop/interpreted_kernel.py",
        ],
        cwd=ROOT,
        env={**{k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout, done.stdout


def instructions(kind: str, capability: int) -> set[str]:
    """Those of the kernel in PTX, which Triton makes without a device."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from rasura.patches.algebra.fused_add_kernel import add_round_store

    numbers = {"sums": "*fp64", "broken": "*i32", "count": "i32", "BLOCK": "constexpr", "BF16": "constexpr"}
    source: Any = ASTSource(
        fn=add_round_store,
        signature={"result": f"*{kind}", "base": f"*{kind}", **numbers},
        constexprs={"BLOCK": 1024, "BF16": kind == "bf16"},
    )
    target = GPUTarget("cuda", capability, 32)
    made = triton.compile(source, target=target, options={"enable_fp_fusion": False})
    return set(re.findall(r"^\s+(?:@!?%p\d+\s+)?([a-z][a-z0-9_.:]+)\s", made.asm["ptx"], re.MULTILINE))


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("kind", TYPES)
def test_every_rounding_is_an_instruction_that_keeps_subnormals(kind: str, capability: int) -> None:
    found = instructions(kind, capability)
    assert "add.rn.f64" in found or "add.f64" in found
    assert "cvt.rn.f32.f64" in found
    assert ("cvt.rn.f16.f32" in found) == (kind == "fp16")
    assert not {name for name in found if ".ftz" in name or ".approx" in name or name.startswith("fma")}
    narrowing = {name for name in found if name.startswith(("cvt.rn", "cvt.rz"))}
    assert narrowing <= {"cvt.rn.f32.f64", "cvt.rn.f16.f32"}, "nothing goes from float64 to 16 bits in one step"
