# SPDX-License-Identifier: Apache-2.0
"""Sums over the ranks of a tensor-parallel group, with their gradients, and norms over divided channels."""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from isohypse.kernels.precision import at_least_float32
from isohypse.models.mamba2 import GroupedRMSNorm
from isohypse.models.mixer import GatedRMSNorm, RMSNorm


class _Enter(torch.autograd.Function):
    """The same input for all ranks; each has a part of its gradient."""

    @staticmethod
    def forward(ctx, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return _summed(gradient, ctx.group), None


class _Leave(torch.autograd.Function):
    """The sum of all ranks' parts; what follows is the same on all of them."""

    @staticmethod
    def forward(ctx, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        return _summed(x, group)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class _Sum(torch.autograd.Function):
    """The sum of all ranks' parts, used differently by each of them."""

    @staticmethod
    def forward(ctx, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return _summed(x, group)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return _summed(gradient, ctx.group), None


def _summed(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    total = at_least_float32(x).clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total, group=group)
    return total.to(x.dtype)


def enter(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    """Into the part of a network that is divided among the ranks of `group`."""
    return _Enter.apply(x, group)


def leave(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    """Out of it: float32 at least, the sum of what the ranks have."""
    return _Leave.apply(at_least_float32(x), group)


class SplitNorm(nn.Module):
    """An RMSNorm whose channels are divided among the ranks of `group`; the same weight, the same numbers."""

    def __init__(self, norm: RMSNorm, group: dist.ProcessGroup):
        super().__init__()
        self.weight, self.eps = norm.weight, norm.eps
        self.group, self.ranks = group, dist.get_world_size(group)

    def _normalised(self, x: Tensor) -> Tensor:
        mean = _Sum.apply(x.square().mean(-1, keepdim=True), self.group) / self.ranks
        return x * torch.rsqrt(mean + self.eps) * self.weight

    def forward(self, x: Tensor) -> Tensor:
        return self._normalised(at_least_float32(x)).to(x.dtype)


class SplitGatedNorm(SplitNorm):
    """As `GatedRMSNorm`."""

    def __init__(self, norm: GatedRMSNorm, group: dist.ProcessGroup):
        super().__init__(norm, group)
        self.activation = torch.sigmoid if norm.sigmoid else F.silu

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        return (self._normalised(at_least_float32(x)) * self.activation(at_least_float32(gate))).to(x.dtype)


class SplitGroupedNorm(SplitNorm):
    """As Mamba2's `GroupedRMSNorm` with one group: the gate comes before the norm."""

    def forward(self, y: Tensor, gate: Tensor) -> Tensor:
        return self._normalised(at_least_float32(y) * F.silu(at_least_float32(gate))).to(y.dtype)


def split_norm(norm: RMSNorm, group: dist.ProcessGroup) -> SplitNorm:
    """The divided form of `norm`, with its (already cut) weight."""
    kinds = {GatedRMSNorm: SplitGatedNorm, GroupedRMSNorm: SplitGroupedNorm}
    return kinds.get(type(norm), SplitNorm)(norm, group)
