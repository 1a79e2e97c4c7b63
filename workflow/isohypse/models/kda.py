# SPDX-License-Identifier: Apache-2.0
"""The mixer of KDA (Kimi delta attention): the delta rule on a memory that fades per key channel.

    q, k = l2norm(conv(W_q x)), l2norm(conv(W_k x));  v = conv(W_v x)      short convolutions with silu
    beta = sigmoid(W_b x)                                                  one per head
    ln alpha = -exp(A_log) softplus(W_f2 W_f1 x + dt_bias)                 one per key channel, low rank
    o = recurrence of kernels/kda.py                                       state [key, value] per head
    y = W_o (RMSNorm(o) * sigmoid(W_g2 W_g1 x + b))                        head by head, gate of low rank

Source: Kimi Team, arXiv:2510.26692.
Differs from its sisters: Gated DeltaNet has one decay per head and a full-rank silu gate, GLA the decay per
channel without the correction.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from isohypse.kernels.normalisation import l2_norm
from isohypse.kernels.precision import at_least_float32
from isohypse.models.catalogue import KDAFlavour
from isohypse.models.mixer import (
    GatedRMSNorm,
    Mixer,
    ShortConvolution,
    initialise_decay_rate,
    initialise_step,
    step_size,
)


class KimiDeltaAttention(Mixer):
    """Parameters: {q,k,v}_proj, b_proj, {f,g}_proj.{0,1}, A_log, dt_bias, {q,k,v}_conv1d, o_norm, o_proj."""

    recurrence = "kda"

    def __init__(self, flavour: KDAFlavour, backend: str = "auto", *, eps: float = 1e-6):
        super().__init__(backend)
        d_model, self.heads, self.key_dim = flavour.d_model, flavour.heads, flavour.head_dim
        self.value_dim = round(flavour.head_dim * flavour.expand_v)
        keys, values = self.heads * self.key_dim, self.heads * self.value_dim
        self.q_proj = nn.Linear(d_model, keys, bias=False)
        self.k_proj = nn.Linear(d_model, keys, bias=False)
        self.v_proj = nn.Linear(d_model, values, bias=False)
        self.b_proj = nn.Linear(d_model, self.heads, bias=False)
        self.f_proj = nn.Sequential(
            nn.Linear(d_model, self.value_dim, bias=False), nn.Linear(self.value_dim, keys, bias=False)
        )
        self.g_proj = nn.Sequential(
            nn.Linear(d_model, self.value_dim, bias=False), nn.Linear(self.value_dim, values)
        )
        self.A_log = nn.Parameter(torch.empty(self.heads))
        self.dt_bias = nn.Parameter(torch.empty(keys))
        self.q_conv1d = ShortConvolution(keys, flavour.conv_size)
        self.k_conv1d = ShortConvolution(keys, flavour.conv_size)
        self.v_conv1d = ShortConvolution(values, flavour.conv_size)
        self.o_norm = GatedRMSNorm(self.value_dim, eps, sigmoid=True)
        self.o_proj = nn.Linear(values, d_model, bias=False)

    def initialise(self) -> None:
        initialise_decay_rate(self.A_log, 1, 16)
        initialise_step(self.dt_bias)

    @property
    def shared_input(self) -> tuple[nn.Linear, ...]:
        """The projections of the mixer's own input (`projections.join`)."""
        return self.q_proj, self.k_proj, self.v_proj, self.f_proj[0], self.g_proj[0], self.b_proj

    def prepare(self, products: Sequence[Tensor], plan: Any) -> tuple[tuple[Tensor, ...], Tensor]:
        q, k, v, f, g, b = products
        q, k, v = self.q_conv1d(q, plan), self.k_conv1d(k, plan), self.v_conv1d(v, plan)
        q, k, v, gate = (z.unflatten(-1, (self.heads, -1)) for z in (q, k, v, self.g_proj[1](g)))
        beta = at_least_float32(b).sigmoid()
        step = step_size(self.f_proj[1](f), self.dt_bias).unflatten(-1, (self.heads, -1))
        log_decay = -at_least_float32(self.A_log).exp()[:, None] * step
        return (l2_norm(q), l2_norm(k), v, log_decay, beta), gate

    def finish(self, o: Tensor, gate: Tensor) -> Tensor:
        return self.o_norm(o, gate).flatten(-2)

    def mixing_multiply_adds(self, frames: int) -> int:
        """Each state entry is recalled, fades and is written, then read."""
        return 3 * frames * self.heads * self.key_dim * self.value_dim
