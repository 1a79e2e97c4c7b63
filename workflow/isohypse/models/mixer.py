# SPDX-License-Identifier: Apache-2.0
"""What a mixer owes to its block, and the small modules that mixers share.

A mixer is the part of a block that moves information from frame to frame, `[batch, frame, d_model]` to the
same shape, causally. Everything else of a network treats frames one by one.
"""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from isohypse.kernels import normalisation
from isohypse.kernels.choice import Kernel, choose
from isohypse.kernels.convolution import short_convolution
from isohypse.kernels.precision import at_least_float32

INIT_STD = 0.02
"""Standard deviation of initial weights (flash-linear-attention's `initializer_range`)."""


class Mixer(nn.Module):
    """Base of the mixers: which recurrence it runs, and with which kernel.

    `forward(x, plan)` takes what `plan(x)` gives; a stack makes one plan for all its layers.
    """

    recurrence: ClassVar[str]
    heads: int
    key_dim: int
    """Key channels of a head (Mamba2: state size)."""

    def __init__(self, backend: str = "auto"):
        super().__init__()
        self.backend = backend

    def plan(self, x: Tensor) -> Any:
        """What forward needs to know of inputs like x `[batch, frame, d_model]`: the form of its recurrence.

        It is no part of `forward`, so that a compiler has the choice behind it.
        """
        return self.kernel(x.shape[0], x.shape[1], x.device).form

    def kernel(self, batch: int, frames: int, device: torch.device) -> Kernel:
        """The form of the recurrence that serves this length. Raises UnavailableError as `choose` does."""
        return choose(
            self.recurrence,
            frames,
            device,
            self.backend,
            batch=batch,
            heads=self.heads,
            key_dim=self.key_dim,
        )

    def kernel_name(self, batch: int, frames: int, device: torch.device) -> str:
        """Name of that form, for the record."""
        return self.kernel(batch, frames, device).name

    def mixing_multiply_adds(self, frames: int) -> int:
        """Multiply-adds of the recurrence over `frames`, counted on its definition, not on the form used."""
        raise NotImplementedError


class RMSNorm(nn.Module):
    """Root mean square normalisation with a learned weight, computed in float32."""

    def __init__(self, dim: int, eps: float):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(dim))

    def initialise(self) -> None:
        nn.init.ones_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        return normalisation.rms_norm(x, self.weight, self.eps)


class GatedRMSNorm(RMSNorm):
    """RMSNorm times an activation of a gate: silu, or sigmoid."""

    def __init__(self, dim: int, eps: float, *, sigmoid: bool = False):
        super().__init__(dim, eps)
        self.sigmoid = sigmoid

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        return normalisation.gated_rms_norm(x, gate, self.weight, self.eps, sigmoid=self.sigmoid)


class ShortConvolution(nn.Module):
    """Causal depthwise convolution over frames, then silu; weight `[channel, 1, tap]` as a Conv1d has it."""

    def __init__(self, dim: int, taps: int, *, bias: bool = False):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(dim, 1, taps))
        self.bias = nn.Parameter(torch.empty(dim)) if bias else None

    def initialise(self) -> None:
        nn.init.normal_(self.weight, std=INIT_STD)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return short_convolution(x, self.weight[:, 0], self.bias)


def step_size(x: Tensor, dt_bias: Tensor) -> Tensor:
    """dt = softplus(x + dt_bias), in float32 at least."""
    # As -logsigmoid(-y), which is the same: in torch 2.13 the backward of F.softplus has other strides than
    # it tells the compiler, and a compiled backward (backend aot_eager) fails on them.
    return -F.logsigmoid(-(at_least_float32(x) + dt_bias))


@torch.no_grad()
def initialise_decay_rate(A_log: Tensor, low: float, high: float) -> None:
    """Decay rates uniform in (low, high), kept as logarithms so that they stay positive."""
    A_log.uniform_(low, high).clamp_(min=1e-6).log_()


@torch.no_grad()
def initialise_step(dt_bias: Tensor, low: float = 0.001, high: float = 0.1) -> None:
    """Biases whose softplus (the step at zero input) is log-uniform in (low, high)."""
    step = dt_bias.uniform_(math.log(low), math.log(high)).exp()
    dt_bias.copy_(step + torch.log(-torch.expm1(-step)))  # the inverse of softplus
