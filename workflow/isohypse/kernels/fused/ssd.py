# SPDX-License-Identifier: Apache-2.0
"""The mixer of Mamba2 between its two projections.

    x, B, C = silu(conv(xBC) + bias),  dt = softplus(dt + dt_bias),  g = -exp(A_log) dt
    y = (C B^T P dt) x + D x            P[t, s] = exp(g[s+1] + ... + g[t]), as kernels/ssd.py has it
    out = RMSNorm(y * silu(z)) over the channels of all heads

B and C are shared by all heads, and so are their products C B^T, which a kernel of their own forms; another
makes of them the matrix W of each head. The norm needs all heads of a frame: the kernel of the heads leaves
u = y * silu(z) and the sums of its squares, and a further one scales u. Backward, the norm's own sum comes
from what is at hand: with out = u r w,

    sum w dout u r = sum dout out

which is taken first; then the heads, which leave the gradients of W; then these; then B and C.
"""

from typing import NamedTuple

import torch
import triton
from torch import Tensor

from isohypse.kernels.fused import ssd_kernels as kernels
from isohypse.kernels.fused.sums import Sums, parts_of

CHUNK, BACKWARD_CHUNK = 64, 32
"""Channels of the state in a piece."""
MATRICES, HEADS, BACKWARD_HEADS = 4, 2, 1
"""Heads of a program that makes matrices, of one that uses them, and of the backward pass."""


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
        w, call = Weights(*weights), _Call(projected, sizes)
        answers, matrices = call.new(call.pieces, sizes.frames**2), call.new(sizes.heads, sizes.frames**2)
        out = projected.new_empty(len(projected), sizes.inner)
        squares = torch.empty(sizes.heads, len(out), device=out.device)
        reciprocal = call.new(sizes.frames)
        call.run_matrices(w, answers, matrices)
        call.run_heads(w, matrices, out, squares)
        blocks = triton.next_power_of_2(sizes.inner), triton.next_power_of_2(sizes.heads)
        kernels.normalise_kernel[(len(out),)](
            out, squares, w.norm, reciprocal, len(out), sizes.heads, sizes.inner, sizes.eps, *blocks
        )
        ctx.save_for_backward(projected, answers, matrices, out, reciprocal, *weights)
        ctx.sizes = sizes
        return out

    @staticmethod
    def backward(ctx, dout: Tensor) -> tuple[Tensor | None, ...]:
        projected, answers, matrices, out, reciprocal, *weights = ctx.saved_tensors
        call, w, dout = _Call(projected, ctx.sizes), Weights(*weights), dout.contiguous()
        means, inner = torch.empty_like(reciprocal), ctx.sizes.inner
        kernels.means_kernel[(len(out),)](out, dout, means, inner, triton.next_power_of_2(inner))
        back = _Gradients(call, w)
        dmatrices = torch.empty_like(matrices)
        back.run_heads(matrices, (reciprocal, means, dout), dmatrices)
        danswers = back.run_matrices(dmatrices, answers)
        back.run_answers(danswers)
        return back.dprojected, None, *back.sums()


