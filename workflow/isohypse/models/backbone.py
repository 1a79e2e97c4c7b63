# SPDX-License-Identifier: Apache-2.0
"""Residual blocks around a mixer, as flash-linear-attention builds them, and the stack of them.

    ResidualBlock   h = x + mixer(norm(x));  y = h + mlp(norm(h))        five of the six
    MixerBlock      y = x + mixer(norm(x))                               Mamba2

The residual stream is float32 at least, also under autocast, so that the sum of forty branches keeps the
small ones. A final norm ends the stack. Frames meet in the mixers only.
"""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from isohypse.kernels.precision import at_least_float32
from isohypse.models.catalogue import Flavour
from isohypse.models.mixer import Mixer, RMSNorm, State
from isohypse.models.projections import project


class GatedMLP(nn.Module):
    """SwiGLU: W_down (silu(W_gate x) * W_up x) (Shazeer, arXiv:2002.05202)."""

    def __init__(self, d_model: int, width: int):
        super().__init__()
        self.gate_proj = nn.Linear(d_model, width, bias=False)
        self.up_proj = nn.Linear(d_model, width, bias=False)
        self.down_proj = nn.Linear(width, d_model, bias=False)

    @property
    def shared_input(self) -> tuple[nn.Linear, ...]:
        """The projections that one product can serve (`projections.join`)."""
        return self.gate_proj, self.up_proj

    def forward(self, x: Tensor) -> Tensor:
        gate, up = project(x, self.shared_input)
        return self.down_proj(F.silu(gate) * up)


class ResidualBlock(nn.Module):
    """Mixer and MLP, each behind its norm and beside its residual."""

    eps = 1e-6

    def __init__(self, mixer: Mixer, flavour: Flavour):
        super().__init__()
        self.attn_norm = RMSNorm(flavour.d_model, self.eps)
        self.attn = mixer
        self.mlp_norm = RMSNorm(flavour.d_model, self.eps)
        self.mlp = GatedMLP(flavour.d_model, flavour.mlp_width)

    @property
    def sequence_mixer(self) -> Mixer:
        return self.attn

    def forward(self, x: Tensor, plan: Any) -> Tensor:
        x = x + self.attn(self.attn_norm(x), plan)
        return x + self.mlp(self.mlp_norm(x))


class MixerBlock(nn.Module):
    """A mixer that is the whole block."""

    eps = 1e-5

    def __init__(self, mixer: Mixer, flavour: Flavour):
        super().__init__()
        self.norm = RMSNorm(flavour.d_model, self.eps)
        self.mixer = mixer

    @property
    def sequence_mixer(self) -> Mixer:
        return self.mixer

    def forward(self, x: Tensor, plan: Any) -> Tensor:
        return x + self.mixer(self.norm(x), plan)


class Backbone(nn.Module):
    """A stack of blocks of one kind: `[batch, frame, d_model]` -> the same, causal in frames."""

    def __init__(
        self, mixer: type[Mixer], block: type[ResidualBlock | MixerBlock], flavour: Flavour, backend: str
    ):
        super().__init__()
        self.d_model = flavour.d_model
        self.layers = nn.ModuleList(block(mixer(flavour, backend), flavour) for _ in range(flavour.layers))
        self.norm = RMSNorm(flavour.d_model, block.eps)

    @property
    def mixers(self) -> list[Mixer]:
        """The mixers, first layer first."""
        return [layer.sequence_mixer for layer in self.layers]

    def forward(self, x: Tensor) -> Tensor:
        x = at_least_float32(x)
        plan = self.mixers[0].plan(x)
        for layer in self.layers:
            x = layer(x, plan)
        return self.norm(x)

    def initial_state(self, batch: int) -> State:
        """Before the first frame, layer by layer."""
        return tuple(mixer.initial_state(batch) for mixer in self.mixers)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One more frame x `[batch, d_model]` -> (y, the state after it)."""
        x = at_least_float32(x)
        after = []
        for layer, before in zip(self.layers, state):
            plan = layer.sequence_mixer.carried(before)
            x = layer(x, plan)
            after.append(plan.state)
        return self.norm(x), tuple(after)
