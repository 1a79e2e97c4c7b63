# SPDX-License-Identifier: Apache-2.0
"""Causal softmax attention with rotary positions: `kernels/rotary.py` and `kernels/attention.py` in one kernel.

With S = scale q k^T on rotated q and k, P = softmax(S), o = P v:

    dv = P^T do,  dP = do v^T,  dS = P (dP - sum_s P dP),  dq = scale dS k,  dk = scale dS^T q

and the gradients of q and k turn back. A rotation acts on pairs (i, i + dim / 2), so that each head is held as
two halves.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from isohypse.kernels.fused.tile import ROWS, causal, precision_of, product, rows_of, tiles_of
from isohypse.kernels.rotary import Turns


def rotary_attention(joined: Tensor, turns: Turns, heads: int) -> Tensor:
    """joined `[batch * frame, q then k then v (padded)]` -> `[batch * frame, head * channel]`."""
    return _RotaryAttention.apply(joined, *turns, heads)


class _RotaryAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, joined: Tensor, cosine: Tensor, sine: Tensor, heads: int) -> Tensor:
        frames, half = len(cosine), cosine.shape[-1]
        ctx.save_for_backward(joined, cosine, sine)
        ctx.heads = heads
        o = joined.new_empty(len(joined), 2 * half * heads)
        _forward[_grid(joined, frames, heads)](
            joined, cosine, sine, o, *_sizes(joined, frames, half, heads), num_warps=_warps(half)
        )
        return o

    @staticmethod
    def backward(ctx, do: Tensor) -> tuple[Tensor, None, None, None]:
        joined, cosine, sine = ctx.saved_tensors
        frames, half = len(cosine), cosine.shape[-1]
        djoined = torch.empty_like(joined)
        if joined.shape[1] > 6 * half * ctx.heads:
            djoined[:, 6 * half * ctx.heads :].zero_()
        _backward[_grid(joined, frames, ctx.heads)](
            joined,
            cosine,
            sine,
            do.contiguous(),
            djoined,
            *_sizes(joined, frames, half, ctx.heads),
            num_warps=_warps(half),
        )
        return djoined, None, None, None


def _grid(joined: Tensor, frames: int, heads: int) -> tuple[int, int]:
    return tiles_of(len(joined) // frames, frames), heads


def _sizes(joined: Tensor, frames: int, half: int, heads: int) -> tuple:
    return (
        len(joined),
        joined.stride(0),
        (2 * half) ** -0.5,
        heads,
        frames,
        ROWS,
        half,
        precision_of(joined.dtype),
    )


def _warps(half: int) -> int:
    return max(1, half // 32)


@triton.jit
def _load(x, rows, there, columns, stride):
    places = rows[:, None] * stride + columns[None, :]
    return tl.load(x + places, mask=there[:, None], other=0.0).to(tl.float32)


@triton.jit
def _store(x, value, rows, there, columns, stride):
    places = rows[:, None] * stride + columns[None, :]
    tl.store(x + places, value.to(x.dtype.element_ty), mask=there[:, None])


@triton.jit
def _rotated(x, cosine, sine, rows, there, columns, stride, HALF: tl.constexpr):
    """Both halves, turned."""
    first, second = _load(x, rows, there, columns, stride), _load(x + HALF, rows, there, columns, stride)
    return first * cosine - second * sine, second * cosine + first * sine


@triton.jit
def _inputs(
    joined,
    cosine,
    sine,
    total,
    stride,
    scale,
    HEADS,
    T: tl.constexpr,
    ROWS: tl.constexpr,
    HALF: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Rows, rotated q and k, v by halves, angles and P of this program's tile and head."""
    rows, frame, there = rows_of(tl.program_id(0), total, T, ROWS)
    columns = tl.arange(0, HALF)
    angle = frame[:, None] * HALF + columns[None, :]
    c, s = tl.load(cosine + angle), tl.load(sine + angle)
    width = 2 * HALF * HEADS
    x = joined + 2 * HALF * tl.program_id(1)
    q1, q2 = _rotated(x, c, s, rows, there, columns, stride, HALF)
    k1, k2 = _rotated(x + width, c, s, rows, there, columns, stride, HALF)
    v1 = _load(x + 2 * width, rows, there, columns, stride)
    v2 = _load(x + 2 * width + HALF, rows, there, columns, stride)
    S = scale * (product(q1, tl.trans(k1), PRECISION) + product(q2, tl.trans(k2), PRECISION))
    S = tl.where(causal(T, ROWS), S, -float("inf"))
    P = tl.exp(S - tl.max(S, 1)[:, None])
    P /= tl.sum(P, 1)[:, None]
    return rows, there, columns, q1, q2, k1, k2, v1, v2, c, s, P


@triton.jit
def _forward(
    joined,
    cosine,
    sine,
    o,
    total,
    stride,
    scale,
    HEADS: tl.constexpr,
    T: tl.constexpr,
    ROWS: tl.constexpr,
    HALF: tl.constexpr,
    PRECISION: tl.constexpr,
):
    rows, there, columns, _, _, _, _, v1, v2, _, _, P = _inputs(
        joined, cosine, sine, total, stride, scale, HEADS, T, ROWS, HALF, PRECISION
    )
    o += 2 * HALF * tl.program_id(1)
    _store(o, product(P, v1, PRECISION), rows, there, columns, 2 * HALF * HEADS)
    _store(o + HALF, product(P, v2, PRECISION), rows, there, columns, 2 * HALF * HEADS)


@triton.jit
def _backward(
    joined,
    cosine,
    sine,
    do,
    djoined,
    total,
    stride,
    scale,
    HEADS: tl.constexpr,
    T: tl.constexpr,
    ROWS: tl.constexpr,
    HALF: tl.constexpr,
    PRECISION: tl.constexpr,
):
    rows, there, columns, q1, q2, k1, k2, v1, v2, c, s, P = _inputs(
        joined, cosine, sine, total, stride, scale, HEADS, T, ROWS, HALF, PRECISION
    )
    width = 2 * HALF * HEADS
    do += 2 * HALF * tl.program_id(1)
    dx = djoined + 2 * HALF * tl.program_id(1)
    do1, do2 = _load(do, rows, there, columns, width), _load(do + HALF, rows, there, columns, width)
    _store(dx + 2 * width, product(tl.trans(P), do1, PRECISION), rows, there, columns, stride)
    _store(dx + 2 * width + HALF, product(tl.trans(P), do2, PRECISION), rows, there, columns, stride)
    dP = product(do1, tl.trans(v1), PRECISION) + product(do2, tl.trans(v2), PRECISION)
    dS = scale * P * (dP - tl.sum(P * dP, 1)[:, None])
    d1, d2 = product(dS, k1, PRECISION), product(dS, k2, PRECISION)
    _store_turned_back(dx, d1, d2, c, s, rows, there, columns, stride, HALF)
    d1, d2 = product(tl.trans(dS), q1, PRECISION), product(tl.trans(dS), q2, PRECISION)
    _store_turned_back(dx + width, d1, d2, c, s, rows, there, columns, stride, HALF)


@triton.jit
def _store_turned_back(dx, d1, d2, cosine, sine, rows, there, columns, stride, HALF: tl.constexpr):
    _store(dx, d1 * cosine + d2 * sine, rows, there, columns, stride)
    _store(dx + HALF, d2 * cosine - d1 * sine, rows, there, columns, stride)
