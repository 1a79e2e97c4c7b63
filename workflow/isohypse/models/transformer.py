# SPDX-License-Identifier: Apache-2.0
"""The Transformer's mixer: causal softmax attention with rotary positions.

    q, k, v = W_q x, W_k x, W_v x          q and k rotated by their frame number
    y = W_o Attention(q, k, v)

Sources: Vaswani et al., arXiv:1706.03762; RoPE: Su et al., arXiv:2104.09864.
Differs from its sisters: it keeps all frames and compares with each of them, so its state grows with the
sequence and its work with the square; it is the only one that needs to be told positions. No gate, no
convolution.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from isohypse.kernels import attention
from isohypse.kernels.precision import at_least_float32
from isohypse.kernels.rotary import Turns, rotate, turns
from isohypse.models.catalogue import TransformerFlavour
from isohypse.models.mixer import Carried, Mixer, State


class Plan(NamedTuple):
    """What all layers share for one shape of input."""

    form: Callable[[Tensor, Tensor, Tensor], Tensor]
    turns: Turns


class CarriedPlan(Carried):
    """`Plan` of a single frame."""

    def __init__(self, state: State, turns: Turns):
        super().__init__(attention.step, state)
        self.form, self.turns = self, turns


class Attention(Mixer):
    """Parameters: q_proj, k_proj, v_proj, o_proj."""

    recurrence = "attention"

    def __init__(self, flavour: TransformerFlavour, backend: str = "auto"):
        super().__init__(backend)
        d_model = flavour.d_model
        self.heads = flavour.heads
        self.key_dim = self.value_dim = d_model // flavour.heads
        self.rope_base = flavour.rope_base
        self.q_proj = nn.Linear(d_model, d_model, bias=False)
        self.k_proj = nn.Linear(d_model, d_model, bias=False)
        self.v_proj = nn.Linear(d_model, d_model, bias=False)
        self.o_proj = nn.Linear(d_model, d_model, bias=False)

    @property
    def shared_input(self) -> tuple[nn.Linear, ...]:
        """The projections of the mixer's own input (`projections.join`)."""
        return self.q_proj, self.k_proj, self.v_proj

    def plan(self, x: Tensor) -> Plan:
        frames = x.shape[1]
        return Plan(attention.form(frames, x.device), self._turns(frames, x))

    def initial_state(self, batch: int) -> State:
        """Keys and values of no frames `[batch, head, frame, dim]`; they grow by one frame a step."""
        memory = at_least_float32(next(self.parameters()).detach())
        return ((memory.new_empty(batch, self.heads, 0, self.key_dim),) * 2,)

    def carried(self, state: State) -> CarriedPlan:
        keys, _ = state[0]
        return CarriedPlan(state, self._turns(1, keys, offset=keys.shape[2]))

    def _turns(self, frames: int, like: Tensor, offset: int = 0) -> Turns:
        dtype = torch.promote_types(like.dtype, torch.float32)
        return turns(frames, self.key_dim, self.rope_base, offset=offset, device=like.device, dtype=dtype)

    def prepare(self, products: Sequence[Tensor], plan: Plan) -> tuple[tuple[Tensor, ...], None]:
        q, k, v = (z.unflatten(-1, (self.heads, -1)) for z in products)
        return (rotate(q, plan.turns), rotate(k, plan.turns), v), None

    def form(self, plan: Plan) -> Callable[..., Tensor]:
        return plan.form

    def finish(self, o: Tensor, gate: None) -> Tensor:
        return o.flatten(-2)

    def kernel_name(self, batch: int, frames: int, device: torch.device) -> str:
        """Chosen by length and device alone: `backend` names the form of a recurrence, and here is none."""
        return attention.name(frames, device)

    def mixing_multiply_adds(self, frames: int) -> int:
        """Scores and weighted sum for each pair s <= t."""
        return 2 * self.heads * self.key_dim * frames * (frames + 1) // 2
