# SPDX-License-Identifier: Apache-2.0
"""Backward pass of a short convolution and its silu, in place.

With p = conv(x) and y = silu(p), the gradient of y becomes that of x:

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


def convolve_backward(x: Tensor, gradient: Tensor, taps: Tensor, frames: int) -> Tensor:
    """The gradient of the taps; `gradient`, of y, becomes that of x. Both `[batch * frame, channel]`."""
    samples, channels = len(x) // frames, x.shape[1]
    sums = Sums(parts_of(samples), {"taps": taps.numel()}, x.device)
    parts, block = len(sums.partial), min(BLOCK, channels & -channels)  # a power of two that divides them
    _backward[(parts, channels // block)](
        x, gradient, taps, sums.place("taps"), x.stride(0), gradient.stride(0), sums.stride, samples,
        triton.cdiv(samples, parts), frames, taps.shape[-1], block, num_warps=WARPS,
    )  # fmt: skip
    return sums.whole()["taps"].view(taps.shape)


@triton.jit
def _backward(
    x, gradient, taps, dtaps, stride, gradient_stride, sums_stride, samples, rounds, T: tl.constexpr, TAPS:
    tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    part, columns = tl.program_id(0), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    found = no_taps(columns, TAPS)
    for turn in range(rounds):
        sample = part + turn * tl.num_programs(0)
        if sample < samples:
            xs = load_frames(x, sample, columns, stride, T)
            dys = load_frames(gradient, sample, columns, gradient_stride, T)
            dbefore = through_silu(dys, convolved(xs, taps, 0, columns, T, TAPS, False), T, TAPS)
            dxs = convolved_backward(dbefore, taps, columns, T, TAPS)
            store_frames(gradient, dxs, sample, columns, gradient_stride, T)
            found = add_taps(found, dbefore, xs, T, TAPS)
    store_taps(dtaps, part.to(tl.int64) * sums_stride, found, columns, TAPS)
