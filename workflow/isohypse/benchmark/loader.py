# SPDX-License-Identifier: Apache-2.0
"""What batches add to a step: no file in, a table and a JSON out.

The same steps are timed with a batch that is there already, with resident and with streamed ones: 256 windows
of 8 + 1 frames on the 2.5-degree grid. They are the training steps of a model with that many levels, each
kind of batches with weights of its own; or a stand-in that works `step_seconds` a step (matrix products on a
GPU; without one, a sleep, which stands for a device that leaves the host alone). As in training
(`captured.py`), the host loads, and what the device does is one CUDA graph with memory of its own: gather,
rounding, work. On a GPU a step needs its inputs in bf16, as under autocast, and that is how the batch that is
there already lies; one in float32 is rounded first and has a row of its own.

A GPU at its power limit is slower when hot, so what is compared must be done by a GPU that is equally hot: in
every round each kind of batches works once, in random order, at first uncounted, and is compared with the
batch that is there of the same round. A kind that cannot keep up lets the GPU cool, and so has rounds of its
own afterwards, each compared with the round of its number. The device itself tells the time, from one
step's start to another's, waiting for batches included.
"""

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch

from isohypse.benchmark.report import markdown
from isohypse.benchmark.trial import LATITUDES, LONGITUDES, same_network, training_step
from isohypse.data.statistics import Statistics
from isohypse.data.windows import Order
from isohypse.models.catalogue import flavour_of
from isohypse.provenance import provenance
from isohypse.storage import write_json
from isohypse.training.batches import Batches, Draw, ResidentBatches, reside
from isohypse.training.frames import Normalisation
from isohypse.training.hardware import choose_device, device_name, side_stream
from isohypse.training.same_batch import SameBatch
from isohypse.training.streaming import StreamedBatches

YEAR_FRAMES, YEARS, GRID = 1460, 2, (LATITUDES, LONGITUDES)
T_IN, T_OUT, BATCH = 8, 1, 256  # T_OUT as `same_network` has it
WEEK = 28
ROUNDS = 5
THERE = "there already"
UNROUNDED = "there already, float32"


class NoiseFrames:
    """Stands for an archive: the same year of noise again and again, in whole metres, or in halves."""

    def __init__(self, levels: int, whole: bool):
        self.shape = (YEARS * YEAR_FRAMES, levels, *GRID)
        year = np.random.default_rng(0).integers(-700, 32000, (YEAR_FRAMES, levels, *GRID), np.int16)
        self.year = year if whole else year + np.float32(0.5)
        ones, names = (1.0,) * levels, tuple(range(levels))
        self.normalisation = Normalisation(
            Statistics(names, ones, ones, ones, ones, ones, ones, ("", ""), 0, "paper"), names
        )

    def blocks(self, start: int, stop: int) -> Iterator[tuple[slice, np.ndarray]]:
        for first in range(start, stop, YEAR_FRAMES):
            where = slice(first, min(first + YEAR_FRAMES, stop))
            yield where, self.year[: where.stop - first].astype(np.float32)


class OneBatch(SameBatch):
    """A batch that is there already, its inputs rounded to `input_type`."""

    def __init__(self, levels: int, device: torch.device, input_type: torch.dtype):
        inputs, targets = (
            torch.randn(BATCH, frames, levels, *GRID, device=device) for frames in (T_IN, T_OUT)
        )
        super().__init__(inputs.to(input_type), targets)


@dataclass(frozen=True)
class Contender:
    """A kind of batches, the bytes that it sends to the device a step, and the steps of a round."""

    batches: Batches
    sent: float = 0.0
    steps: int = 2 * WEEK


Advance = Callable[[int], None]
"""Do a step, by its number."""
Begin = Callable[[Batches], Advance]
"""Steps on these batches."""


def benchmark_loader(
    levels: int, step_seconds: float, destination: Path, model: str | None = None, flavour: str = "paper"
) -> str:
    """Time the steps; write all numbers to `destination` and return the table.

    With a `model` they are its training steps, without one a stand-in's of `step_seconds`. A training for
    each kind of batches lies on the device at the same time.

    Raises ConfigurationError for a model or a flavour that there is not.
    """
    if model:
        flavour_of(model, flavour)
    device = choose_device("auto")
    kernels: dict[str, str] = {}
    begin = training(model, flavour, levels, device, kernels) if model else stand_in(step_seconds, device)
    frames = NoiseFrames(levels, whole=True)
    contenders = _contenders(frames, levels, device)
    mixed = {"streamed, all windows mixed, int16": _streamed(frames, 1, device)}
    found = _rounds(contenders, begin, device) | _rounds(mixed, begin, device)
    contenders |= mixed
    for contender in contenders.values():
        contender.batches.close()
    sent = {name: contender.sent for name, contender in contenders.items()}
    step = {"model": model, "flavour": flavour} if model else {"stand_in_seconds": step_seconds}
    record = {"levels": levels, "batch": BATCH, "step": step, "seconds_a_step": found}
    of = provenance("", device_name(device), kernels)
    write_json(destination, record | {"bytes_sent_a_step": sent, "provenance": of})
    return _table(found, sent)


