# SPDX-License-Identifier: Apache-2.0
"""What batches add to a step: no file in, a table and a JSON out.

The device works `step_seconds` a step (matrix products on a GPU; without one, a sleep, which stands for a
device that leaves the host alone). The same steps are timed without batches, with resident and with streamed
ones: 256 windows of 8 + 4 frames on the 2.5-degree grid.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import numpy as np
import torch

from isohypse.data.windows import batch_order
from isohypse.storage import write_json
from isohypse.training.batches import Batches, ResidentBatches, StreamedBatches
from isohypse.training.hardware import choose_device, device_name

FRAMES, T_IN, T_OUT, BATCH = 1464, 8, 4, 256
STEPS, ROUNDS = 20, 5


class RandomFrames:
    """Stands for an archive: a year of noise. The decoded frames are what batches are made from."""

    def __init__(self, levels: int):
        self.shape = (FRAMES, levels, 73, 144)
        self.values = np.random.default_rng(0).standard_normal(self.shape, np.float32)

    def blocks(self, start: int, stop: int) -> Iterator[tuple[slice, np.ndarray]]:
        yield slice(start, stop), self.values[start:stop]


def benchmark_loader(levels: int, step_seconds: float, destination: Path) -> str:
    """Time the steps; write all numbers to `destination` and return the table."""
    device, frames = choose_device("auto"), RandomFrames(levels)
    work = _work(device, step_seconds)
    resident = torch.from_numpy(frames.values).to(device)
    batches = {
        "no batches": None,
        "resident": ResidentBatches(resident, 0, _order, T_IN, T_OUT),
        "streamed": StreamedBatches(frames, _order, T_IN, T_OUT, device),
    }
    rounds = [{name: _seconds(work, made, device) for name, made in batches.items()} for _ in range(ROUNDS)]
    found = {name: [measured[name] for measured in rounds] for name in batches}
    batches["streamed"].close()
    record = {"device": device_name(device), "levels": levels, "batch": BATCH, "seconds_a_step": found}
    write_json(destination, record)
    alone = median(found["no batches"])
    lines = ["| batches | ms a step | adds |", "|---|---|---|"]
    for name, seconds in found.items():
        middle = median(seconds)
        spread = f"{min(seconds) * 1e3:.2f}-{max(seconds) * 1e3:.2f}"
        lines.append(f"| {name} | {middle * 1e3:.2f} ({spread}) | {100 * (middle / alone - 1):.1f} % |")
    return "\n".join(lines)


def _order(step: int) -> np.ndarray:
    return batch_order(FRAMES - T_IN - T_OUT + 1, BATCH, 0, step)


def _seconds(work: Callable[[], None], batches: Batches | None, device: torch.device) -> float:
    """Seconds a step over STEPS steps, after one that is not counted."""
    for step in range(STEPS + 1):
        if step == 1:
            _wait(device)
            start = time.perf_counter()
        if batches is not None:
            batches.load(step)
            batches.gather()
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
