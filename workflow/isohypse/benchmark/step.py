# SPDX-License-Identifier: Apache-2.0
"""`isohypse benchmark step`: one process a model, one JSON a model, one table.

Files out, in the folder asked for: `<model>-<flavour>.json` and `table.md`.
"""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from isohypse.benchmark.report import table
from isohypse.benchmark.trial import Trial
from isohypse.errors import UnavailableError
from isohypse.storage import atomic_path, write_json

_CHILD = (
    "import sys, time; started = float(sys.argv[2]);"
    "from isohypse.benchmark.step import trial_in_this_process; trial_in_this_process(sys.argv[1], started)"
)


def benchmark_step(trials: Sequence[Trial], destination: Path, timeout_seconds: float = 600) -> str:
    """Run the trials one after another; returns the table. A trial that fails is told of and left out.

    Raises UnavailableError without a GPU, or if none could be run.
    """
    if not torch.cuda.is_available():
        raise UnavailableError(
            "benchmark step needs a GPU, and torch sees none; `benchmark forms` needs none"
        )
    records = []
    for trial in trials:
        record = _in_process(trial, timeout_seconds)
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


def _in_process(trial: Trial, timeout_seconds: float) -> dict[str, Any] | None:
    command = [sys.executable, "-c", _CHILD, json.dumps(asdict(trial)), str(time.time())]
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, timeout=timeout_seconds, check=False
        )
    except subprocess.TimeoutExpired:
        print(f"isohypse: {trial.model}: stopped after {timeout_seconds:.0f} s", file=sys.stderr)
        return None
    if done.returncode:
        print(f"isohypse: {trial.model}: the process ended with {done.returncode}", file=sys.stderr)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def trial_in_this_process(trial: str, started: float) -> None:
    """Print the record of a trial given as JSON. started: `time.time()` when this process was asked for."""
    from isohypse.benchmark.trial import run_trial

    print(json.dumps(run_trial(Trial(**json.loads(trial)), started)))
