# SPDX-License-Identifier: Apache-2.0
"""A mixer between its products at any length: the model's own operations, each stretch of them compiled.

A form in plain PyTorch is compiled together with what leads to it and away from it. A kernel that a compiler
must not look into (`kernels/external.py`; attention over many frames) stands between two compiled stretches,
and its arguments are recomputed in the backward pass instead of being kept (`kernels/recompute.py`): at
16,384 frames that is a fifth (DeltaNet) to a third (KDA) of what a layer would keep.
"""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from isohypse.kernels.choice import FORMS
from isohypse.kernels.external import parts_of
from isohypse.kernels.fused.linear import linear
from isohypse.kernels.recompute import with_recomputed_arguments
from isohypse.models.mixer import Mixer


class CompiledMixer:
    """(n `[batch * frame, d_model]`, plan, frames) -> the factors of the mixer's last product.

    The mixer's projections have been joined. Until `compile` it runs operator by operator.
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
            out = self._around(mixer.form(plan), product, plan)
        return out.flatten(0, 1), mixer.last_projection.weight

    def _around(self, form: Callable[..., Tensor], product: Tensor, plan: Any) -> Tensor:
        adapt, kernel = parts_of(form)

        def make(product: Tensor) -> Sequence[Tensor | None]:
            *arguments, gate = self.start(product, plan)
            return *adapt(*arguments), gate

        def use(*made: Tensor | None) -> Tensor:
            *arguments, gate = made
            return self.end(kernel(*arguments), gate)

        return with_recomputed_arguments(make, product, self.parameters, use)


class _Stretch(nn.Module):
    """Operations of a mixer as a module of their own, which is what shares its compilation among layers."""

    def __init__(self, mixer: Mixer):
        super().__init__()
        self.mixer = mixer


class _Whole(_Stretch):
    def forward(self, product: Tensor, plan: Any) -> Tensor:
        return self.mixer.mix(self.mixer.parts(product), plan)


class _Start(_Stretch):
    """The arguments of the recurrence, and behind them the gate, or None."""

    def forward(self, product: Tensor, plan: Any) -> Sequence[Tensor | None]:
        arguments, gate = self.mixer.prepare(self.mixer.parts(product), plan)
        return *arguments, gate


class _End(_Stretch):
    def forward(self, o: Tensor, gate: Tensor | None) -> Tensor:
        return self.mixer.finish(o, gate)
