# SPDX-License-Identifier: Apache-2.0
"""`isohypse benchmark step`: one process a model, one JSON a model, one table.

Files out, in the folder asked for: `<model>-<flavour>.json` and `table.md`.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from isohypse.benchmark.isolation import in_own_process
from isohypse.benchmark.report import table
from isohypse.benchmark.trial import Trial, run_trial
from isohypse.errors import UnavailableError
from isohypse.storage import atomic_path, write_json


def benchmark_step(trials: Sequence[Trial], destination: Path, limit_seconds: float) -> str:
    """Run the trials one after another, each at most `limit_seconds`; returns the table.

    A trial that fails is told of and left out.

    Raises UnavailableError without a GPU, or if none could be run.
    """
    if not torch.cuda.is_available():
        raise UnavailableError(
            "benchmark step needs a GPU, and torch sees none; `benchmark forms` needs none"
        )
    records = []
    for trial in trials:
        record = _measured(trial, limit_seconds)
        if record is None:
            continue
        write_json(destination / f"{trial.model}-{trial.flavour}-T{trial.frames}.json", record)
        records.append(record)
    if not records:
        raise UnavailableError("no trial could be run; the messages above say why")
    text = table(records)
    with atomic_path(destination / "table.md") as path:
        path.write_text(text)
    return text


def _measured(trial: Trial, limit_seconds: float) -> dict[str, Any] | None:
    answer = in_own_process(f"{__name__}:trial_in_this_process", asdict(trial), limit_seconds)
    if answer.trouble:
        print(f"isohypse: {trial.model}: {answer.trouble}", file=sys.stderr)
        return None
    return answer.records[-1]


def trial_in_this_process(trial: dict[str, Any], started: float) -> Iterator[dict[str, Any]]:
    """The record of a trial. started: `time.time()` when this process was asked for."""
    yield run_trial(Trial(**trial), started)