class _Call:
    """The operands of a forward or backward pass, and the kernels of the forward one."""

    def __init__(self, projected: Tensor, sizes: Sizes):
        self.sizes, self.stride = sizes, projected.stride(0)
        self.samples = len(projected) // sizes.frames
        self.projected, self.device = projected, projected.device
        self.z, self.xBC, self.dt = _parts(projected, sizes)
        self.chunk = min(CHUNK, sizes.state)
        self.pieces = sizes.state // self.chunk
        self.side = triton.next_power_of_2(sizes.frames)

    def new(self, *shape: int) -> Tensor:
        """float32 [sample, *shape]."""
        return torch.empty(self.samples, *shape, device=self.device)

    def block(self, most: int) -> int:
        """Heads of a program: a power of two that divides them."""
        return min(most, self.sizes.heads & -self.sizes.heads)

    def run_matrices(self, w: Weights, answers: Tensor, matrices: Tensor) -> None:
        s, block = self.sizes, self.block(MATRICES)
        kernels.answers_kernel[(self.samples, self.pieces)](
            self.xBC, w.taps, w.tap_bias, answers, self.stride, s.inner, s.frames, s.state, self.chunk,
            w.taps.shape[-1], num_warps=1,
        )  # fmt: skip
        kernels.matrices_kernel[(self.samples, s.heads // block)](
            self.dt, w.dt_bias, w.A_log, w.D, answers, matrices, self.stride, s.heads, block, s.frames,
            self.side, self.pieces, num_warps=1,
        )  # fmt: skip

    def run_heads(self, w: Weights, matrices: Tensor, out: Tensor, squares: Tensor) -> None:
        s, block = self.sizes, self.block(HEADS)
        kernels.heads_kernel[(self.samples, s.heads // block)](
            self.z, self.xBC, w.taps, w.tap_bias, matrices, out, squares, self.stride, len(out), s.heads,
            block, s.frames, s.channels, w.taps.shape[-1], num_warps=1,
        )  # fmt: skip


class _Gradients:
    """The gradients of a call, and the kernels that write them."""

    def __init__(self, call: _Call, weights: Weights):
        self.call, self.w = call, weights
        self.dprojected = torch.empty_like(call.projected)
        self.dz, self.dxBC, self.ddt = _parts(self.dprojected, call.sizes)
        sizes = {name: weight.numel() for name, weight in weights._asdict().items()}
        of_heads = {name: sizes.pop(name) for name in ("A_log", "dt_bias", "D")}
        self.of_samples = Sums(call.samples, of_heads, call.device)
        self.of_parts = Sums(parts_of(call.samples), sizes, call.device)
        self.parts = len(self.of_parts.partial)
        self.rounds = triton.cdiv(call.samples, self.parts)

    def run_heads(self, matrices: Tensor, norm: tuple[Tensor, Tensor, Tensor], dmatrices: Tensor) -> None:
        """norm: factor and mean of each row, and dout."""
        call, w, s, sums = self.call, self.w, self.call.sizes, self.of_parts
        block = call.block(BACKWARD_HEADS)
        kernels.heads_backward_kernel[(self.parts, s.heads // block)](
            call.z, call.xBC, w.taps, w.tap_bias, w.norm, matrices, *norm, self.dz, self.dxBC, dmatrices,
            sums.place("taps"), sums.place("tap_bias"), sums.place("norm"), call.stride, sums.stride,
            call.samples, self.rounds, s.heads, block, s.frames, s.channels, w.taps.shape[-1], num_warps=1,
        )  # fmt: skip

    def run_matrices(self, dmatrices: Tensor, answers: Tensor) -> Tensor:
        """Returns the gradient of C B^T, `[sample, T, T]`."""
        call, w, s, sums = self.call, self.w, self.call.sizes, self.of_samples
        danswers = call.new(s.frames**2)
        kernels.matrices_backward_kernel[(call.samples,)](
            dmatrices, call.dt, w.dt_bias, w.A_log, answers, danswers, self.ddt, sums.place("A_log"),
            sums.place("dt_bias"), sums.place("D"), call.stride, sums.stride, s.heads,
            triton.next_power_of_2(s.heads), s.frames, call.side, call.pieces,
        )  # fmt: skip
        return danswers

    def run_answers(self, danswers: Tensor) -> None:
        call, w, s, sums = self.call, self.w, self.call.sizes, self.of_parts
        chunk = min(BACKWARD_CHUNK, s.state)
        kernels.answers_backward_kernel[(self.parts, s.state // chunk)](
            call.xBC, w.taps, w.tap_bias, danswers, self.dxBC, sums.place("taps"), sums.place("tap_bias"),
            call.stride, sums.stride, call.samples, self.rounds, s.inner, s.frames, s.state, chunk,
            w.taps.shape[-1], num_warps=1,
        )  # fmt: skip

    def sums(self) -> list[Tensor]:
        """The gradients of the weights, in their order."""
        found = self.of_samples.whole() | self.of_parts.whole()
        return [found[name].view(weight.shape) for name, weight in self.w._asdict().items()]


def _parts(projected: Tensor, sizes: Sizes) -> tuple[Tensor, Tensor, Tensor]:
    return projected.split([sizes.inner, sizes.inner + 2 * sizes.state, sizes.heads], 1)
