# SPDX-License-Identifier: Apache-2.0
"""One rank's part of a measurement of `scaling_out`: the trainer's own step on random frames.

A round is a few steps between two moments at which all ranks have nothing left to do, so that its time is
that of the slowest. Memory: the greatest of all ranks, as `hardware.PeakMemory` has it; NCCL's own buffers
are not in it.
"""

import dataclasses
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import count
from typing import Any

import torch

from isohypse.benchmark.communication import measure_communication
from isohypse.benchmark.trial import TABLE_3, RandomBatches, same_network, spread
from isohypse.config.sections import Execution, Training
from isohypse.models.catalogue import label_of
from isohypse.models.network import Network
from isohypse.provenance import provenance
from isohypse.training.hardware import PeakMemory, choose_precision, device_name
from isohypse.training.parallel import share, share_of
from isohypse.training.ranks import Ranks, joined, ranks_of
from isohypse.training.step import Step, build_step

WARMUP_STEPS = 3
PROFILED_STEPS = 3


@dataclass(frozen=True)
class Measurement:
    """One model on `ranks` ranks, which share `batch_size` windows of `frames` frames."""

    model: str
    flavour: str
    scaling: str
    mode: str
    ranks: int
    batch_size: int
    frames: int
    recompute: bool
    """Whether activations are computed again in the backward pass."""
    rounds: int
    steps: int
    """Of a round."""
    device: str

    def __str__(self) -> str:
        devices = f"{self.ranks} {'GPU' if self.device == 'cuda' else 'process'}"
        return f"{self.model} {self.flavour}, {self.scaling}, {self.mode}, {devices}"

    @property
    def execution(self) -> Execution:
        degree = int(self.mode.removeprefix("tensor")) if self.mode.startswith("tensor") else 1
        kind = "fsdp" if self.mode == "fsdp" else "replicate"
        return Execution(parallel=kind, tensor_parallel=degree, activation_checkpointing=self.recompute)


def run_measurement(measurement: Measurement) -> dict[str, Any] | None:
    """Measure, together with the other ranks. Returns the numbers in the first rank, None in the others."""
    device = torch.device(measurement.device)
    with joined(ranks_of(), device.type) as ranks:
        memory = PeakMemory(device)
        network = same_network(measurement.model, measurement.flavour, measurement.frames, device)
        parameters = sum(parameter.numel() for parameter in network.parameters())
        step = _step(network, measurement, ranks, device)
        try:
            found = _numbers(step, measurement, ranks, memory)
        finally:
            step.close()
    if not ranks.main:
        return None
    name = device_name(device)
    known = {"label": label_of(measurement.model), "parameters": parameters, "kernels": step.kernels}
    known |= {"nccl": {name: value for name, value in sorted(os.environ.items()) if name.startswith("NCCL_")}}
    return found | known | {"precision": step.precision, "provenance": provenance("", name, step.kernels)}


def _step(network: Network, measurement: Measurement, ranks: Ranks, device: torch.device) -> Step:
    execution, precision = measurement.execution, choose_precision("auto", device)
    part = share_of(measurement.batch_size, execution, ranks)
    mine = dataclasses.replace(measurement, batch_size=part.stop - part.start)
    kernels = network.kernel_names(batch=mine.batch_size)
    training = Training(steps=100_000, batch_size=measurement.batch_size, **TABLE_3)
    return build_step(
        network,
        training,
        RandomBatches(mine, device, seed=part.start),  # ranks that share windows have the same
        device,
        precision,
        history=20,
        kernels=kernels,
        parallel=share(network, execution, ranks, precision),
        recompute=measurement.recompute,
    )


def _numbers(step: Step, measurement: Measurement, ranks: Ranks, memory: PeakMemory) -> dict[str, Any]:
    numbers = count()

    def advance(steps: int) -> None:
        for _ in range(steps):
            step.advance(next(numbers))

    advance(WARMUP_STEPS if measurement.steps > 1 else 1)
    rounds = [_seconds(advance, measurement.steps, ranks, memory.device) for _ in range(measurement.rounds)]
    peak = ranks.greatest(memory.read())
    profiled = min(measurement.steps, PROFILED_STEPS)
    done = next(numbers)
    step.advance(done)
    seconds = spread(rounds)
    return {
        "step_seconds": seconds,
        "windows_per_second": measurement.batch_size / seconds["median"],
        "frames_per_second": measurement.batch_size * measurement.frames / seconds["median"],
        "peak_memory_bytes": peak,
        "last_loss": step.recent(1, done + 1)[0, 0].item(),
        "communication": _communication(lambda: advance(profiled), profiled, ranks, memory.device),
    }


def _seconds(advance: Callable[[int], None], steps: int, ranks: Ranks, device: torch.device) -> float:
    """Of one of `steps` steps, on the slowest rank."""
    _meet(ranks, device)
    start = time.perf_counter()
    advance(steps)
    _meet(ranks, device)
    return (time.perf_counter() - start) / steps


def _meet(ranks: Ranks, device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
    ranks.greatest(0)


def _communication(
    work: Callable[[], None], steps: int, ranks: Ranks, device: torch.device
) -> dict[str, float] | None:
    """A step's, as the mean of all ranks; None on a CPU, where gloo runs beside the computation."""
    if device.type != "cuda":
        return None
    if ranks.size == 1:
        return {"seconds": 0.0, "exposed_seconds": 0.0}
    found = asdict(measure_communication(work, lambda: _meet(ranks, device)))
    return {name: ranks.mean(value / steps) for name, value in found.items()}
