# SPDX-License-Identifier: Apache-2.0
"""Batches of windows on the device: heights in metres in, normalised (inputs, targets) out.

Heights lie on the device as they are in the archive, in two bytes each where all of them are whole metres
(NCEP's are), and are normalised as they are gathered (`gathering.py`). Where the training frames fit, they
all lie there (112,500 frames at 500 hPa are 2.4 GB, with 17 levels 40 GB) and a batch is one gather.
Otherwise they are streamed (`streaming.py`).

Which windows a step has follows from (seed, step) alone (`data.windows.Order`) and not from where the frames
lie, so a resumed training goes on with the same batches; of several processes each takes its own part of
them (`parallel.share_of`).

All kinds divide a step's work in the same way. `load` is the host's part and may do anything; `gather` is
the device's part: fixed shapes, no synchronisation, nothing that depends on values, so that it can be
captured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from isohypse.data.windows import Order
from isohypse.training.gathering import gather
from isohypse.training.hardware import free_bytes

if TYPE_CHECKING:  # needs the data's libraries
    from isohypse.training.frames import Frames, Normalisation

RESIDENT_FRACTION = 0.5  # of free memory that frames may take; model and activations need the rest

Allocate = Callable[[torch.dtype, tuple[int, ...]], Tensor | None]
"""A tensor of that type and shape, or None where there is no room for it."""


class Batches(Protocol):
    """A source of batches of one fixed shape."""

    def load(self, step: int) -> None:
        """Bring what the batch of `step` (from 0) needs into the device buffers."""

    def gather(self) -> tuple[Tensor, Tensor]:
        """(inputs [batch, t_in, level, latitude, longitude], targets [batch, t_out, ...]), normalised."""

    def close(self) -> None:
        """Let go of threads and files."""


@dataclass(frozen=True)
class Draw:
    """Which windows a training sees and how. Inputs are rounded to `input_type`; targets are float32."""

    order: Order
    t_in: int
    t_out: int
    input_type: torch.dtype = torch.float32

    @property
    def length(self) -> int:
        """Frames of a window."""
        return self.t_in + self.t_out

    @property
    def frames(self) -> slice:
        """The frames of the archive that the windows are made of."""
        starts = self.order.starts
        return slice(int(starts[0]), int(starts[-1]) + self.length)


class GatheredBatches:
    """Windows gathered from `heights`: metres [time, level, latitude, longitude] on the device.

    `starts` [batch, 1] says where in it each window of the step begins.
    """

    def __init__(self, heights: Tensor, draw: Draw, normalisation: Normalisation):
        self.heights, self.draw = heights, draw
        device = heights.device
        self.mean_m = torch.from_numpy(normalisation.mean_m).to(device)
        self.std_m = torch.from_numpy(normalisation.std_m).to(device)
        self.starts = torch.zeros(draw.order.places, 1, dtype=torch.int64, device=device)
        self.input_steps = torch.arange(draw.t_in, device=device)
        self.target_steps = torch.arange(draw.t_in, draw.length, device=device)

    def gather(self) -> tuple[Tensor, Tensor]:
        return self._take(self.input_steps, self.draw.input_type), self._take(
            self.target_steps, torch.float32
        )

    def _take(self, steps: Tensor, dtype: torch.dtype) -> Tensor:
        return gather(self.heights, self.starts + steps, self.mean_m, self.std_m, dtype)

    def _start_at(self, starts: np.ndarray) -> None:
        self.starts.copy_(torch.from_numpy(starts)[:, None], non_blocking=True)


class ResidentBatches(GatheredBatches):
    """All of the draw's frames lie on the device."""

    def load(self, step: int) -> None:
        self._start_at(self.draw.order(step) - self.draw.frames.start)

    def close(self) -> None:
        pass


def reside(frames: Frames, needed: slice, device: torch.device) -> Tensor | None:
    """The heights of the frames `needed` on the device, or None if they do not fit."""

    def allocate(dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor | None:
        return torch.empty(shape, dtype=dtype, device=device) if fits(dtype, shape, device) else None

    return heights_of(frames, needed, allocate)


def fits(dtype: torch.dtype, shape: tuple[int, ...], device: torch.device) -> bool:
    """Whether such a tensor may stay on the device."""
    return int(np.prod(shape)) * dtype.itemsize <= RESIDENT_FRACTION * free_bytes(device)


def heights_of(frames: Frames, needed: slice, allocate: Allocate) -> Tensor | None:
    """The heights of the frames `needed`, exactly: as int16 if all are whole metres, else as float32.

    None if `allocate` has no room.
    """
    for dtype in (torch.int16, torch.float32):
        heights = allocate(dtype, (needed.stop - needed.start, *frames.shape[1:]))
        if heights is None or _fill(heights, frames, needed):
            break
    return heights


def _fill(heights: Tensor, frames: Frames, needed: slice) -> bool:
    """Whether `heights` can hold all of them exactly; stops at the first block that it cannot."""
    for where, block in frames.blocks(needed.start, needed.stop):
        if heights.dtype == torch.int16:
            with np.errstate(invalid="ignore"):  # what is out of range compares unequal
                whole = block.astype(np.int16)
            if not np.array_equal(whole, block):
                return False
            block = whole
        heights[where.start - needed.start : where.stop - needed.start].copy_(torch.from_numpy(block))
    return True
