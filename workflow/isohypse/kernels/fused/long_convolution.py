# SPDX-License-Identifier: Apache-2.0
"""A short convolution and its silu over sequences of any length, as operations that a compiler leaves alone.

    p[t] = bias + sum_i taps[-1 - i] x[t - i],  y = silu(p)
    dp = dy silu'(p),  dx[t] = sum_i dp[t + i] taps[-1 - i]
    dtaps[-1 - i] = sum over samples and t of dp[t] x[t - i],  dbias = sum of dp

The compiler's own kernels for this moved a fifth of what the memory can (an H200, 16,384 frames of 1,024
channels): it does not see that the four moved copies are one array. Here each program has a few frames of a
few channels and reads the copies from its cache. p is computed again in the backward pass.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from isohypse.kernels.fused.frames import no_taps, silu, silu_slope
from isohypse.kernels.fused.sums import PARTS, column_sums

ROWS, CHANNELS, WARPS = 8, 128, 4
"""Frames and channels of a program's tile, and its warps."""


@torch.library.custom_op("isohypse::convolved_silu", mutates_args=())
def convolved_silu(x: Tensor, taps: Tensor, bias: Tensor | None) -> Tensor:
    """x `[batch, frame, channel]`, taps `[channel, tap]`, bias `[channel]` -> as x, in its dtype."""
    x = _in_rows(x)
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    batch, frames, channels = x.shape
    rows = batch * frames
    _forward[(triton.cdiv(rows, ROWS), triton.cdiv(channels, CHANNELS))](
        x, taps.contiguous(), bias, y, rows, frames, channels, x.stride(1), bias is not None, taps.shape[1],
        ROWS, CHANNELS, num_warps=WARPS,
    )  # fmt: skip
    return y


