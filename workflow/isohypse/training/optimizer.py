# SPDX-License-Identifier: Apache-2.0
"""AdamW and its learning rate (Table 3 of the paper): what is decayed, how fast it learns and when.

Two optimizers do the same arithmetic behind one call, `clipped_step(clip_norm)`: torch's own on any device,
and `fused_adamw.FusedAdamW` in the captured step of a GPU. The moments travel to and from checkpoints under
their parameters' names, so that either goes on where the other stopped.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from isohypse.config.sections import Training
from isohypse.errors import TrainingError
from isohypse.models.network import Network

MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def learning_rate_at(step: int, training: Training) -> float:
    """The learning rate of `step`, counted from 1.

    Linear from learning_rate / warmup_steps up to learning_rate, then half a cosine down to the final
    fraction of it at schedule_steps (None: the last step), and constant after that.
    """
    peak, warmup = training.learning_rate, training.warmup_steps
    if step <= warmup:
        return peak * step / warmup
    horizon = training.schedule_steps or training.steps
    progress = min(1.0, (step - warmup) / (horizon - warmup))
    floor = training.final_learning_rate_fraction
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress)))


def schedule(training: Training, device: torch.device) -> Tensor:
    """float32 [steps]: the learning rate of every step, so that a step finds its own on the device."""
    rates = [learning_rate_at(step, training) for step in range(1, training.steps + 1)]
    return torch.tensor(rates, dtype=torch.float32, device=device)


class ClippedAdamW(torch.optim.AdamW):
    """torch's fused AdamW. Clipping needs no pass of its own: the kernel divides gradients as it reads.

    norm_of: gives the norm of the whole gradient where this process holds a part of it.
    """

    norm_of: Callable[[], Tensor] | None = None

    @torch.no_grad()
    def clipped_step(self, clip_norm: float) -> Tensor:
        """Clip by the norm of the whole gradient and update. Returns the norm before clipping.

        A norm that is not finite updates nothing.
        """
        norm = self.norm_of() if self.norm_of else nn.utils.get_total_norm(self._gradients())
        self.grad_scale = ((norm + 1e-6) / clip_norm).clamp(min=1)
        self.found_inf = norm.isfinite().logical_not().float()  # read by the kernel, which then does nothing
        self.step()
        return norm

    def _gradients(self) -> list[Tensor]:
        return [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]


def build_optimizer(
    network: Network,
    training: Training,
    device: torch.device,
    stand_ins: Mapping[int, nn.Parameter] | None = None,
) -> ClippedAdamW:
    """AdamW whose learning rate is one tensor on the device, shared by both groups.

    stand_ins: what is trained in the place of a parameter of the network, by its id.
    """
    groups = parameter_groups(network, training, device)
    for group in groups:
        group["params"] = [(stand_ins or {}).get(id(p), p) for p in group["params"]]
    betas = (training.beta1, training.beta2)
    # On a CPU fused AdamW is three times as fast as foreach (3.2 against 11 ms at 1.1M parameters).
    return ClippedAdamW(
        groups,
        lr=groups[0]["lr"],
        betas=betas,
        eps=training.epsilon,
        fused=True,
        capturable=device.type == "cuda",
    )


def parameter_groups(network: Network, training: Training, device: torch.device) -> list[dict[str, Any]]:
    """What is decayed and what not, under one learning rate.

    Norms, biases, A_log, dt_bias and D are not decayed (`Network.decay_groups`).
    """
    rate = torch.zeros((), device=device)
    decayed, kept = network.decay_groups()
    return [
        {"params": decayed, "weight_decay": training.weight_decay, "lr": rate},
        {"params": kept, "weight_decay": 0.0, "lr": rate},
    ]


def optimizer_tensors(
    parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """The moments as `<parameter>.<moment>`; nothing for a parameter that has not been stepped."""
    return {
        f"{name}.{moment}": optimizer.state[parameter][moment]
        for name, parameter in parameters.items()
        if optimizer.state.get(parameter)
        for moment in MOMENTS
    }


def restore_optimizer(
    parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]
) -> None:
    """The inverse of `optimizer_tensors`. Raises TrainingError if a parameter has no moments there."""
    for name, parameter in parameters.items():
        state = optimizer.state[parameter]
        for moment in MOMENTS:
            if f"{name}.{moment}" not in tensors:
                raise TrainingError(f"the checkpoint has no {moment} of {name}: it is of another network")
            found = tensors[f"{name}.{moment}"]
            if moment in state:  # a captured step relies on where they lie
                state[moment].copy_(found)
            else:  # fused AdamW keeps its step count beside the parameter
                state[moment] = found.to(parameter.device, copy=True)
