# SPDX-License-Identifier: Apache-2.0
"""Seconds of one forecast at batch 1: ours as one CUDA graph, the peer's launched kernel by kernel."""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from isohypse.models.network import Network
from isohypse.training.working_copy import WorkingCopy

REPEATS = 30


def our_latency(network: Network, inputs: Tensor) -> dict[str, float]:
    """inputs `[1, frame, level, latitude, longitude]` on the GPU; bf16 weights and products."""
    from isohypse.models.fused import fuse  # needs Triton
    from isohypse.training.captured import CapturedForecast

    working = WorkingCopy(network).network
    fuse(working, inputs.shape[1])
    return _latency(CapturedForecast(working, inputs, "bf16"), inputs)


@torch.inference_mode()
def peer_latency(network: nn.Module, inputs: Tensor) -> dict[str, float]:
    """The same, eagerly, under bf16 autocast."""

    def forecast(inputs: Tensor) -> Tensor:
        with torch.autocast("cuda", torch.bfloat16):
            return network(inputs)

    network.eval()
    seconds = _latency(forecast, inputs)
    network.train()
    return seconds


def _latency(forecast: Callable[[Tensor], Tensor], inputs: Tensor) -> dict[str, float]:
    """Of `REPEATS` forecasts one after another, each until its numbers are on the host."""
    for _ in range(3):
        forecast(inputs).cpu()
    seconds = []
    for _ in range(REPEATS):
        torch.cuda.synchronize()
        start = time.perf_counter()
        forecast(inputs).cpu()
        seconds.append(time.perf_counter() - start)
    return {"median": statistics.median(seconds), "min": min(seconds), "max": max(seconds)}
