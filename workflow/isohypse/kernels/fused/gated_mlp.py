# SPDX-License-Identifier: Apache-2.0
"""SwiGLU with a backward pass that keeps little: y = W_down (silu(gate) * up).

`gate` and `up` are one product of the input `[row, gate then up]`. The activation h is computed again in the
backward pass, by the kernel that makes the gradients of gate and up, instead of being kept for it: at the
paper's width it is 11.5 MB a layer. For many rows (long sequences) so is the product, which is most of what
a block keeps there: 11.3 KB a row, for a twentieth of a step's time.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from isohypse.kernels.fused.frames import silu, silu_slope
from isohypse.kernels.fused.linear import weight_gradient

BLOCK = 1024
KEPT_ROWS = 8192
"""Most rows of which the product is kept."""


def gated_mlp(x: Tensor, joined: Tensor, down: Tensor) -> Tensor:
    """x `[row, channel]`, weights joined `[2 width (padded), channel]`, down `[channel, width]` -> as x."""
    return _GatedMLP.apply(x, joined, down)


class _GatedMLP(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, joined: Tensor, down: Tensor) -> Tensor:
        product = x @ joined.t()
        rows, width = len(x), down.shape[1]
        h = x.new_empty(rows, width)
        _forward[(rows, triton.cdiv(width, BLOCK))](product, h, width, product.stride(0), BLOCK)
        ctx.save_for_backward(x, joined, down, product if rows <= KEPT_ROWS else None)
        return h @ down.t()

    @staticmethod
    def backward(ctx, dy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, joined, down, product = ctx.saved_tensors
        dproduct, h = _through(product, x, joined, dy @ down)
        ddown = weight_gradient(dy, h)
        return dproduct @ joined, weight_gradient(dproduct, x), ddown


def _through(product: Tensor | None, x: Tensor, joined: Tensor, dh: Tensor) -> tuple[Tensor, Tensor]:
    """(the product's gradient, h). A product that is made again is overwritten; its padding is zero."""
    rows, width = dh.shape
    if product is None:
        product = dproduct = x @ joined.t()
    else:
        dproduct = torch.empty_like(product)
        dproduct[:, 2 * width :].zero_()
    h = torch.empty_like(dh)
    _backward[(rows, triton.cdiv(width, BLOCK))](product, dh, h, dproduct, width, product.stride(0), BLOCK)
    return dproduct, h


@triton.jit
def _inputs(product, width, stride, BLOCK: tl.constexpr):
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    places = tl.program_id(0).to(tl.int64) * stride + columns
    there = columns < width
    gate = tl.load(product + places, mask=there, other=0.0).to(tl.float32)
    up = tl.load(product + places + width, mask=there, other=0.0).to(tl.float32)
    return gate, up, columns, places, there


@triton.jit
def _forward(product, h, width, stride, BLOCK: tl.constexpr):
    gate, up, columns, _, there = _inputs(product, width, stride, BLOCK)
    there_in_h = tl.program_id(0).to(tl.int64) * width + columns
    tl.store(h + there_in_h, (silu(gate) * up).to(h.dtype.element_ty), mask=there)


@triton.jit
def _backward(product, dh, h, dproduct, width, stride, BLOCK: tl.constexpr):
    gate, up, columns, places, there = _inputs(product, width, stride, BLOCK)
    there_in_h = tl.program_id(0).to(tl.int64) * width + columns
    gradient = tl.load(dh + there_in_h, mask=there, other=0.0).to(tl.float32)
    activated = silu(gate)
    dgate, dup = gradient * up * silu_slope(gate), gradient * activated
    tl.store(h + there_in_h, (activated * up).to(h.dtype.element_ty), mask=there)
    tl.store(dproduct + places, dgate.to(h.dtype.element_ty), mask=there)
    tl.store(dproduct + places + width, dup.to(h.dtype.element_ty), mask=there)
