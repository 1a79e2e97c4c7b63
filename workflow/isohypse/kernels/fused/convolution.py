# SPDX-License-Identifier: Apache-2.0
"""Backward pass of a short convolution and its silu, in place.

With p = conv(x) + bias and y = silu(p), the gradient of y becomes that of x:

    dp = dy silu'(p),  dx[t] = sum_i dp[t + i] taps[-1 - i]
    dtaps[-1 - i] = sum over samples and t of dp[t] x[t - i]

The forward pass has no kernel of its own: who needs y computes it from x, which is read anyway
(`frames.convolved`).
"""

import triton
import triton.language as tl
from torch import Tensor

from isohypse.kernels.fused.frames import (
    add_taps,
    convolved,
    convolved_backward,
    load_frames,
    no_taps,
    store_frames,
    store_taps,
    through_silu,
)
from isohypse.kernels.fused.sums import Sums, parts_of

BLOCK, WARPS = 128, 4
"""Channels of a program and its warps."""


def convolve_backward(
    x: Tensor, gradient: Tensor, taps: Tensor, bias: Tensor | None, frames: int
) -> tuple[Tensor, Tensor | None]:
    """Gradients of taps and bias; `gradient`, of y, becomes that of x. Both `[batch * frame, channel]`."""
    samples, channels = len(x) // frames, x.shape[1]
    sizes = {"taps": taps.numel(), "bias": 0 if bias is None else channels}
    sums = Sums(parts_of(samples), sizes, x.device)
    parts, block = len(sums.partial), min(BLOCK, channels & -channels)  # a power of two that divides them
    _backward[(parts, channels // block)](
        x, gradient, taps, bias, sums.place("taps"), sums.place("bias"), x.stride(0), gradient.stride(0),
        sums.stride, samples, triton.cdiv(samples, parts), frames, taps.shape[-1], bias is not None, block,
        num_warps=WARPS,
    )  # fmt: skip
    whole = sums.whole()
    return whole["taps"].view(taps.shape), whole.get("bias")


@triton.jit
def _backward(
    x, gradient, taps, bias, dtaps, dbias, stride, gradient_stride, sums_stride, samples, rounds, T:
    tl.constexpr, TAPS: tl.constexpr, BIAS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    part, columns = tl.program_id(0), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    found = no_taps(columns, TAPS)
    for turn in range(rounds):
        sample = part + turn * tl.num_programs(0)
        if sample < samples:
            xs = load_frames(x, sample, columns, stride, T)
            dys = load_frames(gradient, sample, columns, gradient_stride, T)
            dbefore = through_silu(dys, convolved(xs, taps, bias, columns, T, TAPS, BIAS), T, TAPS)
            dxs = convolved_backward(dbefore, taps, columns, T, TAPS)
            store_frames(gradient, dxs, sample, columns, gradient_stride, T)
            found = add_taps(found, dbefore, xs, T, TAPS)
    mine = part.to(tl.int64) * sums_stride
    store_taps(dtaps, mine, found, columns, TAPS)
    if BIAS:
        tl.store(dbias + mine + columns, found[TAPS])
