# SPDX-License-Identifier: Apache-2.0
"""The log of a training: metrics.csv (step,split,metric,value) and, if wanted, TensorBoard event files.

split is `train` (means over the steps since the row before) or `validation`. Values are written with all
digits.
"""

import csv
from collections.abc import Mapping
from pathlib import Path

from isohypse.storage import atomic_path

HEADER = ("step", "split", "metric", "value")


class MetricsLog:
    """Appends to metrics.csv in `folder` after step `done`: later rows, of a killed training, go."""

    def __init__(self, folder: Path, done: int, tensorboard: bool):
        self.path = folder / "metrics.csv"
        _cut(self.path, done)
        self.file = self.path.open("a", newline="")
        self.rows = csv.writer(self.file, lineterminator="\n")
        self.events = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self.events = SummaryWriter(folder / "tensorboard", purge_step=done + 1)

    def write(self, step: int, split: str, metrics: Mapping[str, float]) -> None:
        for metric, value in metrics.items():
            self.rows.writerow((step, split, metric, repr(float(value))))
            if self.events is not None:
                self.events.add_scalar(f"{metric}/{split}", value, step)
        self.file.flush()

    def close(self) -> None:
        self.file.close()
        if self.events is not None:
            self.events.close()


def read_metrics(path: Path) -> list[tuple[int, str, str, float]]:
    """The rows of a metrics.csv. A last line that was cut off by a kill is left out."""
    with path.open(newline="") as file:
        rows = [row for row in csv.reader(file) if len(row) == len(HEADER)]
    return [(int(step), split, metric, float(value)) for step, split, metric, value in rows[1:]]


def _cut(path: Path, done: int) -> None:
    """Leave the header and the rows up to step `done`; if that fails, all of them."""
    kept = [row for row in read_metrics(path) if row[0] <= done] if path.exists() else []
    with atomic_path(path) as whole, whole.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        writer.writerows((step, split, metric, repr(value)) for step, split, metric, value in kept)
