# SPDX-License-Identifier: Apache-2.0
"""Batches of windows on the device: frames in, (inputs, targets) out.

Where the frames fit, they all lie on the device and a batch is one gather (112,500 frames at 500 hPa are
4.7 GB). Otherwise they lie decoded in the host's memory, or in a scratch file where that is too small, and
batches are gathered in page-locked buffers and sent while the device works on those before.

Which windows a step has follows from (seed, step) alone, so a resumed training goes on with the same batches;
of several processes each takes its own part of them (`parallel.share_of`).

Both kinds divide a step's work in the same way. `load` is the host's part and may do anything; `gather` is
the device's part: fixed shapes, no synchronisation, nothing that depends on values, so that it can be
captured.
"""

import tempfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from isohypse.training.frames import Frames
from isohypse.training.hardware import free_bytes

RESIDENT_FRACTION = 0.5  # of free memory that frames may take; model and activations need the rest

HOST_FRACTION = 0.5  # of the host's memory
AHEAD = 2  # batches: one on its way to the device, one being gathered
COPIERS = 4  # threads that gather; a single one does not fill the memory's bandwidth

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
    """Windows gathered on the host, AHEAD batches before the device needs them."""

    def __init__(self, frames: Frames, order: Order, t_in: int, t_out: int, device: torch.device):
        self.order, self.t_in, self.length = order, t_in, t_in + t_out
        self.host = HostFrames(frames)
        shape = (len(order(0)), self.length, *frames.shape[1:])
        self.windows = torch.empty(shape, device=device)
        self.lanes = [_Lane(shape, device) for _ in range(AHEAD)]
        self.copiers = ThreadPoolExecutor(COPIERS, "copier")
        self.reader = ThreadPoolExecutor(1, "batches")
        self.ahead: dict[int, Future[_Lane]] = {}

    def load(self, step: int) -> None:
        if step not in self.ahead:  # the first one, or one out of turn
            wait(self.ahead.values())
            self.ahead = {step: self._submit(step)}
        lane = self.ahead.pop(step).result()
        lane.hand_over(self.windows)
        # A lane is used again only after it has been handed over: the reader takes them in turn.
        for following in range(step + 1, step + AHEAD + 1):
            if following not in self.ahead and len(self.ahead) < AHEAD:
                self.ahead[following] = self._submit(following)

    def _submit(self, step: int) -> "Future[_Lane]":
        return self.reader.submit(self._fill, step)

    def _fill(self, step: int) -> "_Lane":
        lane = self.lanes[step % AHEAD]
        lane.wait_until_sent()
        buffer = lane.pinned.numpy()

        def copy(place: int, start: int) -> None:
            buffer[place] = self.host.values[start : start + self.length]

        starts = self.order(step)
        list(self.copiers.map(copy, range(len(starts)), starts))
        lane.send()
        return lane

    def gather(self) -> tuple[Tensor, Tensor]:
        return self.windows[:, : self.t_in], self.windows[:, self.t_in :]

    def close(self) -> None:
        self.reader.shutdown(wait=True, cancel_futures=True)
        self.copiers.shutdown(wait=True)
        self.host.close()


class _Lane:
    """One batch on its way: a page-locked buffer, its copy on the device, and a stream between them."""

    def __init__(self, shape: tuple[int, ...], device: torch.device):
        on_gpu = device.type == "cuda"
        self.pinned = torch.empty(shape, pin_memory=on_gpu)
        self.staged = torch.empty(shape, device=device) if on_gpu else self.pinned
        self.stream = torch.cuda.Stream(device) if on_gpu else None
        self.sent, self.taken = (torch.cuda.Event(), torch.cuda.Event()) if on_gpu else (None, None)

    def wait_until_sent(self) -> None:
        if self.sent is not None:
            self.sent.synchronize()

    def send(self) -> None:
        if self.stream is not None:
            with torch.cuda.stream(self.stream):
                self.stream.wait_event(self.taken)
                self.staged.copy_(self.pinned, non_blocking=True)
                self.sent.record(self.stream)

    def hand_over(self, windows: Tensor) -> None:
        """Copy the batch to `windows` in the current stream, after it has come; the host does not wait."""
        if self.stream is not None:
            torch.cuda.current_stream().wait_event(self.sent)
        windows.copy_(self.staged, non_blocking=True)
        if self.stream is not None:
            self.taken.record()


class HostFrames:
    """All frames of an archive, normalised: `values` float32 [time, level, latitude, longitude].

    In memory if they take no more than HOST_FRACTION of it, else mapped from a file in the scratch folder
    (TMPDIR), from which the system keeps in memory what it can.
    """

    def __init__(self, frames: Frames):
        fraction = np.prod(frames.shape) * 4 / free_bytes(torch.device("cpu"))
        self.folder = tempfile.TemporaryDirectory(prefix="isohypse-")
        if fraction <= HOST_FRACTION:
            self.values = np.empty(frames.shape, np.float32)
        else:
            path = Path(self.folder.name) / "frames"
            self.values = np.memmap(path, np.float32, "w+", shape=tuple(frames.shape))
        for where, block in frames.blocks(0, frames.shape[0]):
            self.values[where] = block

    def close(self) -> None:
        del self.values
        self.folder.cleanup()


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
