# SPDX-License-Identifier: Apache-2.0
"""One model in one process: our training step and forecast, the peer's, the ceilings. File out: one JSON.

Ours comes first and alone, so that its first step counts from the start of the process and its peak memory is
its own; then the peer is built beside it and both are timed turn by turn, so that a slow minute of the host
hits both. A round is a few steps between two synchronisations. Inputs are random numbers of the grid's size.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch

from isohypse.benchmark.ceilings import measure_ceilings
from isohypse.benchmark.latency import our_latency, our_step_latency, peer_latency
from isohypse.config.sections import Training
from isohypse.errors import ConfigurationError, IsohypseError
from isohypse.models.catalogue import flavour_of, label_of
from isohypse.models.network import Network
from isohypse.models.registry import build
from isohypse.provenance import provenance
from isohypse.training.same_batch import RandomBatch
from isohypse.training.step import Step, build_step

if TYPE_CHECKING:  # needs the data's libraries, which a first step does not wait for
    from isohypse.training.batches import Batches

LATITUDES, LONGITUDES = 73, 144
GRID = (1, LATITUDES, LONGITUDES)
"""One level of the reanalysis."""
TABLE_3 = {  # of the paper
    "learning_rate": 3e-4,
    "warmup_steps": 1024,
    "final_learning_rate_fraction": 0.1,
    "beta1": 0.9,
    "beta2": 0.999,
    "epsilon": 1e-15,
    "weight_decay": 0.1,
    "clip_norm": 1.0,
    "head_bias": "zero",
}


@dataclass(frozen=True)
class Trial:
    """What is measured. Raises ConfigurationError for names or numbers that cannot be."""

    model: str
    flavour: str
    batch_size: int
    frames: int
    """Length of a sequence, T."""
    rounds: int = 7
    peer: bool = True

    def __post_init__(self) -> None:
        flavour_of(self.model, self.flavour)
        for name in ("batch_size", "frames", "rounds"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"benchmark step: {name} is {getattr(self, name)}, not at least 1")


class Sizes(Protocol):
    """Of a batch: sequences, and frames of each."""

    batch_size: int
    frames: int


class RandomBatches(RandomBatch):
    """One random batch of one level for all steps, on the grid of the reanalysis."""

    def __init__(self, sizes: Sizes, device: torch.device, seed: int = 0):
        super().__init__(sizes.batch_size, sizes.frames, GRID, device, seed)


def run_trial(trial: Trial, started: float) -> dict[str, Any]:
    """Measure on the GPU. started: `time.time()` at the start of the process. Returns the record."""
    device = torch.device("cuda")
    batches = RandomBatches(trial, device)
    before = torch.cuda.memory_allocated()  # the batch, which the peer takes too
    network = same_network(trial.model, trial.flavour, trial.frames, device)
    step = training_step(network, batches, trial.batch_size, device)
    step.advance(0)
    torch.cuda.synchronize()
    record = asdict(trial) | {"label": label_of(trial.model), "first_step_seconds": time.time() - started}
    advance = _advance(step, 1)
    _round(advance, 3)
    record["peak_memory_bytes"] = torch.cuda.max_memory_allocated() - before
    record["parameters"] = sum(parameter.numel() for parameter in network.parameters())
    record["kernels"] = step.kernels
    candidates = {"ours": (advance, 20), **_peer(trial, batches, record)}
    seconds = {name: [] for name in candidates}
    for _ in range(trial.rounds):
        for name, (work, count) in candidates.items():
            seconds[name].append(_round(work, count))
    record |= _latencies(network, trial, candidates, device)
    record["step_seconds"] = {name: spread(values) for name, values in seconds.items()}
    record["ceilings"] = _ceilings(record, trial, device)
    record["provenance"] = provenance("", torch.cuda.get_device_name(device), record["kernels"])
    return record


def same_network(
    model: str,
    flavour: str,
    frames: int,
    device: torch.device,
    layers: int | None = None,
    grid: tuple[int, int, int] = GRID,
) -> Network:
    """With one frame out; the same every time on one device. grid: levels, latitudes, longitudes."""
    torch.manual_seed(0)
    sizes = dict(zip(("levels", "latitude", "longitude"), grid))
    return build(model, flavour, t_in=frames, t_out=1, **sizes, layers=layers, device=device)


def training_step(network: Network, batches: Batches, batch_size: int, device: torch.device) -> Step:
    """The step of a bf16 training with the paper's settings."""
    training = Training(steps=100_000, batch_size=batch_size, **TABLE_3)
    kernels = network.kernel_names(batch=batch_size)
    return build_step(network, training, batches, device, "bf16", history=20, kernels=kernels)


def _advance(step: Step, done: int) -> Callable[[], None]:
    """A call that takes the next step."""
    numbers = iter(range(done, 100_000))
    return lambda: step.advance(next(numbers))


def _peer(trial: Trial, batches: RandomBatches, record: dict[str, Any]) -> dict[str, tuple[Callable, int]]:
    """The peer's step, warmed up; its notes go into the record. None if it cannot be built or run."""
    if not trial.peer:
        return {}
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    try:
        from isohypse.benchmark.peers import PeerStep, build_peer

        peer = build_peer(trial.model, trial.flavour, cells=LATITUDES * LONGITUDES, t_out=1)
        step = PeerStep(peer.network.to("cuda"), batches.inputs, batches.targets)
        _round(step, 3)
    except (IsohypseError, ImportError, RuntimeError) as error:
        record["peer_note"] = f"cannot run: {' '.join(str(error).split())[:200]}"
        return {}
    record["peer_first_steps_seconds"] = time.perf_counter() - start
    record["peer_note"] = peer.note
    record["peer_parameters"] = sum(parameter.numel() for parameter in peer.network.parameters())
    record["peer_peak_memory_bytes"] = torch.cuda.max_memory_allocated() - before
    return {"peer": (step, 2)}


def _latencies(network: Network, trial: Trial, candidates: dict, device: torch.device) -> dict[str, Any]:
    """Of a forecast at batch 1."""
    inputs = torch.randn(1, trial.frames, 1, LATITUDES, LONGITUDES, device=device)
    found = {"forecast_seconds": our_latency(network, inputs)}
    found["carried_forecast_seconds"] = our_step_latency(network, inputs)
    if "peer" in candidates:
        found["peer_forecast_seconds"] = peer_latency(candidates["peer"][0].network, inputs)
    return found


def _ceilings(record: dict[str, Any], trial: Trial, device: torch.device) -> dict[str, float]:
    ceilings = measure_ceilings(device)
    floor = ceilings.floor_seconds(record["parameters"], trial.batch_size * trial.frames)
    return asdict(ceilings) | {"floor_seconds": floor}


def _round(work: Callable[[], None], count: int) -> float:
    """Seconds of one of `count` calls."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(count):
        work()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / count


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}
