# SPDX-License-Identifier: Apache-2.0
"""The mixer of Mamba2: a selective state space model with one decay per head.

    z, xBC, dt = W_in x                                  one projection for all
    x, B, C = conv(xBC)                                  short convolution with bias and silu
    dt = softplus(dt + dt_bias), A = -exp(A_log)         one per head
    y = recurrence of kernels/ssd.py + D x               state [state, channel] per head
    y = W_out RMSNorm(y * silu(z))                       gated, then normalised over all channels of a group

Source: Dao, Gu, arXiv:2405.21060.
Differs from its sisters: the mixer is the whole block (no MLP beside it, so twice as many layers), keys and
queries (B, C) are shared by all heads of a group, and the gate comes before the norm.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from isohypse.kernels.normalisation import rms_norm
from isohypse.kernels.precision import at_least_float32
from isohypse.models.catalogue import Mamba2Flavour
from isohypse.models.mixer import (
    Mixer,
    RMSNorm,
    ShortConvolution,
    initialise_decay_rate,
    initialise_step,
    step_size,
)


class GroupedRMSNorm(RMSNorm):
    """RMSNorm of y * silu(gate), over the channels of each group."""

    def __init__(self, dim: int, eps: float, groups: int):
        super().__init__(dim, eps)
        self.groups = groups

    def forward(self, y: Tensor, gate: Tensor) -> Tensor:
        gated = at_least_float32(y) * F.silu(at_least_float32(gate))
        weight = self.weight.unflatten(0, (self.groups, -1))
        return rms_norm(gated.unflatten(-1, (self.groups, -1)), weight, self.eps).flatten(-2).to(y.dtype)


class Mamba2(Mixer):
    """Parameters: in_proj, conv1d (with bias), A_log, dt_bias, D, norm, out_proj."""

    recurrence = "ssd"

    def __init__(self, flavour: Mamba2Flavour, backend: str = "auto", *, eps: float = 1e-5):
        super().__init__(backend)
        self.layers, self.groups = flavour.layers, flavour.groups
        self.heads, self.key_dim, self.value_dim = flavour.heads, flavour.state_size, flavour.head_dim
        inner, shared = self.heads * self.value_dim, self.groups * self.key_dim
        self.widths = (inner, inner + 2 * shared, self.heads)
        self.conv_widths = (inner, shared, shared)
        self.in_proj = nn.Linear(flavour.d_model, sum(self.widths), bias=False)
        self.conv1d = ShortConvolution(inner + 2 * shared, flavour.conv_size, bias=True)
        self.A_log = nn.Parameter(torch.empty(self.heads))
        self.dt_bias = nn.Parameter(torch.empty(self.heads))
        self.D = nn.Parameter(torch.empty(self.heads))
        self.norm = GroupedRMSNorm(inner, eps, self.groups)
        self.out_proj = nn.Linear(inner, flavour.d_model, bias=False)

    @torch.no_grad()
    def initialise(self) -> None:
        initialise_decay_rate(self.A_log, 1, 16)
        initialise_step(self.dt_bias)
        nn.init.ones_(self.D)
        # As GPT-2: with one residual branch a layer, each may add 1 / layers of the final variance.
        nn.init.kaiming_uniform_(self.out_proj.weight, a=math.sqrt(5))
        self.out_proj.weight.div_(math.sqrt(self.layers))

    def products(self, x: Tensor) -> Sequence[Tensor]:
        return self.parts(self.in_proj(x))

    @property
    def joined_weight(self) -> Tensor:
        return self.in_proj.weight

    def parts(self, product: Tensor) -> Sequence[Tensor]:
        return product.split(self.widths, -1)

    @property
    def last_projection(self) -> nn.Linear:
        return self.out_proj

    def prepare(self, products: Sequence[Tensor], plan: Any) -> tuple[tuple[Tensor, ...], Tensor]:
        z, xBC, dt = products
        x, B, C = self.conv1d(xBC, plan).split(self.conv_widths, -1)
        x = x.unflatten(-1, (self.heads, -1))
        B, C = (u.unflatten(-1, (self.groups, -1)) for u in (B, C))
        dt = step_size(dt, self.dt_bias)
        A = -at_least_float32(self.A_log).exp()
        return (x, dt, A, B, C, self.D), z

    def finish(self, o: Tensor, gate: Tensor) -> Tensor:
        return self.norm(o.flatten(-2), gate)

    def mixing_multiply_adds(self, frames: int) -> int:
        """Each state entry fades and is written, then read."""
        return 2 * frames * self.heads * self.key_dim * self.value_dim
