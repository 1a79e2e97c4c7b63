# SPDX-License-Identifier: Apache-2.0
"""The batches of a measurement: one batch, which is there already, for every step."""

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
