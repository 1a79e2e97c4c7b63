# SPDX-License-Identifier: Apache-2.0
"""The residual sum and the norm behind it: y = x + branch, n = y / sqrt(mean(y^2) + eps) * weight.

The stream x, y `[row, channel]` is float32, branches and n are bf16 (or float32). With dn and what comes
from later blocks, dy: dx = dy + r (w dn - h mean(w dn h)), where r = 1 / sqrt(...) and h = y r; dbranch is
the same numbers, rounded.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from isohypse.kernels.fused.sums import gradient_sums

ROWS = 4
"""That a program of the backward pass takes at once, a warp each."""
PROGRAMS = 512
"""Each leaves its part of the weight's gradient; with more rows than these take at once, they go on."""


def add_norm(x: Tensor | None, branch: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """(y, n) of x `[row, channel]` (None: zero) and branch; y float32, n as branch."""
    return _AddNorm.apply(x, branch, weight, eps)


class _AddNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor | None, branch: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        rows, width = branch.shape
        y = torch.empty(rows, width, device=branch.device)
        n, reciprocal = torch.empty_like(branch), torch.empty(rows, device=branch.device)
        block = triton.next_power_of_2(width)
        _forward[(rows,)](
            x, branch, weight, y, n, reciprocal, width, 0 if x is None else x.stride(0), branch.stride(0),
            eps, x is None, block, num_warps=_warps(block),
        )  # fmt: skip
        ctx.save_for_backward(y, reciprocal, weight)
        ctx.alone, ctx.dtype = x is None, branch.dtype
        ctx.set_materialize_grads(False)
        return y, n

    @staticmethod
    def backward(ctx, dy: Tensor | None, dn: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None]:
        y, reciprocal, weight = ctx.saved_tensors
        rows, width = y.shape
        turns = triton.cdiv(rows, ROWS * PROGRAMS)  # a constant of the kernel: one turn is no loop
        programs, block = triton.cdiv(rows, ROWS * turns), triton.next_power_of_2(width)
        dbranch = torch.empty(rows, width, device=y.device, dtype=ctx.dtype)
        dx = None if ctx.alone else torch.empty_like(y)
        sums = torch.empty(programs, width, device=y.device)
        _backward[(programs,)](
            None if dy is None else dy.contiguous(), dn.contiguous(), y, reciprocal, weight, dx, dbranch,
            sums, rows, width, dy is None, dx is None, turns, ROWS, block, num_warps=ROWS,
        )  # fmt: skip
        return dx, dbranch, gradient_sums(sums), None


def _warps(block: int) -> int:
    return max(1, min(8, block // 256))


@triton.jit
def _forward(
    x,
    branch,
    weight,
    y,
    n,
    reciprocal,
    width,
    x_stride,
    stride,
    eps,
    ALONE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    there = columns < width
    total = tl.load(branch + row * stride + columns, mask=there, other=0.0).to(tl.float32)
    if not ALONE:
        total += tl.load(x + row * x_stride + columns, mask=there, other=0.0)
    r = tl.rsqrt(tl.sum(total * total) / width + eps)
    w = tl.load(weight + columns, mask=there, other=0.0)
    tl.store(y + row * width + columns, total, mask=there)
    tl.store(n + row * width + columns, (total * r * w).to(n.dtype.element_ty), mask=there)
    tl.store(reciprocal + row, r)


@triton.jit
def _backward(
    dy, dn, y, reciprocal, weight, dx, dbranch, sums, rows, width, LAST: tl.constexpr, FIRST: tl.constexpr,
    TURNS: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    columns = tl.arange(0, BLOCK)
    w = tl.load(weight + columns, mask=columns < width, other=0.0)[None, :]
    dw = tl.zeros([BLOCK], tl.float32)
    for turn in range(TURNS):
        row = (tl.program_id(0) * TURNS + turn) * ROWS + tl.arange(0, ROWS)
        there = (row < rows)[:, None] & (columns < width)[None, :]
        places = row.to(tl.int64)[:, None] * width + columns[None, :]
        r = tl.load(reciprocal + row, mask=row < rows, other=0.0)[:, None]
        h = tl.load(y + places, mask=there, other=0.0) * r
        gradient = tl.load(dn + places, mask=there, other=0.0).to(tl.float32)
        if LAST:
            later = tl.zeros([ROWS, BLOCK], tl.float32)
        else:
            later = tl.load(dy + places, mask=there, other=0.0)
        dw += tl.sum(gradient * h, 0)
        gradient *= w
        gradient = later + r * (gradient - h * (tl.sum(gradient * h, 1)[:, None] / width))
        if not FIRST:
            tl.store(dx + places, gradient, mask=there)
        tl.store(dbranch + places, gradient.to(dbranch.dtype.element_ty), mask=there)
    tl.store(sums + tl.program_id(0).to(tl.int64) * width + columns, dw, mask=columns < width)
