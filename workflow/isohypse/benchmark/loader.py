# SPDX-License-Identifier: Apache-2.0
"""What batches add to a step: no file in, a table and a JSON out.

The device works `step_seconds` a step (matrix products on a GPU; without one, a sleep, which stands for a
device that leaves the host alone). The same steps are timed with a batch that is there already, with resident
and with streamed ones, in turn: 256 windows of 8 + 4 frames on the 2.5-degree grid. On a GPU a step needs its
inputs in bf16, as under autocast: the batch that is there lies in float32 and is rounded first.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import numpy as np
import torch

from isohypse.data.statistics import Statistics
from isohypse.data.windows import Order
from isohypse.storage import write_json
from isohypse.training.batches import Batches, Draw, ResidentBatches, reside
from isohypse.training.frames import Normalisation
from isohypse.training.hardware import choose_device, device_name
from isohypse.training.same_batch import SameBatch
from isohypse.training.streaming import StreamedBatches

YEAR_FRAMES, YEARS, GRID = 1460, 2, (73, 144)
T_IN, T_OUT, BATCH = 8, 4, 256
WEEK = 28
STEPS, ROUNDS = 2 * WEEK, 3


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
    """A batch that is there already."""

    def __init__(self, levels: int, device: torch.device):
        super().__init__(
            *(torch.zeros(BATCH, frames, levels, *GRID, device=device) for frames in (T_IN, T_OUT))
        )


def benchmark_loader(levels: int, step_seconds: float, destination: Path) -> str:
    """Time the steps; write all numbers to `destination` and return the table."""
    device = choose_device("auto")
    work = _work(device, step_seconds)
    batches, sent = _contenders(levels, device)
    rounds = [{name: _seconds(work, made, device) for name, made in batches.items()} for _ in range(ROUNDS)]
    for made in batches.values():
        made.close()
    found = {name: [measured[name] for measured in rounds] for name in batches}
    record = {"device": device_name(device), "levels": levels, "batch": BATCH}
    write_json(destination, record | {"seconds_a_step": found, "bytes_sent_a_step": sent})
    alone = median(found["there already"])
    lines = ["| batches | ms a step | adds | MB sent a step |", "|---|---|---|---|"]
    for name, seconds in found.items():
        middle = median(seconds)
        spread = f"{min(seconds) * 1e3:.2f}-{max(seconds) * 1e3:.2f}"
        added, traffic = f"{100 * (middle / alone - 1):.1f} %", f"{sent[name] / 1e6:.0f}"
        lines.append(f"| {name} | {middle * 1e3:.2f} ({spread}) | {added} | {traffic} |")
    return "\n".join(lines)


def _contenders(levels: int, device: torch.device) -> tuple[dict[str, Batches], dict[str, float]]:
    """Name -> batches, and the bytes that they send to the device a step."""
    whole, halves = (NoiseFrames(levels, whole) for whole in (True, False))
    week, mixed = (_draw(device, stretch) for stretch in (WEEK, 1))
    heights = reside(whole, mixed.frames, device)
    made: dict[str, Batches] = {"there already": OneBatch(levels, device)}
    made["resident, int16"] = ResidentBatches(heights, mixed, whole.normalisation)
    streams = {
        "streamed by weeks, int16": StreamedBatches(whole, week, device),
        "streamed by weeks, float32": StreamedBatches(halves, week, device),
        "streamed, all windows mixed, int16": StreamedBatches(whole, mixed, device),
    }
    sent = dict.fromkeys(made, 0.0)
    for name, stream in streams.items():
        sent[name] = stream.stretches[0].nbytes / stream.draw.order.stretch
    return made | streams, sent


def _draw(device: torch.device, stretch: int) -> Draw:
    starts = np.arange(YEARS * YEAR_FRAMES - T_IN - T_OUT + 1)
    input_type = torch.bfloat16 if device.type == "cuda" else torch.float32
    return Draw(Order(starts, BATCH, 0, stretch), T_IN, T_OUT, input_type)


def _seconds(work: Callable[[], None], batches: Batches, device: torch.device) -> float:
    """Seconds a step over STEPS steps, after one that is not counted."""
    for step in range(STEPS + 1):
        if step == 1:
            _wait(device)
            start = time.perf_counter()
        batches.load(step)
        inputs, _ = batches.gather()
        if device.type == "cuda":
            inputs.bfloat16()
        work()
    _wait(device)
    return (time.perf_counter() - start) / STEPS


def _work(device: torch.device, seconds: float) -> Callable[[], None]:
    if device.type != "cuda":
        return lambda: time.sleep(seconds)
    matrix = torch.randn(4096, 4096, device=device, dtype=torch.bfloat16)

    def multiply(count: int) -> None:
        for _ in range(count):
            torch.mm(matrix, matrix)

    multiply(50)
    _wait(device)
    start = time.perf_counter()
    multiply(500)
    _wait(device)
    count = max(1, round(seconds * 500 / (time.perf_counter() - start)))
    return lambda: multiply(count)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
