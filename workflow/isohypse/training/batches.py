# SPDX-License-Identifier: Apache-2.0
"""Batches of windows on the device: frames in, (inputs, targets) out.

Where the frames fit, they all lie on the device and a batch is one gather (112,500 frames at 500 hPa are
4.7 GB). Otherwise the frames of a batch are read from the archive while the device works on the one before.

Both kinds divide a step's work in the same way. `load` is the host's part and may do anything; `gather` is
the device's part: fixed shapes, no synchronisation, nothing that depends on values, so that it can be
captured.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from isohypse.training.frames import Frames
from isohypse.training.hardware import free_bytes

RESIDENT_FRACTION = 0.5  # of free memory that frames may take; model and activations need the rest

Order = Callable[[int], np.ndarray]
"""step (from 0) -> int64 [batch], the first input frame of each window."""


class Batches(Protocol):
    """A source of batches of one fixed shape."""

    def load(self, step: int) -> None:
        """Bring what the batch of `step` (from 0) needs into the device buffers."""

    def gather(self) -> tuple[Tensor, Tensor]:
        """(inputs [batch, t_in, level, latitude, longitude], targets [batch, t_out, ...]), normalised."""

    def close(self) -> None:
        """Let go of threads and files."""


class ResidentBatches:
    """Windows gathered from `frames` [time, level, latitude, longitude] that lie on the device.

    `offset` is the archive's index of the first of them.
    """

    def __init__(self, frames: Tensor, offset: int, order: Order, t_in: int, t_out: int):
        self.frames, self.offset, self.order = frames, offset, order
        self.starts = torch.zeros(len(order(0)), 1, dtype=torch.int64, device=frames.device)
        self.input_steps = torch.arange(t_in, device=frames.device)
        self.target_steps = torch.arange(t_in, t_in + t_out, device=frames.device)

    def load(self, step: int) -> None:
        starts = torch.from_numpy(self.order(step) - self.offset)
        self.starts.copy_(starts[:, None], non_blocking=True)

    def gather(self) -> tuple[Tensor, Tensor]:
        return self._take(self.input_steps), self._take(self.target_steps)

    def _take(self, steps: Tensor) -> Tensor:
        index = self.starts + steps  # [batch, frame]
        return self.frames.index_select(0, index.flatten()).unflatten(0, index.shape)

    def close(self) -> None:
        pass


class StreamedBatches:
    """Windows read from the archive, one batch ahead of the device."""

    def __init__(self, frames: Frames, order: Order, t_in: int, t_out: int, device: torch.device):
        self.frames, self.order, self.t_in = frames, order, t_in
        self.steps = np.arange(t_in + t_out)
        shape = (len(order(0)), t_in + t_out, *frames.shape[1:])
        self.windows = torch.empty(shape, device=device)
        self.reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches")
        self.ahead: tuple[int, Future[Tensor]] | None = None

    def load(self, step: int) -> None:
        expected, reading = self.ahead or (None, None)
        windows = reading.result() if expected == step else self._read(step)
        self.ahead = (step + 1, self.reader.submit(self._read, step + 1))
        self.windows.copy_(windows)

    def _read(self, step: int) -> Tensor:
        index = self.order(step)[:, None] + self.steps
        needed, position = np.unique(index, return_inverse=True)
        return torch.from_numpy(self.frames.read(needed)[position.reshape(index.shape)])

    def gather(self) -> tuple[Tensor, Tensor]:
        return self.windows[:, : self.t_in], self.windows[:, self.t_in :]

    def close(self) -> None:
        self.reader.shutdown(wait=True, cancel_futures=True)


def fits(frame_count: int, frames: Frames, device: torch.device) -> bool:
    """Whether so many frames may stay on the device."""
    return frame_count * frame_bytes(frames) <= RESIDENT_FRACTION * free_bytes(device)


def frame_bytes(frames: Frames) -> int:
    """Bytes of one float32 frame of all levels."""
    return 4 * int(np.prod(frames.shape[1:]))


def reside(frames: Frames, start: int, stop: int, device: torch.device) -> Tensor:
    """The frames [start, stop) on the device: float32 [time, level, latitude, longitude]."""
    resident = torch.empty((stop - start, *frames.shape[1:]), device=device)
    for where, block in frames.blocks(start, stop):
        resident[where.start - start : where.stop - start].copy_(torch.from_numpy(block))
    return resident
