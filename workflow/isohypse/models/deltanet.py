# SPDX-License-Identifier: Apache-2.0
"""The mixer of DeltaNet: linear attention whose memory is corrected by the delta rule.

    q, k = l2norm(conv(W_q x)), l2norm(conv(W_k x));  v = conv(W_v x)      short convolutions with silu
    beta = sigmoid(W_b x)                                                  one per head
    o = recurrence of kernels/delta_rule.py                                state [key, value] per head
    y = W_o RMSNorm(o)                                                     normalised head by head

Source: Yang et al., arXiv:2406.06484.
Differs from its sisters: nothing fades, and no output gate.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from isohypse.kernels.normalisation import l2_norm
from isohypse.kernels.precision import at_least_float32
from isohypse.models.catalogue import DeltaNetFlavour
from isohypse.models.mixer import Mixer, RMSNorm, ShortConvolution


class DeltaNet(Mixer):
    """Parameters: q_proj, k_proj, v_proj, b_proj, q_conv1d, k_conv1d, v_conv1d, o_norm, o_proj."""

    recurrence = "delta_rule"

    def __init__(self, flavour: DeltaNetFlavour, backend: str = "auto", *, eps: float = 1e-6):
        super().__init__(backend)
        d_model, self.heads = flavour.d_model, flavour.heads
        self.key_dim = self.value_dim = d_model // self.heads
        self.q_proj = nn.Linear(d_model, d_model, bias=False)
        self.k_proj = nn.Linear(d_model, d_model, bias=False)
        self.v_proj = nn.Linear(d_model, d_model, bias=False)
        self.b_proj = nn.Linear(d_model, self.heads, bias=False)
        self.q_conv1d = ShortConvolution(d_model, flavour.conv_size)
        self.k_conv1d = ShortConvolution(d_model, flavour.conv_size)
        self.v_conv1d = ShortConvolution(d_model, flavour.conv_size)
        self.o_norm = RMSNorm(self.key_dim, eps)
        self.o_proj = nn.Linear(d_model, d_model, bias=False)

    @property
    def shared_input(self) -> tuple[nn.Linear, ...]:
        """The projections of the mixer's own input (`projections.join`)."""
        return self.q_proj, self.k_proj, self.v_proj, self.b_proj

    def prepare(self, products: Sequence[Tensor], plan: Any) -> tuple[tuple[Tensor, ...], None]:
        q, k, v, b = products
        q, k, v = self.q_conv1d(q, plan), self.k_conv1d(k, plan), self.v_conv1d(v, plan)
        q, k, v = (z.unflatten(-1, (self.heads, -1)) for z in (q, k, v))
        beta = at_least_float32(b).sigmoid()
        return (l2_norm(q), l2_norm(k), v, beta), None

    def finish(self, o: Tensor, gate: None) -> Tensor:
        return self.o_norm(o).flatten(-2)

    def mixing_multiply_adds(self, frames: int) -> int:
        """Each state entry is recalled, written and read."""
        return 3 * frames * self.heads * self.key_dim**2
