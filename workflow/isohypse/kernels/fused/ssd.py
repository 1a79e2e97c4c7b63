# SPDX-License-Identifier: Apache-2.0
"""The mixer of Mamba2 between its two projections.

    x, B, C = silu(conv(xBC) + bias),  dt = softplus(dt + dt_bias),  g = -exp(A_log) dt
    y = (C B^T P dt) x + D x            P[t, s] = exp(g[s+1] + ... + g[t]), as kernels/ssd.py has it
    out = RMSNorm(y * silu(z)) over the channels of all heads

B and C are shared by all heads, and so are their products C B^T, which a kernel of their own forms. The
norm needs all heads of a frame: the kernel of the heads leaves u = y * silu(z) and the sums of its squares,
and a second one scales u. Backward, the norm's own sum comes from what is at hand: with out = u r w,

    sum w dout u r = sum dout out

which is taken first; then the heads, which leave the gradients of C B^T; then B and C.
"""

from typing import NamedTuple

import torch
import triton
from torch import Tensor

from isohypse.kernels.fused import ssd_kernels as kernels
from isohypse.kernels.fused.convolution import convolve_backward
from isohypse.kernels.fused.sums import Sums, column_sums

CHUNK = 64
"""Channels of the state in a piece."""


class Sizes(NamedTuple):
    """Of one mixer and its sequences; one group."""

    heads: int
    state: int
    channels: int
    """Of a head."""
    frames: int
    eps: float

    @property
    def inner(self) -> int:
        return self.heads * self.channels


class Weights(NamedTuple):
    """Parameters, float32."""

    taps: Tensor
    tap_bias: Tensor
    A_log: Tensor
    dt_bias: Tensor
    D: Tensor
    norm: Tensor


def gated_ssd(projected: Tensor, sizes: Sizes, weights: Weights) -> Tensor:
    """projected `[batch * frame, z then x, B, C then dt]` -> `[batch * frame, head * channel]`."""
    return _GatedSSD.apply(projected, sizes, *weights)


class _GatedSSD(torch.autograd.Function):
    @staticmethod
    def forward(ctx, projected: Tensor, sizes: Sizes, *weights: Tensor) -> Tensor:
        w, device = Weights(*weights), projected.device
        rows, (samples, pieces, chunk) = len(projected), _pieces(projected, sizes)
        z, xBC, dt = _parts(projected, sizes)
        stride, taps = projected.stride(0), w.taps.shape[-1]
        answers = torch.empty(samples, pieces, sizes.frames, sizes.frames, device=device)
        kernels.answers_kernel[(samples, pieces)](
            xBC,
            w.taps,
            w.tap_bias,
            answers,
            stride,
            sizes.inner,
            sizes.frames,
            sizes.state,
            chunk,
            taps,
            num_warps=1,
        )
        out = projected.new_empty(rows, sizes.inner)
        squares, reciprocal = torch.empty(sizes.heads, rows, device=device), torch.empty(rows, device=device)
        kernels.heads_kernel[(samples, sizes.heads)](
            z, xBC, dt, *w[:5], answers, out, squares, stride, rows, sizes.heads, sizes.frames,
            sizes.channels, pieces, taps, num_warps=1,
        )  # fmt: skip
        blocks = triton.next_power_of_2(sizes.inner), triton.next_power_of_2(sizes.heads)
        kernels.normalise_kernel[(rows,)](
            out, squares, w.norm, reciprocal, rows, sizes.heads, sizes.inner, sizes.eps, *blocks
        )
        ctx.save_for_backward(projected, answers, out, reciprocal, *weights)
        ctx.sizes = sizes
        return out

    @staticmethod
    def backward(ctx, dout: Tensor) -> tuple[Tensor | None, ...]:
        projected, answers, out, reciprocal, *weights = ctx.saved_tensors
        sizes, w, dout = ctx.sizes, Weights(*weights), dout.contiguous()
        means = torch.empty_like(reciprocal)
        kernels.means_kernel[(len(out),)](out, dout, means, sizes.inner, triton.next_power_of_2(sizes.inner))
        dprojected = torch.empty_like(projected)
        samples, pieces, chunk = _pieces(projected, sizes)
        stride, taps = projected.stride(0), w.taps.shape[-1]
        sums = Sums(samples, {name: weight.numel() for name, weight in zip(w._fields[2:], w[2:])}, out.device)
        each = torch.empty(sizes.heads, samples * sizes.frames**2, device=out.device)
        (z, xBC, dt), (dz, dxBC, ddt) = _parts(projected, sizes), _parts(dprojected, sizes)
        kernels.heads_backward_kernel[(samples, sizes.heads)](
            z, xBC, dt, *w, answers, reciprocal, means, dout, dz, dxBC, ddt, each, *map(sums.place,
            w._fields[2:]), stride, sums.stride, sizes.heads, sizes.frames, sizes.channels, pieces, taps,
            num_warps=1,
        )  # fmt: skip
        kernels.answers_backward_kernel[(samples, pieces)](
            xBC, w.taps, w.tap_bias, column_sums(each), dxBC, stride, sizes.inner, sizes.frames,
            sizes.state, chunk, taps, num_warps=1,
        )  # fmt: skip
        of_convolution = convolve_backward(xBC, dxBC, w.taps, w.tap_bias, sizes.frames)
        return dprojected, None, *of_convolution, *sums.whole().values()


def _parts(projected: Tensor, sizes: Sizes) -> tuple[Tensor, Tensor, Tensor]:
    return projected.split([sizes.inner, sizes.inner + 2 * sizes.state, sizes.heads], 1)


def _pieces(projected: Tensor, sizes: Sizes) -> tuple[int, int, int]:
    """Samples, pieces of the state, channels of a piece."""
    chunk = min(CHUNK, sizes.state)
    return len(projected) // sizes.frames, sizes.state // chunk, chunk
