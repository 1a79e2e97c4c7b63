# SPDX-License-Identifier: Apache-2.0
"""A mixer between its products at any length: the model's own operations, each stretch of them compiled.

A form in plain PyTorch is compiled together with what leads to it and away from it. A kernel that a compiler
must not look into (`kernels/external.py`; attention over many frames) stands between two compiled stretches,
and its arguments are made again in the backward pass instead of being kept (`kernels/again.py`): at 16,384
frames that is what makes the difference between fitting and not fitting.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from isohypse.kernels.again import with_arguments_again
from isohypse.kernels.choice import FORMS
from isohypse.kernels.fused.linear import linear
from isohypse.models.mixer import Mixer


class Between:
    """(n `[batch * frame, d_model]`, plan, frames) -> the factors of the mixer's last product.

    The mixer's projections have been joined.
    """

    def __init__(self, mixer: Mixer):
        self.mixer = mixer
        self.whole, self.start, self.end = _Whole(mixer), _Start(mixer), _End(mixer)
        products = (mixer.joined_weight, mixer.last_projection.weight)
        self.parameters = [p for p in mixer.parameters() if not any(p is weight for weight in products)]

    def compile(self, **options: Any) -> None:
        """Compile the stretches: one compilation for all layers, without graph breaks."""
        for stretch in (self.whole, self.start, self.end):
            stretch.compile(fullgraph=True, dynamic=False, **options)

    def __call__(self, n: Tensor, plan: Any, frames: int) -> tuple[Tensor, Tensor]:
        mixer, product = self.mixer, linear(n, self.mixer.joined_weight).unflatten(0, (-1, frames))
        if mixer.kernel_name(len(product), frames, n.device) in FORMS:
            out = self.whole(product, plan)
        else:
            make, use = partial(self.start, plan=plan), partial(self._around, mixer.form(plan))
            out = with_arguments_again(make, product, self.parameters, use)
        return out.flatten(0, 1), mixer.last_projection.weight

    def _around(self, kernel: Any, *made: Tensor) -> Tensor:
        arguments, gate = (made[:-1], made[-1]) if self.mixer.gated else (made, None)
        return self.end(kernel(*arguments), gate)


class _Stretch(nn.Module):
    """Operations of a mixer as a module of their own, which is what shares its compilation among layers."""

    def __init__(self, mixer: Mixer):
        super().__init__()
        self.mixer = mixer


class _Whole(_Stretch):
    def forward(self, product: Tensor, plan: Any) -> Tensor:
        arguments, gate = self.mixer.prepare(self.mixer.parts(product), plan)
        return self.mixer.finish(self.mixer.form(plan)(*arguments), gate)


class _Start(_Stretch):
    """The arguments of the recurrence, and the gate behind them if there is one."""

    def forward(self, product: Tensor, plan: Any) -> Sequence[Tensor]:
        arguments, gate = self.mixer.prepare(self.mixer.parts(product), plan)
        return arguments if gate is None else (*arguments, gate)


class _End(_Stretch):
    def forward(self, o: Tensor, gate: Tensor | None) -> Tensor:
        return self.mixer.finish(o, gate)
