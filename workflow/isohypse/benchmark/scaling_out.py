# SPDX-License-Identifier: Apache-2.0
"""`isohypse benchmark scaling-out`: one training step on 1, 2, 4, 8 GPUs of this machine.

    weak    `batch_size` windows a GPU
    strong  `batch_size` windows in all; on 8 GPUs, with 256 windows of 8 frames, the paper's configuration
    long    one window of `long_frames`, activations computed again in the backward pass

A mode is how the ranks share the work: `replicate`, `fsdp`, `tensor2` and so on (tensor parallelism of that
degree, and replicated over what GPUs are left). One GPU has nothing to share and is measured once, `alone`.
`long` has one window and so takes tensor parallelism alone, or one GPU.

Each measurement is a process group of its own with a limit to its time. One that fails, or needs more GPUs
than there are, is a row that says so. Files out after each, in the folder asked for: `rows.json`, `table.md`.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from isohypse.benchmark.process_group import GroupFailure, end_with_parent, run_group
from isohypse.benchmark.rank_trial import Measurement, run_measurement
from isohypse.benchmark.scaling_report import report
from isohypse.errors import ConfigurationError, UnavailableError
from isohypse.models.catalogue import flavour_of
from isohypse.storage import atomic_path, write_json
from isohypse.training.hardware import choose_device

SCALINGS = ("weak", "strong", "long")
MODES = ("replicate", "fsdp", "tensor2", "tensor4", "tensor8")
_RANK = (
    "import sys; from isohypse.benchmark.scaling_out import measure_in_this_process as run; run(sys.argv[1])"
)


@dataclass(frozen=True)
class Plan:
    """What is to be measured. Raises ConfigurationError for names or numbers that cannot be."""

    models: tuple[str, ...]
    flavour: str
    scalings: tuple[str, ...] = SCALINGS
    modes: tuple[str, ...] = MODES
    gpus: tuple[int, ...] = (1, 2, 4, 8)
    batch_size: int = 256
    frames: int = 8
    long_frames: int = 131_072
    rounds: int = 5
    steps: int = 10
    device: str = "auto"

    def __post_init__(self) -> None:
        for model in self.models:
            flavour_of(model, self.flavour)
        for name, known in (("scalings", SCALINGS), ("modes", MODES)):
            for value in set(getattr(self, name)) - set(known):
                raise ConfigurationError(
                    f"benchmark scaling-out: {name} has no {value!r}; choose from {', '.join(known)}"
                )
        numbers = (*self.gpus, self.batch_size, self.frames, self.long_frames, self.rounds, self.steps)
        if min(numbers) < 1:
            raise ConfigurationError(f"benchmark scaling-out: {min(numbers)} is not at least 1")

    def measurements(self) -> Iterator[Measurement]:
        """All of them; those of one GPU come first, as the others are compared with them."""
        for model in self.models:
            short = {"weak", "strong"}.intersection(self.scalings)
            if 1 in self.gpus and short:
                yield self._measurement(model, "one", "alone", 1, self.batch_size)
            for scaling in (s for s in self.scalings if s in short):
                for ranks, mode in self._shared():
                    windows = self.batch_size * (ranks if scaling == "weak" else 1)
                    yield self._measurement(model, scaling, mode, ranks, windows)
            if "long" in self.scalings:
                if 1 in self.gpus:
                    yield self._measurement(model, "long", "alone", 1, 1)
                for ranks, mode in self._shared():
                    if mode == f"tensor{ranks}":
                        yield self._measurement(model, "long", mode, ranks, 1)

    def _shared(self) -> Iterator[tuple[int, str]]:
        for ranks in sorted(set(self.gpus) - {1}):
            for mode in self.modes:
                degree = int(mode.removeprefix("tensor")) if mode.startswith("tensor") else 1
                if ranks % degree == 0:
                    yield ranks, mode

    def _measurement(self, model: str, scaling: str, mode: str, ranks: int, windows: int) -> Measurement:
        long = scaling == "long"
        return Measurement(
            model=model,
            flavour=self.flavour,
            scaling=scaling,
            mode=mode,
            ranks=ranks,
            batch_size=windows,
            frames=self.long_frames if long else self.frames,
            recompute=long,
            rounds=self.rounds,
            steps=1 if long else self.steps,
            device=choose_device(self.device).type,
        )


def benchmark_scaling_out(plan: Plan, destination: Path, limit_seconds: float = 300) -> str:
    """Measure one after another; returns the table.

    Raises UnavailableError for a GPU that is not there, or if nothing could be measured.
    """
    rows: list[dict[str, Any]] = []
    text = ""
    for measurement in plan.measurements():
        rows.append(asdict(measurement) | _row(measurement, limit_seconds))
        print(f"isohypse: {measurement}: {_in_a_word(rows[-1])}", file=sys.stderr)
        write_json(destination / "rows.json", rows)
        text = report(rows)
        with atomic_path(destination / "table.md") as path:
            path.write_text(text)
    if not any("step_seconds" in row for row in rows):
        raise UnavailableError("nothing could be measured; the messages above say why")
    return text


def _row(measurement: Measurement, limit_seconds: float) -> dict[str, Any]:
    present = torch.cuda.device_count() if measurement.device == "cuda" else measurement.ranks
    if measurement.ranks > present:
        return {"skipped": f"needs {measurement.ranks} GPUs, here are {present}"}
    command = [sys.executable, "-c", _RANK, json.dumps(asdict(measurement))]
    try:
        return json.loads(run_group(command, measurement.ranks, limit_seconds).splitlines()[-1])
    except GroupFailure as failure:
        return {"failed": str(failure)}


def _in_a_word(row: dict[str, Any]) -> str:
    if "step_seconds" in row:
        return f"{1000 * row['step_seconds']['median']:.2f} ms a step"
    return row.get("failed") or f"skipped: {row['skipped']}"


def measure_in_this_process(measurement: str) -> None:
    """One rank's part of a measurement given as JSON; the first rank prints what was found."""
    end_with_parent()
    found = run_measurement(Measurement(**json.loads(measurement)))
    if found is not None:
        print(json.dumps(found))
