# SPDX-License-Identifier: Apache-2.0
"""The optimisation step of a GPU: fused blocks, and everything from gather to AdamW in one CUDA graph.

A step of 24 layers is many hundred kernels. Launched one by one they cost the host many times what they cost
the GPU; recorded once and replayed as a graph they cost it nothing. In bf16 what stands between the matrix
products of a block is one kernel each where those have been made for it (`models/fused.py`), and compiled
(torch.compile) where not; in float32, or where activations are computed again, a whole block is compiled. All
layers share a compilation, whose inputs their weights are, so that the first step does not wait for 24.

The graph is captured at the first step. Before it, `_compute` runs a few times in earnest but for the
optimizer, whose kernels are launched over nothing, and the counters are put back: weights, moments and
history are those of a training that never warmed up, and a resumed training stays bit-equal.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import torch

from isohypse.config.sections import Training
from isohypse.kernels import external
from isohypse.kernels.aside import Backward
from isohypse.models.fused import INDUCTOR, fuse, leave_autocast
from isohypse.models.fused import NAME as FUSED
from isohypse.models.network import Network
from isohypse.training.fused_adamw import FusedAdamW
from isohypse.training.hardware import autocast, side_stream
from isohypse.training.optimizer import parameter_groups
from isohypse.training.parallel import Alone
from isohypse.training.step import Step, recompute_activations
from isohypse.training.working_copy import WorkingCopy, in_place

if TYPE_CHECKING:  # needs the data's libraries
    from isohypse.training.batches import Batches

REHEARSALS = 2


class CapturedStep(Step):
    """A `Step` whose `advance` replays a graph."""

    def __init__(
        self,
        network: Network,
        training: Training,
        batches: Batches,
        rates: torch.Tensor,
        precision: str,
        history: int,
        kernels: dict[str, str],
        parallel: Alone,
        micro_batch: int | None = None,
        recompute: bool = False,
    ):
        self.copy = WorkingCopy(network) if precision == "bf16" else None
        places = self.copy.places if self.copy else in_place(network)
        optimizer = FusedAdamW(
            parameter_groups(network, training, rates.device),
            places,
            betas=(training.beta1, training.beta2),
            eps=training.epsilon,
            weight_decay=training.weight_decay,
        )
        working = self.copy.network if self.copy else network
        if self.copy is None or recompute:
            if recompute:
                recompute_activations(working)
            compile_blocks(working, kernels)
        elif fuse(working, network.t_in):
            kernels = dict.fromkeys(kernels, FUSED)
        parallel.attach(working)
        clip, sharing = training.clip_norm, (parallel, micro_batch)
        super().__init__(working, optimizer, batches, rates, clip, precision, history, kernels, *sharing)
        self.backward = Backward(rates.device)
        self.graph: torch.cuda.CUDAGraph | None = None
        self.forecasts: CapturedForecast | None = None

    def advance(self, step: int) -> None:
        self.batches.load(step)
        if self.graph is None:
            self._capture()
        self.graph.replay()

    def close(self) -> None:
        """NCCL keeps its communicators for as long as there is a graph with their reductions."""
        if self.graph is not None:
            self.graph.reset()
            self.graph = None

    def forecast(self, inputs: torch.Tensor) -> torch.Tensor:
        """As `Step.forecast`, by a graph for the shape that comes first; overwritten by the next call."""
        if self.graph is None and self.copy is not None:
            self.copy.refresh()
        if self.forecasts is None:
            self.forecasts = CapturedForecast(self.network, inputs, self.precision)
        if inputs.shape != self.forecasts.inputs.shape:
            return super().forecast(inputs)
        return self.forecasts(inputs)

    def _backward_pass(self, first: bool) -> AbstractContextManager:
        return self.backward.open() if first else nullcontext()

    def _capture(self) -> None:
        if self.copy is not None:
            self.copy.refresh()
        self._rehearse()
        torch._C._cuda_clearCublasWorkspaces()  # those of the rehearsal's streams; the graph has its own
        torch.cuda.empty_cache()
        graph = torch.cuda.CUDAGraph()
        # NCCL's watchdog asks for the state of earlier events meanwhile, in a thread of its own.
        # Of two kernels that are ready, one of this stream goes before one of `self.backward`'s.
        stream = torch.cuda.Stream(priority=-1)
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            self._compute()
        self.optimizer.commit()
        self.graph = graph

    def _rehearse(self) -> None:
        """Compile and load every kernel, and leave everything as it was."""
        counters = (self.counter, self.history, self.skipped, self.rate)
        before = [counter.clone() for counter in counters]
        with side_stream(), self.optimizer.idling():
            for _ in range(REHEARSALS):
                self._compute()
        for counter, value in zip(counters, before):
            counter.copy_(value)


def compile_blocks(network: Network, kernels: dict[str, str]) -> None:
    """Compile the blocks of `network` in place: one compilation for all layers.

    There are no graph breaks but around a kernel of another library (`kernels/external.py`).
    """
    leave_autocast()
    whole = not any(name.startswith(external.NAME) for name in kernels.values())
    for layer in network.backbone.layers:
        layer.compile(fullgraph=whole, dynamic=False, options=INDUCTOR)


class CapturedForecast:
    """Forward passes of one shape, without gradients, as one CUDA graph.

    `network` is called with inputs like `inputs` [sample, t_in, level, latitude, longitude] on a GPU. What
    comes back is overwritten by the next call.
    """

    def __init__(self, network: Network, inputs: torch.Tensor, precision: str):
        self.inputs = inputs.clone()
        with side_stream(), torch.no_grad(), autocast(precision, inputs.device):
            for _ in range(REHEARSALS):
                network(self.inputs)
        self.graph = torch.cuda.CUDAGraph()
        capture = torch.cuda.graph(self.graph, capture_error_mode="thread_local")
        with capture, torch.no_grad(), autocast(precision, inputs.device):
            self.forecast = network(self.inputs)

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        self.inputs.copy_(inputs)
        self.graph.replay()
        return self.forecast
