# SPDX-License-Identifier: Apache-2.0
"""SwiGLU with a backward pass that keeps its inputs only: y = W_down (silu(gate) * up).

`gate` and `up` come as one product `[row, gate then up]`. The activation h is computed again in the
backward pass, by the kernel that makes the gradients of gate and up, instead of being kept for it: at the
paper's width it is 11.5 MB a layer.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from isohypse.kernels.fused.frames import silu, silu_slope
from isohypse.kernels.fused.linear import weight_gradient

BLOCK = 1024


def gated_mlp(joined: Tensor, down: Tensor) -> Tensor:
    """joined `[row, 2 width (padded)]`, down `[channel, width]` -> `[row, channel]`."""
    return _GatedMLP.apply(joined, down)


class _GatedMLP(torch.autograd.Function):
    @staticmethod
    def forward(ctx, joined: Tensor, down: Tensor) -> Tensor:
        rows, width = len(joined), down.shape[1]
        h = joined.new_empty(rows, width)
        _forward[(rows, triton.cdiv(width, BLOCK))](joined, h, width, joined.stride(0), BLOCK)
        ctx.save_for_backward(joined, down)
        return h @ down.t()

    @staticmethod
    def backward(ctx, dy: Tensor) -> tuple[Tensor, Tensor]:
        joined, down = ctx.saved_tensors
        rows, width = len(joined), down.shape[1]
        dh, h, djoined = dy @ down, joined.new_empty(rows, width), torch.empty_like(joined)
        padding = joined.shape[1] - 2 * width
        if padding:
            djoined[:, 2 * width :].zero_()
        _backward[(rows, triton.cdiv(width, BLOCK))](joined, dh, h, djoined, width, joined.stride(0), BLOCK)
        return djoined, weight_gradient(dy, h)


@triton.jit
def _inputs(joined, width, stride, BLOCK: tl.constexpr):
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    places = tl.program_id(0).to(tl.int64) * stride + columns
    there = columns < width
    gate = tl.load(joined + places, mask=there, other=0.0).to(tl.float32)
    up = tl.load(joined + places + width, mask=there, other=0.0).to(tl.float32)
    return gate, up, columns, places, there


@triton.jit
def _forward(joined, h, width, stride, BLOCK: tl.constexpr):
    gate, up, columns, _, there = _inputs(joined, width, stride, BLOCK)
    there_in_h = tl.program_id(0).to(tl.int64) * width + columns
    tl.store(h + there_in_h, (silu(gate) * up).to(h.dtype.element_ty), mask=there)


@triton.jit
def _backward(joined, dh, h, djoined, width, stride, BLOCK: tl.constexpr):
    gate, up, columns, places, there = _inputs(joined, width, stride, BLOCK)
    there_in_h = tl.program_id(0).to(tl.int64) * width + columns
    gradient = tl.load(dh + there_in_h, mask=there, other=0.0).to(tl.float32)
    activated = silu(gate)
    dgate, dup = gradient * up * silu_slope(gate), gradient * activated
    tl.store(h + there_in_h, (activated * up).to(h.dtype.element_ty), mask=there)
    tl.store(djoined + places, dgate.to(h.dtype.element_ty), mask=there)
    tl.store(djoined + places + width, dup.to(h.dtype.element_ty), mask=there)
