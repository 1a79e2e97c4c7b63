# SPDX-License-Identifier: Apache-2.0
"""`isohypse benchmark endurance`: how long a whole training takes, from the start of its process.

The default step of the device trains on smooth fields (`smooth`); every few steps the windows of a validation
(`training.validation`, protocol `standard`) are forecast by the step itself, as in training. No files are
read and no checkpoints are written. One process a model. File out: one JSON, written anew after each model.
"""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from isohypse.benchmark.isolation import answers
from isohypse.benchmark.report import markdown
from isohypse.benchmark.smooth import SmoothFrames, SmoothTraining
from isohypse.errors import TrainingError
from isohypse.provenance import provenance
from isohypse.storage import write_json
from isohypse.training.hardware import choose_device, choose_precision, device_name
from isohypse.training.step import Step
from isohypse.training.validation import Validation

REPORTS = 10
"""How often a training tells how far it is, so that one that is stopped has told something."""
COLUMNS = (
    "model",
    "steps",
    "evaluations",
    "wall time, s",
    "first step after, s",
    "ms a step",
    "loss",
    "rmse, m",
    "acc",
    "kernels",
)


@dataclass(frozen=True)
class Endurance(SmoothTraining):
    """A training and its evaluations."""

    evaluate_every: int = 20
    """Steps."""
    windows: int = 128
    """In an evaluation."""


def benchmark_endurance(trainings: Sequence[Endurance], destination: Path, limit_seconds: float) -> str:
    """Train, a process a model, each at most `limit_seconds`; returns the table.

    Raises UnavailableError for a GPU that is not there.
    """
    device = device_name(choose_device(trainings[0].device))
    rows: list[dict[str, Any]] = []
    for training, answer in answers(f"{__name__}:endure", trainings, limit_seconds, "endurance", device):
        row = asdict(training) | {"label": training.label} | (answer.records[-1] if answer.records else {})
        rows.append(row | ({"cannot_run": answer.trouble} if answer.trouble else {}))
        write_json(destination, {"rows": rows, "provenance": provenance("", device)})
    return table(rows)


def endure(training: dict[str, Any], started: float) -> Iterator[dict[str, Any]]:
    """How far it is, `REPORTS` times. started: `time.time()` when this process was asked for."""
    wanted = Endurance(**training)
    frames = wanted.smooth_frames(wanted.windows)
    precision = choose_precision("auto", wanted.chosen_device())
    step = wanted.step(wanted.network(), frames, precision, mode="auto", history=1)
    validation = _validation(wanted, frames)
    course = Course(started, step)
    reports = {wanted.steps * part // REPORTS for part in range(1, REPORTS + 1)}
    for done in range(1, wanted.steps + 1):
        step.advance(done - 1)
        if done == 1:
            course.first()
        if done % wanted.evaluate_every == 0:
            course.evaluated(done, validation.measure(step.forecast, wanted.windows))
        if done in reports:
            yield course.report(done)


def _validation(wanted: Endurance, frames: SmoothFrames) -> Validation:
    mean = frames.read(np.arange(wanted.training_windows)).mean(axis=0)
    windows = wanted.windows_after(wanted.windows)
    return Validation(windows, np.arange(len(windows)), frames, "standard", wanted.chosen_device(), mean)


class Course:
    """Times of a training. A step is timed from the end of the first evaluation, when all is compiled."""

    def __init__(self, started: float, step: Step):
        self.started, self.step = started, step
        self.first_step_seconds = 0.0
        self.evaluations, self.scores = 0, {}
        self.timed_from = (0, started)

    def first(self) -> None:
        """The first step has been given to the device."""
        self.step.recent(1, 1)  # waits
        self.first_step_seconds = time.time() - self.started
        self.timed_from = (1, time.time())

    def evaluated(self, done: int, scores: dict[str, float]) -> None:
        """After `done` steps."""
        self.evaluations, self.scores = self.evaluations + 1, scores
        if self.evaluations == 1:
            self.timed_from = (done, time.time())

    def report(self, done: int) -> dict[str, Any]:
        """After `done` steps. Raises TrainingError if the loss is not finite."""
        loss = self.step.recent(1, done)[0, 0].item()  # waits
        if not math.isfinite(loss):
            raise TrainingError(f"the loss of step {done} is not finite")
        first, since = self.timed_from
        seconds = (time.time() - since) / (done - first) if done > first else None
        return {
            "steps_done": done,
            "evaluations": self.evaluations,
            "wall_seconds": time.time() - self.started,
            "first_step_seconds": self.first_step_seconds,
            "seconds_a_step": seconds,
            "loss": loss,
            "scores": self.scores,
            "precision": self.step.precision,
            "kernels": self.step.kernels,
        }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """A step's time has its share of the evaluations; loss: of the last step; rmse, acc: last evaluation."""
    return markdown(COLUMNS, map(_cells, rows))


def _cells(row: dict[str, Any]) -> list[str]:
    trouble = [f"cannot run: {row['cannot_run']}"] if "cannot_run" in row else []
    if "steps_done" not in row:
        return [row["label"], *trouble, *[""] * (len(COLUMNS) - 2)]
    seconds, scores = row["seconds_a_step"], row["scores"]
    return [
        row["label"],
        " ".join([f"{row['steps_done']:,}", *trouble]),
        str(row["evaluations"]),
        f"{row['wall_seconds']:.1f}",
        f"{row['first_step_seconds']:.1f}",
        "" if seconds is None else f"{1000 * seconds:.2f}",
        f"{row['loss']:.5f}",
        f"{scores['rmse_m']:.2f}" if scores else "",
        f"{scores['acc']:.4f}" if scores else "",
        ", ".join(sorted(set(row["kernels"].values()))),
    ]
