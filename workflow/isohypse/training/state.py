# SPDX-License-Identifier: Apache-2.0
"""Weights and moments of a training between its ranks: whole, as one process has them, and in parts again.

A checkpoint holds whole tensors, so that any number of ranks can go on with it.
"""

import torch
from torch import Tensor

from isohypse.training.checkpoint import Checkpoint
from isohypse.training.optimizer import optimizer_tensors, restore_optimizer
from isohypse.training.parallel import Alone
from isohypse.training.step import Step


def whole_weights(parallel: Alone) -> dict[str, Tensor]:
    """The weights as one process has them. All ranks must ask."""
    return {name: parallel.whole(name, weight.detach()) for name, weight in parallel.parameters.items()}


def whole_moments(parallel: Alone, step: Step) -> dict[str, Tensor]:
    """The optimizer's moments likewise, as `<parameter>.<moment>`."""
    moments = optimizer_tensors(parallel.parameters, step.optimizer)
    for key, tensor in moments.items():
        name, _, moment = key.rpartition(".")
        moments[key] = tensor if moment == "step" else parallel.whole(name, tensor)
    return moments


@torch.no_grad()
def restore(found: Checkpoint, parallel: Alone, step: Step) -> None:
    """Take this process's part of what `found` holds."""
    parameters, moments = parallel.parameters, {}
    for key, tensor in found.optimizer.items():
        name, _, moment = key.rpartition(".")
        moments[key] = parallel.own(name, tensor) if name in parameters and moment != "step" else tensor
    for name, parameter in parameters.items():
        parameter.copy_(parallel.own(name, found.model[name]))
    restore_optimizer(parameters, step.optimizer, moments)
    step.restore(found.optimizer)