def _table(found: dict[str, list[float]], sent: dict[str, float]) -> str:
    rows = []
    for name, seconds in found.items():
        added = [100 * (one / alone - 1) for one, alone in zip(seconds, found[THERE], strict=True)]
        adds = "" if name == THERE else f"{_spread(added, 1)} %"
        times = _spread([1e3 * one for one in seconds], 2)
        rows.append((name, times, adds, f"{sent[name] / 1e6:.0f}"))
    return markdown(("batches", "ms a step", "adds", "MB sent a step"), rows)


def _spread(values: list[float], digits: int) -> str:
    middle, least, most = (f"{value:.{digits}f}" for value in (median(values), min(values), max(values)))
    return f"{middle} ({least} to {most})"


def _contenders(frames: NoiseFrames, levels: int, device: torch.device) -> dict[str, Contender]:
    """Those that keep up with a step."""
    mixed = _draw(device, 1)
    heights = reside(frames, mixed.frames, device)
    unrounded = {}
    if mixed.input_type != torch.float32:
        unrounded[UNROUNDED] = Contender(OneBatch(levels, device, torch.float32))
    return {
        THERE: Contender(OneBatch(levels, device, mixed.input_type)),
        **unrounded,
        "resident, int16": Contender(ResidentBatches(heights, mixed, frames.normalisation)),
        "streamed by weeks, int16": _streamed(frames, WEEK, device),
        "streamed by weeks, float32": _streamed(NoiseFrames(levels, whole=False), WEEK, device),
    }


def _streamed(frames: NoiseFrames, stretch: int, device: torch.device) -> Contender:
    stream = StreamedBatches(frames, _draw(device, stretch), device)
    return Contender(stream, stream.stretches[0].nbytes / stretch, max(2 * stretch, WEEK // 2))


def _draw(device: torch.device, stretch: int) -> Draw:
    starts = np.arange(YEARS * YEAR_FRAMES - T_IN - T_OUT + 1)
    input_type = torch.bfloat16 if device.type == "cuda" else torch.float32
    return Draw(Order(starts, BATCH, 0, stretch), T_IN, T_OUT, input_type)


def _rounds(contenders: dict[str, Contender], begin: Begin, device: torch.device) -> dict[str, list[float]]:
    """Name -> seconds a step in each round."""
    steps = {name: Steps(begin(contender.batches), device) for name, contender in contenders.items()}
    found: dict[str, list[float]] = {name: [] for name in contenders}
    shuffle = random.Random(0)
    for _ in range(ROUNDS):
        for name in shuffle.sample(list(contenders), len(contenders)):
            found[name].append(steps[name].seconds(contenders[name].steps))
    return found


class Steps:
    """Steps one after another, timed by the device."""

    def __init__(self, advance: Advance, device: torch.device):
        self.advance, self.device = advance, device
        self.done = 0

    def seconds(self, count: int) -> float:
        """Seconds a step of `count`, after half as many that are not counted."""
        self._advance(count // 2)
        start = self._moment()
        self._advance(count)
        end = self._moment()
        if self.device.type != "cuda":
            return (end - start) / count
        end.synchronize()
        return start.elapsed_time(end) / 1e3 / count

    def _advance(self, count: int) -> None:
        for _ in range(count):
            self.advance(self.done)
            self.done += 1

    def _moment(self) -> "float | torch.cuda.Event":
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def training(model: str, flavour: str, levels: int, device: torch.device, kernels: dict[str, str]) -> Begin:
    """The training steps of a model, each time with weights of its own; they note their kernels."""

    def begin(batches: Batches) -> Advance:
        network = same_network(model, flavour, T_IN, device, grid=(levels, *GRID))
        step = training_step(network, batches, BATCH, device)
        kernels.update(step.kernels)
        return step.advance

    return begin


def stand_in(step_seconds: float, device: torch.device) -> Begin:
    """Gather, rounding and work of `step_seconds`: on a GPU the replay of one graph."""
    work = _work(device, step_seconds)

    def begin(batches: Batches) -> Advance:
        def compute() -> None:
            inputs, _ = batches.gather()
            if device.type == "cuda":
                inputs.bfloat16()
            work()

        batches.load(0)
        replay = _captured(compute) if device.type == "cuda" else compute

        def advance(number: int) -> None:
            batches.load(number)
            replay()

        return advance

    return begin


def _captured(compute: Callable[[], None]) -> Callable[[], None]:
    with side_stream():
        compute()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # others may be sending
        compute()
    return graph.replay


def _work(device: torch.device, seconds: float) -> Callable[[], None]:
    """Matrix products that take about as long as asked, on a GPU that is warm."""
    if device.type != "cuda":
        return lambda: time.sleep(seconds)
    matrix = torch.randn(4096, 4096, device=device, dtype=torch.bfloat16)
    product = torch.empty_like(matrix)

    def multiply(count: int) -> None:
        for _ in range(count):
            torch.mm(matrix, matrix, out=product)

    for _ in range(2):  # the first warms it up
        torch.cuda.synchronize(device)
        start = time.perf_counter()
        multiply(4000)
        torch.cuda.synchronize(device)
    count = max(1, round(seconds * 4000 / (time.perf_counter() - start)))
    return lambda: multiply(count)
