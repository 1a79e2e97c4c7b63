# SPDX-License-Identifier: Apache-2.0
"""Seconds of one forecast at batch 1: ours as one CUDA graph, the peer's launched kernel by kernel.

Ours in two ways: all frames in one pass, and the last of them alone with the state that the others left.
"""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from isohypse.models.mixer import State, tensors_of
from isohypse.models.network import Network
from isohypse.training.hardware import autocast, side_stream
from isohypse.training.working_copy import WorkingCopy

REPEATS = 30
PAST_FRAMES = 63
"""Most that a carried forecast has seen: they are walked through one by one, and thousands take minutes."""
REHEARSALS = 3
"""Steps before a capture: kernels are loaded in the first."""


class CarriedForecast:
    """`Network.step` with its state in buffers that each call goes on from: on a GPU one CUDA graph.

    `past` `[batch, frame, level, latitude, longitude]` is walked through at once; a call takes the next frame
    `[batch, level, latitude, longitude]`. What comes back on a GPU is overwritten by the next call. A state
    that grows (attention) cannot stay in its buffers: every call then is the one after `past`.
    """

    def __init__(self, network: Network, past: Tensor, precision: str):
        self.network, self.precision = network, precision
        self.frame, self.graph = torch.empty_like(past[:, 0]), None
        self.state: State = network.initial_state(len(past))
        for frame in past.unbind(1):
            _, self.state = self._step(frame)
        self.state = _copied(self.state)
        if past.device.type == "cuda":
            self._capture()

    def __call__(self, frame: Tensor) -> Tensor:
        self.frame.copy_(frame)
        if self.graph is None:
            return self._advance()
        self.graph.replay()
        return self.forecast

    def _capture(self) -> None:
        before = _copied(self.state)
        with side_stream():
            for _ in range(REHEARSALS):
                self._advance()
        self._overwrite(before)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.forecast = self._advance()

    def _advance(self) -> Tensor:
        forecast, after = self._step(self.frame)
        self._overwrite(after)
        return forecast

    @torch.no_grad()
    def _step(self, frame: Tensor) -> tuple[Tensor, State]:
        with autocast(self.precision, frame.device):
            return self.network.step(frame, self.state)

    def _overwrite(self, state: State) -> None:
        for kept, new in zip(tensors_of(self.state), tensors_of(state)):
            if kept.shape == new.shape:
                kept.copy_(new)


def _copied(state: State) -> State:
    return tuple(part.clone() if isinstance(part, Tensor) else _copied(part) for part in state)


def our_latency(network: Network, inputs: Tensor) -> dict[str, float]:
    """inputs `[1, frame, level, latitude, longitude]` on the GPU; bf16 weights and products."""
    from isohypse.models.fused import fuse  # needs Triton
    from isohypse.training.captured import CapturedForecast

    working = WorkingCopy(network).network
    fuse(working, inputs.shape[1])
    return _latency(CapturedForecast(working, inputs, "bf16"), inputs)


def our_step_latency(network: Network, inputs: Tensor) -> dict[str, float]:
    """The same forecasts when all frames of `inputs` but the last have been seen before.

    At most `PAST_FRAMES` of them: a recurrence takes the same time after any number.
    """
    working = WorkingCopy(network).network  # not fused: those kernels take whole sequences
    past = inputs[:, :-1][:, -PAST_FRAMES:]
    return _latency(CarriedForecast(working, past, "bf16"), inputs[:, -1])


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
        _wait(inputs.device)
        start = time.perf_counter()
        forecast(inputs).cpu()
        seconds.append(time.perf_counter() - start)
    return {"median": statistics.median(seconds), "min": min(seconds), "max": max(seconds)}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
