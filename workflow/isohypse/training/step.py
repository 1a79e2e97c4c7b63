# SPDX-License-Identifier: Apache-2.0
"""One optimisation step: gather, forward, backward, clipping, AdamW, schedule.

`advance` is the host's part: it fills the batch's buffers and starts `_compute`. `_compute` is the device's
part: it reads and writes buffers that stay where they are, finds its learning rate and its row of the
history by a counter on the device, and never asks for a value. It runs eagerly here; `captured.py` runs the
same work as one CUDA graph.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isohypse.config.sections import Training
from isohypse.models.network import Network
from isohypse.training.hardware import autocast
from isohypse.training.optimizer import ClippedAdamW, build_optimizer, schedule

if TYPE_CHECKING:  # the data's libraries, Triton
    from isohypse.training.batches import Batches
    from isohypse.training.fused_adamw import FusedAdamW


class Step:
    """Trains `network` a batch at a time and remembers loss and gradient norm of the last `history` steps.

    rates: float32 [steps], the learning rate of each step. optimizer: holds the weights that are trained
    (`network` may be a working copy of them); every group's `lr` is one shared tensor.
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
    ):
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
        loss = self._loss()
        loss.backward()
        loss = loss.detach()
        self.rate.copy_(self.rates.index_select(0, self.counter).squeeze(0))
        norm = self.optimizer.clipped_step(self.clip_norm)
        self.optimizer.zero_grad(set_to_none=True)
        row = self.counter.remainder(len(self.history))
        self.history.index_copy_(0, row, torch.stack([loss, norm]).unsqueeze(0))
        self.skipped += norm.isfinite().logical_not()  # the optimizer left everything as it was
        self.counter += 1

    def _loss(self) -> Tensor:
        """Mean squared error of the normalised fields over all outputs."""
        inputs, targets = self.batches.gather()
        with autocast(self.precision, self.device):
            prediction = self.network(inputs)
        return F.mse_loss(prediction.float(), targets)

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
) -> Step:
    """The step that trains `network`: compiled and captured on a GPU, unless `mode` is `eager`.

    kernels: what `Network.kernel_names` says for these batches.
    """
    rates = schedule(training, device)
    if mode == "auto" and device.type == "cuda" and find_spec("triton"):
        from isohypse.training.captured import CapturedStep

        return CapturedStep(network, training, batches, rates, precision, history, kernels)
    optimizer = build_optimizer(network, training, device)
    return Step(network, optimizer, batches, rates, training.clip_norm, precision, history)
