"""The kernel of `rasura.patches.algebra.fused_add`. Importing it needs Triton."""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["add_round_store"]


# Triton evaluates annotations as parts of the kernel, so most parameters have none.
@triton.jit  # type: ignore[untyped-decorator]
def add_round_store(  # type: ignore[no-untyped-def]  # noqa: PLR0917
    result,  # noqa: ANN001
    base,  # noqa: ANN001
    sums,  # noqa: ANN001
    broken,  # noqa: ANN001
    count,  # noqa: ANN001
    BLOCK: tl.constexpr,
    BF16: tl.constexpr,
) -> None:
    """One element a lane; all pointers are to contiguous memory of `count` elements, but `broken` is to one int32."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    added = tl.load(sums + at, mask=inside, other=0.0)
    kept = tl.load(base + at, mask=inside, other=0.0)
    if BF16:
        # By hand in both directions: not every device has these instructions, and Triton's interpreter loses subnormals
        # and cuts off instead of rounding. A NaN whose low bits are all ones would become -0.0 by the addition.
        wide = (kept.to(tl.uint16, bitcast=True).to(tl.uint32) << 16).to(tl.float32, bitcast=True)
        single = (added + wide.to(tl.float64)).to(tl.float32)
        bits = single.to(tl.uint32, bitcast=True)
        bits = tl.where(single != single, 0x7FC00000, bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000  # noqa: PLR0124
        rounded = (bits >> 16).to(tl.uint16).to(tl.bfloat16, bitcast=True)
        bounded = tl.abs(tl.where(added == 0.0, wide, bits.to(tl.float32, bitcast=True))) < float("inf")
    else:
        single = (added + kept.to(tl.float64)).to(tl.float32)
        rounded = single.to(result.dtype.element_ty)
        bounded = tl.abs(tl.where(added == 0.0, kept, rounded).to(tl.float32)) < float("inf")
    tl.store(result + at, tl.where(added == 0.0, kept, rounded), mask=inside)
    if tl.min(bounded.to(tl.int32), axis=0) == 0:
        tl.store(broken, 1)  # whoever comes first: all write the same
