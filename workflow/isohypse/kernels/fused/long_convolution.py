# SPDX-License-Identifier: Apache-2.0
"""A short convolution and its silu over sequences of any length, as operations that a compiler leaves alone.

    p[t] = bias + sum_i taps[-1 - i] x[t - i],  y = silu(p)
    dp = dy silu'(p),  dx[t] = sum_i dp[t + i] taps[-1 - i]
    dtaps[-1 - i] = sum over samples and t of dp[t] x[t - i],  dbias = sum of dp

The compiler's own kernels for this moved a fifth of what the memory can (an H200, 16,384 frames of 1,024
channels): it does not see that the four moved copies are one array. Here a program has a span of frames of a
few channels, a frame a register, and reads the taps' reach before it once. The backward pass reads as much
behind it, too, and computes p again, so that dp goes through no memory: it reads dy and x and writes dx.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from isohypse.kernels.fused.frames import activated, no_taps, through_silu
from isohypse.kernels.fused.sums import PARTS, column_sums

SPAN, CHANNELS, WARPS = 16, 64, 1
"""Frames, channels and warps of a program."""


@torch.library.custom_op("isohypse::convolved_silu", mutates_args=())
def convolved_silu(x: Tensor, taps: Tensor, bias: Tensor | None) -> Tensor:
    """x `[batch, frame, channel]`, taps `[channel, tap]`, bias `[channel]` -> as x, in its dtype."""
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    (batch, frames, channels), rows = x.shape, _rows(x)
    spans = triton.cdiv(frames, SPAN)
    _forward[(batch * spans, triton.cdiv(channels, CHANNELS))](
        rows, taps.contiguous(), bias, y, spans, frames, channels, rows.stride(0), bias is not None,
        taps.shape[1], SPAN, CHANNELS, num_warps=WARPS,
    )  # fmt: skip
    return y


@torch.library.custom_op("isohypse::convolved_silu_backward", mutates_args=())
def convolved_silu_backward(
    dy: Tensor, x: Tensor, taps: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x, taps and bias (without one: of no elements)."""
    rows, dy, taps = _rows(x), dy.contiguous(), taps.contiguous()
    (batch, frames, channels), width = x.shape, taps.shape[1]
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    spans = triton.cdiv(frames, SPAN)
    turns = triton.cdiv(batch * spans, PARTS)  # of a program: so many spans one after another
    parts = triton.cdiv(batch * spans, turns)
    sums = torch.empty(parts, (width + (bias is not None)) * channels, device=x.device)
    _backward[(parts, triton.cdiv(channels, CHANNELS))](
        dy, rows, taps, bias, dx, sums, batch * spans, turns, spans, frames, channels, rows.stride(0),
        sums.stride(0), bias is not None, width, SPAN, CHANNELS, num_warps=WARPS,
    )  # fmt: skip
    found = column_sums(sums)
    dtaps, dbias = found[: taps.numel()].view(taps.shape), found[taps.numel() :]
    return dx, dtaps.to(taps.dtype, copy=True), dbias.to(taps.dtype, copy=True)


