# SPDX-License-Identifier: Apache-2.0
"""The batches of a measurement: one batch, which is there already, for every step."""

import torch
from torch import Tensor


class SameBatch:
    """inputs, targets `[batch, frame, level, latitude, longitude]` on the device of the step."""

    def __init__(self, inputs: Tensor, targets: Tensor):
        self.inputs, self.targets = inputs, targets

    def load(self, step: int) -> None:
        pass

    def gather(self) -> tuple[Tensor, Tensor]:
        return self.inputs, self.targets

    def close(self) -> None:
        pass


class RandomBatch(SameBatch):
    """The same random numbers every time `[batch, frame, *grid]`, the last frame as target.

    grid: levels, latitudes, longitudes.
    """

    def __init__(
        self, batch_size: int, frames: int, grid: tuple[int, int, int], device: torch.device, seed: int = 0
    ):
        generator = torch.Generator(device).manual_seed(seed)
        inputs = torch.randn((batch_size, frames, *grid), generator=generator, device=device)
        super().__init__(inputs, inputs[:, -1:].clone())
