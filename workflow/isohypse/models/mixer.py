# SPDX-License-Identifier: Apache-2.0
"""What a mixer owes to its block, and the small modules that mixers share.

A mixer is the part of a block that moves information from frame to frame, `[batch, frame, d_model]` to the
same shape, causally. Everything else of a network treats frames one by one.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from isohypse.kernels import convolution, normalisation
from isohypse.kernels.choice import RECURRENCES, Kernel, choose
from isohypse.kernels.convolution import short_convolution
from isohypse.kernels.precision import at_least_float32
from isohypse.models.projections import project, split

INIT_STD = 0.02
"""Standard deviation of initial weights (flash-linear-attention's `initializer_range`)."""

State = tuple[Any, ...]
"""What stays of the frames seen so far: tensors `[batch, ...]`, in tuples. `tensors_of` lists them."""


class Carried:
    """The plan of a single frame: what is called with it reads the state before and leaves the one after.

    It stands where `forward` has the form of its recurrence. Short convolutions and recurrence take what is
    theirs in the order in which `forward` comes to them, without a frame axis.
    """

    def __init__(self, step: Callable[..., tuple[Tensor, Any]], state: State):
        self._step, self._before, self._after = step, iter(state), []

    @property
    def state(self) -> State:
        """After the frame."""
        return tuple(self._after)

    def __call__(self, *arguments: Tensor) -> Tensor:
        return self._keep(self._step(*arguments, state=next(self._before)))

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return self._keep(convolution.step(x, weight, bias, state=next(self._before)))

    def _keep(self, result: tuple[Tensor, Any]) -> Tensor:
        output, state = result
        self._after.append(state)
        return output


class Mixer(nn.Module):
    """Base of the mixers: which recurrence it runs, and with which kernel.

    `forward(x, plan)` takes what `plan(x)` gives; a stack makes one plan for all its layers. `step` is
    `forward` on one frame, with a plan that carries the state: a mixer has one arithmetic for both. Its parts
    are apart, because a fast step puts something else in the place of some (`models/fused.py`).
    """

    recurrence: ClassVar[str]
    heads: int
    key_dim: int
    """Key channels of a head (Mamba2: state size)."""
    value_dim: int
    """Value channels of a head."""

    def __init__(self, backend: str = "auto"):
        super().__init__()
        self.backend = backend

    def plan(self, x: Tensor) -> Any:
        """What forward needs to know of inputs like x `[batch, frame, d_model]`: the form of its recurrence.

        It is no part of `forward`, so that a compiler has the choice behind it.
        """
        return self.kernel(x.shape[0], x.shape[1], x.device).form

    def forward(self, x: Tensor, plan: Any) -> Tensor:
        return self.last_projection(self.mix(self.products(x), plan))

    def mix(self, products: Sequence[Tensor], plan: Any) -> Tensor:
        """What lies between the first projections and the last one."""
        arguments, gate = self.prepare(products, plan)
        return self.finish(self.form(plan)(*arguments), gate)

    def products(self, x: Tensor) -> Sequence[Tensor]:
        """The projections of x `[..., d_model]`."""
        return project(x, self.shared_input)

    @property
    def joined_weight(self) -> Tensor:
        """Of all projections, once they have been joined (`projections.join`)."""
        return self.shared_input[0].joined

    def parts(self, product: Tensor) -> Sequence[Tensor]:
        """The projections in the product with their joined weight."""
        return split(product, self.shared_input)

    def prepare(self, products: Sequence[Tensor], plan: Any) -> tuple[tuple[Tensor, ...], Tensor | None]:
        """The arguments of the recurrence, and the gate of its output if there is one."""
        raise NotImplementedError

    def form(self, plan: Any) -> Callable[..., Tensor]:
        """The form of the recurrence in a plan."""
        return plan

    def finish(self, o: Tensor, gate: Tensor | None) -> Tensor:
        """The recurrence's output as the last projection takes it, `[..., channel]`."""
        raise NotImplementedError

    @property
    def last_projection(self) -> nn.Linear:
        return self.o_proj

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

    def initial_state(self, batch: int) -> State:
        """Before the first frame: a window for each short convolution, then the memory, all zero.

        Of one size for ever, in float32 at least.
        """
        like = at_least_float32(next(self.parameters()).detach())
        windows = [m.empty_window(batch) for m in self.children() if isinstance(m, ShortConvolution)]
        return (*windows, like.new_zeros(batch, self.heads, self.key_dim, self.value_dim))

    def carried(self, state: State) -> Any:
        """The plan of the frame that follows `state`: a `Carried`."""
        return Carried(RECURRENCES[self.recurrence].step, state)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One more frame x `[batch, d_model]` -> (y, the state after it)."""
        plan = self.carried(state)
        y = self(x, plan)
        return y, plan.state

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

    def empty_window(self, batch: int) -> Tensor:
        """The frames before the first: `[batch, tap - 1, channel]` of zeros."""
        dim, _, taps = self.weight.shape
        return self.weight.new_zeros(batch, taps - 1, dim)

    def forward(self, x: Tensor, plan: Any = None) -> Tensor:
        """x `[batch, frame, channel]`, or one frame `[batch, channel]` if `plan` carries a state."""
        if isinstance(plan, Carried):
            return plan.convolve(x, self.weight[:, 0], self.bias)
        return short_convolution(x, self.weight[:, 0], self.bias)


def tensors_of(state: State) -> Iterator[Tensor]:
    """The tensors of a state, in order."""
    for part in state:
        yield from (part,) if isinstance(part, Tensor) else tensors_of(part)


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