@torch.library.custom_op("isohypse::convolved_silu_backward", mutates_args=())
def convolved_silu_backward(
    dy: Tensor, x: Tensor, taps: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x, taps and bias (without one: of no elements)."""
    x, dy, taps = _in_rows(x), dy.contiguous(), taps.contiguous()
    batch, frames, channels = x.shape
    rows, (_, width) = batch * frames, taps.shape
    before = torch.empty(x.shape, device=x.device)  # dp
    tiles = triton.cdiv(rows, ROWS)
    turns = triton.cdiv(tiles, PARTS)  # of a program that sums: so many tiles one after another
    sums = before.new_empty(triton.cdiv(tiles, turns), (width + (bias is not None)) * channels)
    blocks = triton.cdiv(channels, CHANNELS)
    _backward_sums[(len(sums), blocks)](
        dy, x, taps, bias, before, sums, rows, frames, channels, x.stride(1), sums.stride(0), turns,
        bias is not None, width, ROWS, CHANNELS, num_warps=WARPS,
    )  # fmt: skip
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    _backward_input[(tiles, blocks)](
        before, taps, dx, rows, frames, channels, width, ROWS, CHANNELS, num_warps=WARPS
    )
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


def _in_rows(x: Tensor) -> Tensor:
    """x such that all frames of all samples are rows of one stride; a part of a product's columns is."""
    samples_follow = len(x) == 1 or x.stride(0) == x.shape[1] * x.stride(1)
    return x if x.stride(2) == 1 and samples_follow else x.contiguous()


@triton.jit
def _tile(tile, rows, frames, channels, ROWS: tl.constexpr, CHANNELS: tl.constexpr):
    """Rows, the frames that they are, columns, and which elements exist."""
    row = tile * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    return row, row % frames, columns, (row < rows)[:, None] & (columns < channels)[None, :]


@triton.jit
def _moved(x, row, frame, columns, there, stride, TAPS: tl.constexpr):
    """x moved to later frames by 0, 1, ..."""
    moved = ()
    for i in tl.static_range(TAPS):
        places = (row - i).to(tl.int64)[:, None] * stride + columns[None, :]
        exists = there & (frame >= i)[:, None]
        moved = moved + (tl.load(x + places, mask=exists, other=0.0).to(tl.float32),)
    return moved


@triton.jit
def _tap(taps, i, columns, channels, TAPS: tl.constexpr):
    """Of the frame i before, for each column."""
    tap = tl.load(taps + columns * TAPS + TAPS - 1 - i, mask=columns < channels, other=0.0)
    return tap.to(tl.float32)[None, :]


@triton.jit
def _convolved(xs, taps, bias, columns, channels, BIAS: tl.constexpr, TAPS: tl.constexpr):
    """p, from what `_moved` gives."""
    total = xs[0] * _tap(taps, 0, columns, channels, TAPS)
    for i in tl.static_range(1, TAPS):
        total += xs[i] * _tap(taps, i, columns, channels, TAPS)
    if BIAS:
        total += tl.load(bias + columns, mask=columns < channels, other=0.0).to(tl.float32)[None, :]
    return total


@triton.jit
def _forward(
    x, taps, bias, y, rows, frames, channels, stride, BIAS: tl.constexpr, TAPS: tl.constexpr,
    ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    row, frame, columns, there = _tile(tl.program_id(0), rows, frames, channels, ROWS, CHANNELS)
    xs = _moved(x, row, frame, columns, there, stride, TAPS)
    p = _convolved(xs, taps, bias, columns, channels, BIAS, TAPS)
    places = row.to(tl.int64)[:, None] * channels + columns[None, :]
    tl.store(y + places, silu(p).to(y.dtype.element_ty), mask=there)


@triton.jit
def _backward_sums(
    dy, x, taps, bias, before, sums, rows, frames, channels, stride, sums_stride, turns, BIAS: tl.constexpr,
    TAPS: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """dp, and this program's part of the sums over frames: of each tap by element, then of the bias."""
    columns = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    found = no_taps(tl.zeros([ROWS, CHANNELS], tl.float32), TAPS)
    for turn in range(turns):
        tile = tl.program_id(0) * turns + turn
        row, frame, columns, there = _tile(tile, rows, frames, channels, ROWS, CHANNELS)
        places = row.to(tl.int64)[:, None] * channels + columns[None, :]
        xs = _moved(x, row, frame, columns, there, stride, TAPS)
        p = _convolved(xs, taps, bias, columns, channels, BIAS, TAPS)
        dp = tl.load(dy + places, mask=there, other=0.0).to(tl.float32) * silu_slope(p)
        tl.store(before + places, dp, mask=there)
        more = ()
        for i in tl.static_range(TAPS):
            more = more + (found[i] + dp * xs[i],)
        found = more + (found[TAPS] + dp,)
    mine, exists = sums + tl.program_id(0).to(tl.int64) * sums_stride, columns < channels
    for i in tl.static_range(TAPS):
        tl.store(mine + columns * TAPS + TAPS - 1 - i, tl.sum(found[i], 0), mask=exists)
    if BIAS:
        tl.store(mine + channels * TAPS + columns, tl.sum(found[TAPS], 0), mask=exists)


@triton.jit
def _backward_input(
    before, taps, dx, rows, frames, channels, TAPS: tl.constexpr, ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):  # fmt: skip
    row, frame, columns, there = _tile(tl.program_id(0), rows, frames, channels, ROWS, CHANNELS)
    total = tl.zeros([ROWS, CHANNELS], tl.float32)
    for i in tl.static_range(TAPS):
        places = (row + i).to(tl.int64)[:, None] * channels + columns[None, :]
        later = tl.load(before + places, mask=there & (frame + i < frames)[:, None], other=0.0)
        total += later * _tap(taps, i, columns, channels, TAPS)
    places = row.to(tl.int64)[:, None] * channels + columns[None, :]
    tl.store(dx + places, total.to(dx.dtype.element_ty), mask=there)
