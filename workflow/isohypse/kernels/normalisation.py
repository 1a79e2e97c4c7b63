# SPDX-License-Identifier: Apache-2.0
"""Normalisation over the last axis, in float32 at least; the result has the dtype of the input."""

import torch
from torch import Tensor
from torch.nn import functional as F

from isohypse.kernels.precision import at_least_float32


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight (Zhang, Sennrich, arXiv:1910.07467)."""
    return _rms_norm(at_least_float32(x), weight, eps).to(x.dtype)


def gated_rms_norm(x: Tensor, gate: Tensor, weight: Tensor, eps: float, *, sigmoid: bool = False) -> Tensor:
    """`rms_norm(x)` times silu(gate), or times sigmoid(gate)."""
    gate = at_least_float32(gate)
    factor = torch.sigmoid(gate) if sigmoid else F.silu(gate)
    return (_rms_norm(at_least_float32(x), weight, eps) * factor).to(x.dtype)


def l2_norm(x: Tensor, eps: float = 1e-6) -> Tensor:
    """x / sqrt(sum(x^2) + eps): queries and keys of the delta rules."""
    raised = at_least_float32(x)
    return (raised * torch.rsqrt(raised.square().sum(-1, keepdim=True) + eps)).to(x.dtype)


def _rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight
