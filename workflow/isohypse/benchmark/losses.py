# SPDX-License-Identifier: Apache-2.0
"""`isohypse benchmark losses`: does the fast training step learn what the plain one learns?

The loss of every step of the same training (`smooth`) by each way to run it: eager in float32, which the
others are compared with, as a GPU runs it by default (one CUDA graph, bf16), and eager in bf16. And
resuming: steps without a break against the same steps with one, after which weights, moments and counters go
into a new step, as from a checkpoint. One process a model. File out: one JSON, written anew after each model.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from isohypse.benchmark.isolation import answers, attempt
from isohypse.benchmark.report import markdown
from isohypse.benchmark.smooth import SmoothFrames, SmoothTraining
from isohypse.errors import TrainingError
from isohypse.models.network import Network
from isohypse.provenance import provenance
from isohypse.storage import write_json
from isohypse.training.hardware import choose_device, choose_precision, device_name
from isohypse.training.optimizer import optimizer_tensors, restore_optimizer
from isohypse.training.step import Step

PLAIN = ("eager", "fp32")
"""The mode and precision that the others are compared with."""
RESUMED, BREAK = 12, 7
"""Steps of the trainings that are compared for resuming, and those before the break."""
COLUMNS = ("model", "step", "precision", "kernels", "first loss", "last loss", "largest deviation")
RESUME_COLUMNS = ("model", "step", "precision", "kernels", "steps", "losses", "weights")


def benchmark_losses(trainings: Sequence[SmoothTraining], destination: Path, limit_seconds: float) -> str:
    """Train, a process a model, each at most `limit_seconds`; returns the tables.

    Raises UnavailableError for a GPU that is not there.
    """
    device = device_name(choose_device(trainings[0].device))
    models: list[dict[str, Any]] = []
    for training, answer in answers(f"{__name__}:compare_losses", trainings, limit_seconds, "losses", device):
        rows = answer.records + ([{"cannot_run": answer.trouble}] if answer.trouble else [])
        models.append(asdict(training) | {"label": training.label, "rows": rows})
        write_json(destination, {"models": models, "provenance": provenance("", device)})
    return tables(models)


def compare_losses(training: dict[str, Any], started: float = 0.0) -> Iterator[dict[str, Any]]:
    """A row a way of one model, as they are found; the last one tells of resuming."""
    wanted = SmoothTraining(**training)
    device = wanted.chosen_device()
    frames = wanted.smooth_frames()
    plain = None
    for mode, precision in ways(device):
        found = attempt(lambda mode=mode, precision=precision: _losses(wanted, frames, mode, precision))
        row = {"precision": precision} | (found.found or {"cannot_run": found.reason})
        if (mode, precision) == PLAIN:
            plain = row.get("losses")
        elif plain and "losses" in row:
            row["largest_deviation"] = deviation(row["losses"], plain)
        yield row
        if device.type == "cuda":
            torch.cuda.empty_cache()
    resumed = attempt(lambda: resume(wanted, frames, choose_precision("auto", device)))
    yield {"resume": resumed.found or {"cannot_run": resumed.reason}}


def ways(device: torch.device) -> list[tuple[str, str]]:
    """(mode, precision) of the steps on this device."""
    captured = [("auto", "bf16")] if device.type == "cuda" else []
    return [PLAIN, *captured, ("eager", "bf16")]


def deviation(losses: Sequence[float], reference: Sequence[float]) -> float:
    """The largest of any step, relative to the reference."""
    return max(abs(one / other - 1) for one, other in zip(losses, reference, strict=True))


def _losses(wanted: SmoothTraining, frames: SmoothFrames, mode: str, precision: str) -> dict[str, Any]:
    step = wanted.step(wanted.network(), frames, precision, mode=mode, history=wanted.steps)
    for number in range(wanted.steps):
        step.advance(number)
    losses = step.recent(wanted.steps, wanted.steps)[:, 0]
    if not losses.isfinite().all():
        raise TrainingError(f"the loss of step {int(losses.isfinite().long().argmin()) + 1} is not finite")
    return _how(step) | {"losses": losses.tolist()}


def _how(step: Step) -> dict[str, Any]:
    captured = type(step) is not Step
    return {
        "step": "captured" if captured else "eager",
        "precision": step.precision,
        "kernels": step.kernels,
    }


def resume(wanted: SmoothTraining, frames: SmoothFrames, precision: str) -> dict[str, Any]:
    """Whether a training with a break gives the same numbers as one without, to the bit."""
    steps = min(RESUMED, wanted.steps)
    before = steps * BREAK // RESUMED

    def begin() -> tuple[Network, Step]:
        network = wanted.network()
        return network, wanted.step(network, frames, precision, mode="auto", history=steps)

    network, step = begin()
    _advance(step, 0, steps)
    whole = _outcome(network, step, steps)
    network, step = begin()
    _advance(step, 0, before)
    weights, moments = _kept(network, step)
    network, step = begin()
    network.load_state_dict(weights)
    restore_optimizer(dict(network.named_parameters()), step.optimizer, moments)
    step.restore(moments)
    _advance(step, before, steps)
    resumed = _outcome(network, step, steps)
    equal = {name: torch.equal(resumed[name], tensor) for name, tensor in whole.items()}
    losses = equal.pop("losses")
    found = {"steps": steps, "break_after": before, "losses_equal": losses}
    return _how(step) | found | {"weights_equal": all(equal.values())}


def _advance(step: Step, first: int, stop: int) -> None:
    for number in range(first, stop):
        step.advance(number)


def _outcome(network: Network, step: Step, steps: int) -> dict[str, Tensor]:
    """Losses and gradient norms of all steps, and the weights, on the CPU."""
    return {"losses": step.recent(steps, steps)} | {
        n: w.cpu().clone() for n, w in network.state_dict().items()
    }


def _kept(network: Network, step: Step) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What a checkpoint holds: the weights; the moments and what the step itself remembers."""
    moments = optimizer_tensors(dict(network.named_parameters()), step.optimizer) | step.tensors()
    return tuple(
        {name: t.detach().clone() for name, t in ts.items()} for ts in (network.state_dict(), moments)
    )


def tables(models: Sequence[dict[str, Any]]) -> str:
    """Losses and their largest relative deviation from eager float32; then what resuming gave."""
    losses, resumed = [], []
    for model in models:
        for row in model["rows"]:
            if "resume" in row:
                resumed.append((model["label"], *_resume_cells(row["resume"])))
            else:
                losses.append((model["label"], *_loss_cells(row)))
    return f"{markdown(COLUMNS, losses)}\n{markdown(RESUME_COLUMNS, resumed)}"


def _loss_cells(row: dict[str, Any]) -> list[str]:
    if "cannot_run" in row:
        return ["", row.get("precision", ""), f"cannot run: {row['cannot_run']}", "", "", ""]
    first, last = row["losses"][0], row["losses"][-1]
    compared = row.get("largest_deviation")
    deviation = "" if compared is None else f"{compared:.1e}".replace("e-0", "e-")
    return [row["step"], row["precision"], _names(row), f"{first:.5f}", f"{last:.5f}", deviation]


def _resume_cells(row: dict[str, Any]) -> list[str]:
    if "cannot_run" in row:
        return ["", "", f"cannot run: {row['cannot_run']}", "", "", ""]
    words = ["equal to the bit" if row[key] else "differ" for key in ("losses_equal", "weights_equal")]
    return [
        row["step"],
        row["precision"],
        _names(row),
        f"{row['steps']}, a break after {row['break_after']}",
        *words,
    ]


def _names(row: dict[str, Any]) -> str:
    return ", ".join(sorted(set(row["kernels"].values())))
