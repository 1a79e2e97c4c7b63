# SPDX-License-Identifier: Apache-2.0
"""One optimisation step: gather, forward, backward, clipping, AdamW, schedule.

`advance` is the host's part: it fills the batch's buffers and starts `_compute`. `_compute` is the device's
part: it reads and writes buffers that stay where they are, finds its learning rate and its row of the
history by a counter on the device, and never asks for a value. It runs eagerly here; `captured.py` runs the
same work as one CUDA graph.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from isohypse.config.sections import Training
from isohypse.models.network import Network
from isohypse.training.hardware import autocast
from isohypse.training.optimizer import ClippedAdamW, build_optimizer, schedule
from isohypse.training.parallel import Alone

if TYPE_CHECKING:  # the data's libraries, Triton
    from isohypse.training.batches import Batches
    from isohypse.training.fused_adamw import FusedAdamW


class Step:
    """Trains `network` a batch at a time and remembers loss and gradient norm of the last `history` steps.

    rates: float32 [steps], the learning rate of each step. optimizer: holds the weights that are trained
    (`network` may be a working copy of them); every group's `lr` is one shared tensor. kernels: what
    runs, for the record.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: ClippedAdamW | FusedAdamW,
        batches: Batches,
        rates: Tensor,
        clip_norm: float,
        precision: str,
        history: int,
        kernels: dict[str, str],
        parallel: Alone | None = None,
        micro_batch: int | None = None,
    ):
        self.kernels = kernels
        self.parallel = parallel or Alone(network)
        self.micro_batch = micro_batch
        self.network, self.optimizer, self.batches = network, optimizer, batches
        self.rates, self.clip_norm, self.precision = rates, clip_norm, precision
        self.device = rates.device
        self.rate: Tensor = optimizer.param_groups[0]["lr"]
        self.counter = torch.zeros(1, dtype=torch.int64, device=self.device)  # steps done
        self.history = torch.zeros(history, 2, device=self.device)  # loss, gradient norm
        self.skipped = torch.zeros((), dtype=torch.int64, device=self.device)  # steps without an update

    def advance(self, step: int) -> None:
        """Do `step` (from 0), which must be the one after the last."""
        self.batches.load(step)
        self._compute()

    def _compute(self) -> None:
        loss = self.parallel.finish(self._gradients())
        self.rate.copy_(self.rates.index_select(0, self.counter).squeeze(0))
        norm = self.optimizer.clipped_step(self.clip_norm)
        self.optimizer.zero_grad(set_to_none=True)
        row = self.counter.remainder(len(self.history))
        self.history.index_copy_(0, row, torch.stack([loss, norm]).unsqueeze(0))
        self.skipped += norm.isfinite().logical_not()  # the optimizer left everything as it was
        self.counter += 1

    def _gradients(self) -> Tensor:
        """Backward through this process's windows, a micro-batch at a time. Returns their mean loss."""
        inputs, targets = self.batches.gather()
        size = self.micro_batch or len(inputs)
        parts = list(zip(inputs.split(size), targets.split(size)))
        losses = []
        for number, part in enumerate(parts, 1):
            self.parallel.begin(last=number == len(parts))
            loss = self._loss(*part)
            with self._backward_pass(first=number == 1):
                (loss / len(parts) if len(parts) > 1 else loss).backward()
            losses.append(loss.detach())
        return torch.stack(losses).mean() if len(parts) > 1 else losses[0]

    def _backward_pass(self, first: bool) -> AbstractContextManager:
        """Around each; `first`: there are no gradients yet."""
        return nullcontext()

    def _loss(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Mean squared error of the normalised fields over all outputs."""
        with autocast(self.precision, self.device):
            prediction = self.network(inputs)
        return F.mse_loss(prediction.float(), targets)

    @torch.no_grad()
    def forecast(self, inputs: Tensor) -> Tensor:
        """Forecasts of the weights as they are: [sample, t_in, ...] -> float32 [sample, t_out, ...]."""
        with autocast(self.precision, self.device):
            return self.network(inputs).float()

    def close(self) -> None:
        """Let go of what the process group waits for when it is destroyed."""

    def recent(self, count: int, done: int) -> Tensor:
        """float32 [count, 2] on the CPU: loss and gradient norm of the last `count` of `done` steps.

        `count` is at most the history's length. This waits for the device.
        """
        rows = torch.arange(done - count, done) % len(self.history)
        return self.history.cpu()[rows]

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint must hold of this step beside the weights and the moments."""
        return {
            "step.counter": self.counter,
            "step.history": self.history,
            "step.skipped": self.skipped,
        }

    def skipped_steps(self) -> int:
        """How many steps had a gradient that was not finite and updated nothing."""
        return int(self.skipped)

    def restore(self, tensors: dict[str, Tensor]) -> None:
        self.counter.copy_(tensors["step.counter"])
        self.history.copy_(tensors["step.history"])
        self.skipped.copy_(tensors["step.skipped"])


def build_step(
    network: Network,
    training: Training,
    batches: Batches,
    device: torch.device,
    precision: str,
    *,
    history: int,
    kernels: dict[str, str],
    mode: str = "auto",
    parallel: Alone | None = None,
    micro_batch: int | None = None,
    recompute: bool = False,
) -> Step:
    """The step that trains `network`: compiled and captured on a GPU, unless `mode` is `eager`.

    A network that is divided among ranks runs eagerly. kernels: what `Network.kernel_names` says for these
    batches. recompute: keep no activations of a layer, compute them again in the backward pass.
    """
    rates = schedule(training, device)
    parallel = parallel or Alone(network)
    sharing = {"parallel": parallel, "micro_batch": micro_batch}
    if mode == "auto" and device.type == "cuda" and find_spec("triton") and not parallel.divided:
        from isohypse.training.captured import CapturedStep

        return CapturedStep(
            network, training, batches, rates, precision, history, kernels, recompute=recompute, **sharing
        )
    if recompute:
        recompute_activations(network)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    stand_ins = {key: parallel.parameters[name] for key, name in names.items()}
    optimizer = build_optimizer(network, training, device, stand_ins)
    optimizer.norm_of = parallel.norm if parallel.divided else None
    parallel.attach(network)
    return Step(
        network, optimizer, batches, rates, training.clip_norm, precision, history, kernels, **sharing
    )


def recompute_activations(network: Network) -> None:
    """Let each layer keep its input only."""
    for layer in network.backbone.layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