@convolved_silu.register_fake
def _(x: Tensor, taps: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(x.shape)


@convolved_silu_backward.register_fake
def _(dy: Tensor, x: Tensor, taps: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    dbias = taps.new_empty(0 if bias is None else len(bias))
    return x.new_empty(x.shape), taps.new_empty(taps.shape), dbias


def _keep(ctx, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _gradients(ctx, dy: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    x, taps, bias = ctx.saved_tensors
    dx, dtaps, dbias = convolved_silu_backward(dy, x, taps, bias)
    return dx, dtaps, None if bias is None else dbias


convolved_silu.register_autograd(_gradients, setup_context=_keep)


def _rows(x: Tensor) -> Tensor:
    """x as `[sample and frame, channel]`, channels side by side; a part of a product's columns is no copy."""
    rows = x.reshape(-1, x.shape[2])
    return rows if rows.stride(1) == 1 else rows.contiguous()


@triton.jit
def _frames(x, sample, first, frames, columns, there, stride, COUNT: tl.constexpr):
    """COUNT frames of a sample from `first` on, in float32; 0 where it has none."""
    found = ()
    for i in tl.static_range(COUNT):
        t = first + i
        place = x + (sample * frames + t).to(tl.int64) * stride
        exists = there & (t >= 0) & (t < frames)
        found = found + (tl.load(place + columns, mask=exists, other=0.0).to(tl.float32),)
    return found


@triton.jit
def _store(y, values, sample, first, frames, columns, there, channels, COUNT: tl.constexpr):
    for i in tl.static_range(COUNT):
        t = first + i
        place = y + (sample * frames + t).to(tl.int64) * channels
        tl.store(place + columns, values[i].to(y.dtype.element_ty), mask=there & (t < frames))


@triton.jit
def _weights(taps, bias, columns, there, BIAS: tl.constexpr, TAPS: tl.constexpr):
    """The taps from the last one, of a frame itself, to the first one; behind them the bias."""
    weights = ()
    for i in tl.static_range(TAPS):
        tap = tl.load(taps + columns * TAPS + TAPS - 1 - i, mask=there, other=0.0)
        weights = weights + (tap.to(tl.float32),)
    if BIAS:
        constant = tl.load(bias + columns, mask=there, other=0.0).to(tl.float32)
    else:
        constant = tl.zeros(columns.shape, tl.float32)
    return weights + (constant,)


@triton.jit
def _convolved(xs, weights, COUNT: tl.constexpr, TAPS: tl.constexpr):
    """p of COUNT frames, before the first of which `xs` begins by TAPS - 1."""
    found = ()
    for t in tl.static_range(COUNT):
        total = weights[TAPS] + xs[t + TAPS - 1] * weights[0]
        for i in tl.static_range(1, TAPS):
            total += xs[t + TAPS - 1 - i] * weights[i]
        found = found + (total,)
    return found


@triton.jit
def _forward(
    x, taps, bias, y, spans, frames, channels, stride, BIAS: tl.constexpr, TAPS: tl.constexpr, SPAN:
    tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    sample, first = tl.program_id(0) // spans, tl.program_id(0) % spans * SPAN
    columns = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    there = columns < channels
    weights = _weights(taps, bias, columns, there, BIAS, TAPS)
    xs = _frames(x, sample, first - TAPS + 1, frames, columns, there, stride, SPAN + TAPS - 1)
    ys = activated(_convolved(xs, weights, SPAN, TAPS), SPAN, TAPS)
    _store(y, ys, sample, first, frames, columns, there, channels, SPAN)


@triton.jit
def _backward(
    dy, x, taps, bias, dx, sums, all_spans, turns, spans, frames, channels, stride, sums_stride, BIAS:
    tl.constexpr, TAPS: tl.constexpr, SPAN: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """dx, and this program's part of the sums over frames: of each tap by element, then of the bias."""
    columns = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    there = columns < channels
    reach: tl.constexpr = TAPS - 1  # of the taps, beyond a frame
    weights, found = _weights(taps, bias, columns, there, BIAS, TAPS), no_taps(columns, TAPS)
    for turn in range(turns):
        span = tl.program_id(0) * turns + turn
        if span < all_spans:
            sample, first = span // spans, span % spans * SPAN
            xs = _frames(x, sample, first - reach, frames, columns, there, stride, SPAN + 2 * reach)
            dps = _frames(dy, sample, first, frames, columns, there, channels, SPAN + reach)
            dps = through_silu(dps, _convolved(xs, weights, SPAN + reach, TAPS), SPAN + reach, TAPS)
            dxs = _input_gradient(dps, weights, SPAN, TAPS)
            _store(dx, dxs, sample, first, frames, columns, there, channels, SPAN)
            found = _more(found, dps, xs, SPAN, TAPS)
    mine = sums + tl.program_id(0).to(tl.int64) * sums_stride
    for i in tl.static_range(TAPS):
        tl.store(mine + columns * TAPS + TAPS - 1 - i, found[i], mask=there)
    if BIAS:
        tl.store(mine + channels * TAPS + columns, found[TAPS], mask=there)


@triton.jit
def _input_gradient(dps, weights, COUNT: tl.constexpr, TAPS: tl.constexpr):
    """Of COUNT frames, from dp of these and of the TAPS - 1 after them."""
    found = ()
    for t in tl.static_range(COUNT):
        total = dps[t] * weights[0]
        for i in tl.static_range(1, TAPS):
            total += dps[t + i] * weights[i]
        found = found + (total,)
    return found


@triton.jit
def _more(sums, dps, xs, COUNT: tl.constexpr, TAPS: tl.constexpr):
    """The sums and what COUNT frames add to them; xs as `_convolved` takes it."""
    found = ()
    for i in tl.static_range(TAPS):
        total = sums[i]
        for t in tl.static_range(COUNT):
            total += dps[t] * xs[t + TAPS - 1 - i]
        found = found + (total,)
    total = sums[TAPS]
    for t in tl.static_range(COUNT):
        total += dps[t]
    return found + (total,)
