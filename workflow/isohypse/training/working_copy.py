# SPDX-License-Identifier: Apache-2.0
"""The bf16 copy of a network that a GPU step computes with; the float32 weights remain the network's own.

Under autocast every matrix product rounds its float32 weight to bf16 first, each step anew: six bytes of
traffic a weight. Here the weights of all linear layers are kept in bf16 beside the float32 masters, and the
optimizer, which has each new weight in its registers, writes both. The numbers are autocast's own: the same
rounding of the same master, and gradients that come in bf16 either way. What autocast leaves in float32
(norms, convolution taps, biases, decays) is not copied: both networks hold the same parameters.

In the copy, projections that share an input lie together (`models/projections.py`). Masters, moments and
checkpoints know nothing of that.
"""

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from isohypse.models.network import Network
from isohypse.models.projections import join


class Place(NamedTuple):
    """Where the working value of a master parameter lies: from element `start` of `owner`."""

    master: nn.Parameter
    owner: nn.Parameter
    start: int

    @property
    def value(self) -> Tensor:
        """The working weight, flat."""
        return self._part(self.owner.detach())

    @property
    def gradient(self) -> Tensor:
        """The gradient of the last backward pass, flat."""
        return self._part(self.owner.grad)

    def _part(self, whole: Tensor) -> Tensor:
        return whole.view(-1)[self.start : self.start + self.master.numel()]


def in_place(network: nn.Module) -> list[Place]:
    """The places of a network that computes with its own float32 weights."""
    return [Place(parameter, parameter, 0) for parameter in network.parameters()]


class WorkingCopy:
    """`network`: the module to run under bf16 autocast. `places`: one for each parameter of the master.

    dtype: of the weights of linear layers; float32 for a copy of which only the joined projections differ.
    """

    def __init__(self, master: Network, dtype: torch.dtype = torch.bfloat16):
        stand_ins = {id(parameter): parameter for parameter in master.parameters()}
        for module in master.modules():
            if isinstance(module, nn.Linear):
                stand_ins[id(module.weight)] = nn.Parameter(module.weight.detach().to(dtype, copy=True))
        owners = {key: (stand_in, 0) for key, stand_in in stand_ins.items()}
        self.network: Network = copy.deepcopy(master, dict(stand_ins))
        for original, module in zip(master.modules(), self.network.modules()):
            if hasattr(module, "shared_input"):
                owner, start = join(module.shared_input), 0
                for projection in original.shared_input:
                    owners[id(projection.weight)] = (owner, start)
                    start += projection.weight.numel()
        self.places = [Place(parameter, *owners[id(parameter)]) for parameter in master.parameters()]

    @torch.no_grad()
    def refresh(self) -> None:
        """Round the masters anew, after they were changed by something else than the optimizer."""
        for place in self.places:
            if place.owner is not place.master:
                place.value.copy_(place.master.flatten())
