# SPDX-License-Identifier: Apache-2.0
"""A matrix product with a weight, y = x W^T, whose gradient the backward pass leaves aside."""

import torch
from torch import Tensor

from isohypse.kernels.aside import leave


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """x `[row, input]`, weight `[output, input]` of the same dtype -> `[row, output]`."""
    return _Linear.apply(x, weight)


def weight_gradient(dy: Tensor, x: Tensor) -> Tensor:
    """dy `[row, output]`, x `[row, input]` -> `[output, input]`, done when the backward pass ends."""
    gradient = x.new_empty(dy.shape[1], x.shape[1])
    return leave(lambda out: torch.mm(dy.t(), x, out=out), gradient, dy, x)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return x @ weight.t()

    @staticmethod
    def backward(ctx, dy: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        dx = dy @ weight
        return dx, weight_gradient(dy, x)
