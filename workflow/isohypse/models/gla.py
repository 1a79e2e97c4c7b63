# SPDX-License-Identifier: Apache-2.0
"""The mixer of GLA: gated linear attention, a memory that fades per key channel.

    q, k, v = W_q x, W_k x, W_v x                        keys half as wide as values
    ln alpha = logsigmoid(W_2 W_1 x + b) / 16            one per key channel, low rank
    o = recurrence of kernels/gla.py                     state [key, value] per head
    y = W_o (RMSNorm(o) * silu(W_g x))                   normalised head by head

Source: Yang et al., arXiv:2312.06635.
Differs from its sisters: no short convolution, no normalised keys; nothing is ever taken out of the memory
but by fading.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from isohypse.kernels.precision import at_least_float32
from isohypse.models.catalogue import GLAFlavour
from isohypse.models.mixer import GatedRMSNorm, Mixer


class GatedLinearAttention(Mixer):
    """Parameters: q_proj, k_proj, v_proj, g_proj, gk_proj.0, gk_proj.1, g_norm_swish_gate, o_proj."""

    recurrence = "gla"

    def __init__(self, flavour: GLAFlavour, backend: str = "auto", *, eps: float = 1e-6):
        super().__init__(backend)
        d_model, self.heads = flavour.d_model, flavour.heads
        keys, values = round(d_model * flavour.expand_k), round(d_model * flavour.expand_v)
        self.key_dim, self.value_dim = keys // self.heads, values // self.heads
        self.gate_normalizer = flavour.gate_normalizer
        self.q_proj = nn.Linear(d_model, keys, bias=False)
        self.k_proj = nn.Linear(d_model, keys, bias=False)
        self.v_proj = nn.Linear(d_model, values, bias=False)
        self.g_proj = nn.Linear(d_model, values, bias=False)
        self.gk_proj = nn.Sequential(
            nn.Linear(d_model, flavour.gate_rank, bias=False), nn.Linear(flavour.gate_rank, keys)
        )
        self.g_norm_swish_gate = GatedRMSNorm(self.value_dim, eps)
        self.o_proj = nn.Linear(values, d_model, bias=False)

    @property
    def shared_input(self) -> tuple[nn.Linear, ...]:
        """The projections of the mixer's own input (`projections.join`)."""
        return self.q_proj, self.k_proj, self.v_proj, self.g_proj, self.gk_proj[0]

    def prepare(self, products: Sequence[Tensor], plan: Any) -> tuple[tuple[Tensor, ...], Tensor]:
        q, k, v, gate, low_rank = products
        logit = self.gk_proj[1](low_rank)
        q, k, v, gate, logit = (z.unflatten(-1, (self.heads, -1)) for z in (q, k, v, gate, logit))
        log_decay = F.logsigmoid(at_least_float32(logit)) / self.gate_normalizer
        return (q, k, v, log_decay), gate

    def finish(self, o: Tensor, gate: Tensor) -> Tensor:
        return self.g_norm_swish_gate(o, gate).flatten(-2)

    def mixing_multiply_adds(self, frames: int) -> int:
        """Each state entry fades and is written, then read."""
        return 2 * frames * self.heads * self.key_dim * self.value_dim
