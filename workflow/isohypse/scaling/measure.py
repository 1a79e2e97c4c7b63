# SPDX-License-Identifier: Apache-2.0
"""One model at one sequence length: speed of training, latency of a forecast, peak memory.

File out: one JSON. The fields are random numbers of the grid's size, which cost what heights cost.

frames_per_second: batch size x length / seconds of a whole training step (forward, backward, clipping,
AdamW). latency_ms: a forward pass, without gradients, a sample. peak_memory_bytes: see
`hardware.PeakMemory`; training is measured, so it holds weights, gradients and moments. Each of the first
two is the median, least and greatest of `repeats` after a warm-up, waiting for the device around each.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from isohypse.config.sections import Execution, Training
from isohypse.config.settings import MeasureSettings
from isohypse.models.catalogue import label_of
from isohypse.models.network import Network
from isohypse.models.registry import build
from isohypse.provenance import provenance
from isohypse.storage import write_json
from isohypse.training.hardware import PeakMemory, autocast, choose_device, choose_precision, device_name
from isohypse.training.same_batch import RandomBatch
from isohypse.training.step import Step, build_step

WARMUP = {"cpu": 1, "cuda": 3}  # a GPU compiles and tunes its kernels in the first steps


def measure(settings: MeasureSettings, destination: Path, execution: Execution, threads: int) -> None:
    """Measure in this process, which should do nothing else, and write `destination`.

    A GPU whose memory does not suffice is a result too: the three numbers are null then and `fits` is false.
    Raises UnavailableError for a device, precision or kernel that is not there.
    """
    torch.set_num_threads(threads)
    device = choose_device(execution.device)
    precision = choose_precision(settings.precision, device)
    memory = PeakMemory(device)
    network = _network(settings)
    kernels = network.kernel_names(batch=settings.batch_size, frames=settings.length, device=device)
    try:
        numbers = _numbers(settings, network.to(device), precision, memory, execution.step)
    except torch.OutOfMemoryError:
        numbers = {"fits": False, "frames_per_second": None, "latency_ms": None, "peak_memory_bytes": None}
    kernels = numbers.pop("kernels", kernels)
    record = {
        "model": settings.model,
        "label": label_of(settings.model),
        "flavour": settings.flavour,
        "length": settings.length,
        "batch_size": settings.batch_size,
        "grid": [settings.latitudes, settings.longitudes],
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "kernels": kernels,
        "precision": precision,
        "device": device_name(device),
        "threads": threads,
        "provenance": provenance(settings.digest, device_name(device), kernels),
    }
    write_json(destination, record | numbers)


def _network(settings: MeasureSettings) -> Network:
    torch.manual_seed(0)
    return build(
        settings.model,
        settings.flavour,
        t_in=settings.length,
        t_out=1,
        levels=1,
        latitude=settings.latitudes,
        longitude=settings.longitudes,
        backend=settings.kernel,
    )


def _numbers(
    settings: MeasureSettings, network: Network, precision: str, memory: PeakMemory, mode: str
) -> dict[str, Any]:
    """The measured part of the record."""
    grid = (1, settings.latitudes, settings.longitudes)
    batch = RandomBatch(settings.batch_size, settings.length, grid, memory.device)
    repeats = settings.repeats
    latencies = _seconds(_forward(network, batch, precision), repeats, memory.device)
    step = _step(network, batch, precision, repeats, mode)
    steps = _seconds(step.advance, repeats, memory.device)
    frames = settings.batch_size * settings.length
    return {
        "fits": True,
        "frames_per_second": _spread([frames / seconds for seconds in steps]),
        "latency_ms": _spread([1000 * seconds / settings.batch_size for seconds in latencies]),
        "peak_memory_bytes": memory.read(),
        "kernels": step.kernels,
    }


def _forward(network: Network, batch: RandomBatch, precision: str) -> Callable[[int], None]:
    @torch.inference_mode()
    def forward(_repeat: int) -> None:
        with autocast(precision, batch.inputs.device):
            network(batch.inputs)

    return forward


def _step(network: Network, batch: RandomBatch, precision: str, repeats: int, mode: str) -> Step:
    """The trainer's own step, at Table 3's optimizer settings."""
    device = batch.inputs.device
    steps = repeats + WARMUP[device.type]
    training = Training(
        steps=steps,
        batch_size=len(batch.inputs),
        learning_rate=3e-4,
        warmup_steps=0,
        final_learning_rate_fraction=0.1,
        beta1=0.9,
        beta2=0.999,
        epsilon=1e-15,
        weight_decay=0.1,
        clip_norm=1.0,
        head_bias="zero",
    )
    kernels = network.kernel_names(batch=len(batch.inputs), frames=batch.inputs.shape[1])
    return build_step(network, training, batch, device, precision, history=steps, kernels=kernels, mode=mode)


def _seconds(work: Callable[[int], None], repeats: int, device: torch.device) -> list[float]:
    """Seconds of each of `repeats` calls after the warm-up."""
    warmup = WARMUP[device.type]
    seconds = []
    for repeat in range(warmup + repeats):
        _wait(device)
        start = time.perf_counter()
        work(repeat)
        _wait(device)
        seconds.append(time.perf_counter() - start)
    return seconds[warmup:]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}
