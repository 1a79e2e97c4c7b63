# SPDX-License-Identifier: Apache-2.0
"""The mixer of Gated DeltaNet: the delta rule on a memory that fades, one decay per head.

    q, k = l2norm(conv(W_q x)), l2norm(conv(W_k x));  v = conv(W_v x)      short convolutions with silu
    beta = sigmoid(W_b x)                                                  one per head
    ln alpha = -exp(A_log) softplus(W_a x + dt_bias)                       one per head, as in Mamba2
    o = recurrence of kernels/gated_delta_rule.py                          state [key, value] per head
    y = W_o (RMSNorm(o) * silu(W_g x))                                     normalised head by head

Source: Yang, Kautz, Hatamizadeh, arXiv:2412.06464.
Differs from its sisters: DeltaNet has neither decay nor gate, KDA a decay per key channel and a sigmoid gate
of low rank.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from isohypse.kernels.normalisation import l2_norm
from isohypse.kernels.precision import at_least_float32
from isohypse.models.catalogue import GatedDeltaNetFlavour
from isohypse.models.mixer import (
    GatedRMSNorm,
    Mixer,
    ShortConvolution,
    initialise_decay_rate,
    initialise_step,
    step_size,
)


class GatedDeltaNet(Mixer):
    """Parameters: {q,k,v,a,b,g}_proj, A_log, dt_bias, {q,k,v}_conv1d, o_norm, o_proj."""

    recurrence = "gated_delta_rule"

    def __init__(self, flavour: GatedDeltaNetFlavour, backend: str = "auto", *, eps: float = 1e-6):
        super().__init__(backend)
        d_model, self.heads, self.key_dim = flavour.d_model, flavour.heads, flavour.head_dim
        self.value_dim = round(flavour.head_dim * flavour.expand_v)
        keys, values = self.heads * self.key_dim, self.heads * self.value_dim
        self.q_proj = nn.Linear(d_model, keys, bias=False)
        self.k_proj = nn.Linear(d_model, keys, bias=False)
        self.v_proj = nn.Linear(d_model, values, bias=False)
        self.a_proj = nn.Linear(d_model, self.heads, bias=False)
        self.b_proj = nn.Linear(d_model, self.heads, bias=False)
        self.g_proj = nn.Linear(d_model, values, bias=False)
        self.A_log = nn.Parameter(torch.empty(self.heads))
        self.dt_bias = nn.Parameter(torch.empty(self.heads))
        self.q_conv1d = ShortConvolution(keys, flavour.conv_size)
        self.k_conv1d = ShortConvolution(keys, flavour.conv_size)
        self.v_conv1d = ShortConvolution(values, flavour.conv_size)
        self.o_norm = GatedRMSNorm(self.value_dim, eps)
        self.o_proj = nn.Linear(values, d_model, bias=False)

    def initialise(self) -> None:
        initialise_decay_rate(self.A_log, 0, 16)
        initialise_step(self.dt_bias)

    @property
    def shared_input(self) -> tuple[nn.Linear, ...]:
        """The projections of the mixer's own input (`projections.join`)."""
        return self.q_proj, self.k_proj, self.v_proj, self.g_proj, self.a_proj, self.b_proj

    def prepare(self, products: Sequence[Tensor], plan: Any) -> tuple[tuple[Tensor, ...], Tensor]:
        q, k, v, gate, a, b = products
        q, k, v = self.q_conv1d(q, plan), self.k_conv1d(k, plan), self.v_conv1d(v, plan)
        q, k, v, gate = (z.unflatten(-1, (self.heads, -1)) for z in (q, k, v, gate))
        beta = at_least_float32(b).sigmoid()
        log_decay = -at_least_float32(self.A_log).exp() * step_size(a, self.dt_bias)
        return (l2_norm(q), l2_norm(k), v, log_decay, beta), gate

    def finish(self, o: Tensor, gate: Tensor) -> Tensor:
        return self.o_norm(o, gate).flatten(-2)

    def mixing_multiply_adds(self, frames: int) -> int:
        """Each state entry is recalled, fades and is written, then read."""
        return 3 * frames * self.heads * self.key_dim * self.value_dim
