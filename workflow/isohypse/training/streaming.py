# SPDX-License-Identifier: Apache-2.0
"""Batches of frames that do not fit on the device: stretches of them come and go while it works.

The host holds all heights, in memory or in a scratch file where that is too small. The device holds two
chapters of the order (`data.windows.Order`): the stretches that steps draw from now, and those that the next
ones will, which threads copy to page-locked buffers and send in a stream of their own meanwhile. A chapter
of n steps needs n - 1 + t_in + t_out frames of each stretch. So n = 28 (a week) sends 39 frames for 28
windows of 8 + 4, where n = 1 sends 12 for each. What n does to the mixture of a batch, `Order` says.
"""

import tempfile
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from isohypse.training.batches import Draw, GatheredBatches, heights_of
from isohypse.training.frames import Frames
from isohypse.training.hardware import free_bytes

HOST_FRACTION = 0.5  # of the host's memory that heights may take
COPIERS = 4  # threads; a single one does not fill the memory's bandwidth
CHAPTERS = 2  # on the device: the one that is read, and the one that is being sent
AHEAD = 2  # steps that the host may be ahead of the device


class StreamedBatches(GatheredBatches):
    """Windows gathered from the stretches of the current chapter, while those of the next are being sent."""

    def __init__(self, frames: Frames, draw: Draw, device: torch.device):
        self.host = HostHeights(frames, draw.frames)
        self.frames = draw.order.stretch - 1 + draw.length  # of a stretch
        shape = (CHAPTERS, draw.order.places, self.frames, *frames.shape[1:])
        self.stretches = torch.empty(shape, dtype=self.host.dtype, device=device)
        super().__init__(self.stretches.flatten(0, 2), draw, frames.normalisation)
        self.lane, self.pace = _Lane(device), _Pace(device)
        self.copiers = ThreadPoolExecutor(COPIERS, "copier")
        self.buffers = [_Buffers(shape[2:], self.stretches) for _ in range(COPIERS)]
        self.coming: dict[int, list[Future[None]]] = {}  # chapters that are being sent
        self.chapter = -1

    def load(self, step: int) -> None:
        order = self.draw.order
        chapter = step // order.stretch
        self.pace.keep()
        if chapter != self.chapter:
            self._turn_to(chapter)
        first = chapter % CHAPTERS * order.places
        self._start_at((first + np.arange(order.places)) * self.frames + order.turns(step))

    def _turn_to(self, chapter: int) -> None:
        """Let the device wait for `chapter`, and let the one after it take the place of the one before it."""
        if chapter not in self.coming:  # the first one, or one out of turn
            wait([part for parts in self.coming.values() for part in parts])
            self.coming = {chapter: self._send(chapter)}
        for part in self.coming.pop(chapter):
            part.result()
        self.lane.arrive()
        self.coming[chapter + 1] = self._send(chapter + 1)
        self.chapter = chapter

    def _send(self, chapter: int) -> list[Future[None]]:
        """Send a chapter's stretches to the half that no gather reads any more, once all before are done."""
        self.lane.depart()
        firsts = (self.draw.order.stretches(chapter) - self.draw.frames.start).tolist()
        half = self.stretches[chapter % CHAPTERS]
        return [self.copiers.submit(self._copy, number, half, firsts) for number in range(COPIERS)]

    def _copy(self, number: int, half: Tensor, firsts: list[int]) -> None:
        """One thread's part of a chapter."""
        for place in range(number, len(firsts), COPIERS):
            stretch = self.host.values[firsts[place] : firsts[place] + self.frames]
            self.buffers[number].send(stretch, half[place], self.lane)

    def close(self) -> None:
        self.copiers.shutdown(wait=True, cancel_futures=True)
        self.lane.wait()
        self.host.close()


class _Lane:
    """The stream in which stretches are sent to a GPU; nothing on a CPU."""

    def __init__(self, device: torch.device):
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def entered(self) -> "nullcontext | torch.cuda.StreamContext":
        return nullcontext() if self.stream is None else torch.cuda.stream(self.stream)

    def depart(self) -> None:
        """What is sent from now on waits for all that the device has been told to do."""
        if self.stream is not None:
            self.stream.wait_stream(torch.cuda.current_stream(self.stream.device))

    def wait(self) -> None:
        """Until everything has been sent."""
        if self.stream is not None:
            self.stream.synchronize()

    def arrive(self) -> None:
        """What the device is told from now on waits for all that has been sent; the host does not."""
        if self.stream is not None:
            torch.cuda.current_stream(self.stream.device).wait_stream(self.stream)


class _Pace:
    """Lets the host be no more than AHEAD steps ahead of a GPU.

    Else it fills the queue of what has been launched, and then holds the driver's lock until there is room:
    the copiers could send nothing meanwhile.
    """

    def __init__(self, device: torch.device):
        on_gpu = device.type == "cuda"
        self.loads = [torch.cuda.Event(blocking=True) for _ in range(AHEAD)] if on_gpu else []

    def keep(self) -> None:
        """Wait until the device has come to the load of AHEAD steps ago."""
        if self.loads:
            self.loads[0].synchronize()
            self.loads[0].record()
            self.loads.append(self.loads.pop(0))


class _Buffers:
    """Two page-locked buffers of a thread: one is filled while the other is being sent."""

    def __init__(self, shape: tuple[int, ...], like: Tensor):
        self.on_gpu = like.is_cuda
        if self.on_gpu:
            self.pinned = [torch.empty(shape, dtype=like.dtype, pin_memory=True) for _ in range(2)]
            self.sent = [torch.cuda.Event() for _ in range(2)]

    def send(self, values: np.ndarray, destination: Tensor, lane: _Lane) -> None:
        if not self.on_gpu:
            np.copyto(destination.numpy(), values)
            return
        pinned, sent = self.pinned[0], self.sent[0]
        sent.synchronize()
        np.copyto(pinned.numpy(), values)
        with lane.entered():
            destination.copy_(pinned, non_blocking=True)
            sent.record()
        self.pinned.reverse()
        self.sent.reverse()


class HostHeights:
    """The heights of the frames `needed` on the host: `values` [time, level, latitude, longitude].

    In memory if they take no more than HOST_FRACTION of it, else mapped from a file in the scratch folder
    (TMPDIR), from which the system keeps in memory what it can.
    """

    def __init__(self, frames: Frames, needed: slice):
        self.folder = tempfile.TemporaryDirectory(prefix="isohypse-")
        heights = heights_of(frames, needed, self._allocate)
        self.dtype, self.values = heights.dtype, heights.numpy()

    def _allocate(self, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
        if int(np.prod(shape)) * dtype.itemsize <= HOST_FRACTION * free_bytes(torch.device("cpu")):
            return torch.empty(shape, dtype=dtype)
        path = Path(self.folder.name) / str(dtype)
        numpy_type = torch.empty(0, dtype=dtype).numpy().dtype
        return torch.from_numpy(np.memmap(path, numpy_type, "w+", shape=shape))

    def close(self) -> None:
        del self.values
        self.folder.cleanup()
