# SPDX-License-Identifier: Apache-2.0
"""What is scored: the archive's heights, the windows chosen from them, the climatology to compare with.

Reads the Zarr archive and climatology.nc; everything that a baseline is fitted on or a forecast scored
on passes through here, so that this file alone decides who sees which frames.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import xarray as xr

from isohypse.config.assessment import Evaluation
from isohypse.config.experiment import Task
from isohypse.config.sections import Split
from isohypse.data.archive import open_archive
from isohypse.data.climatology import Climatology
from isohypse.data.windows import Windows, evaluation_windows, split_windows
from isohypse.errors import DataError

VARIABLE = "geopotential_height"
BATCH_WINDOWS = 64  # 64 windows of 12 frames at 73 x 144 are 32 MB in float32
BLOCK_FRAMES = 256


@dataclass(frozen=True, eq=False)
class Cases:
    """One task's data, its windows by range, and the windows that are scored."""

    dataset: xr.Dataset
    windows: dict[str, Windows]
    scored: Windows
    climatology: Climatology

    @property
    def heights(self) -> xr.DataArray:
        return self.dataset[VARIABLE]

    @property
    def latitude(self) -> np.ndarray:
        return self.dataset["latitude"].values

    @cached_property
    def time(self) -> np.ndarray:
        """datetime64[ns] [time] of every archived frame."""
        return self.dataset["time"].values.astype("datetime64[ns]")

    @property
    def training(self) -> slice:
        """The frames that belong to a training window: all that a baseline may be fitted on."""
        return self.windows["train"].frames

    @cached_property
    def evaluation_mean(self) -> np.ndarray:
        """The mean of all scored truth, float32 metres [level, latitude, longitude]. It sees the truth."""
        total = 0.0
        for batch in batches(self.scored):
            total = total + read_frames(self.heights, batch.targets()).sum((0, 1), dtype=np.float64)
        return (total / (len(self.scored) * self.scored.t_out)).astype(np.float32)


def open_cases(
    task: Task, split: Split, evaluation: Evaluation, stores: Sequence[Path], climatology: Path
) -> Cases:
    """Open the archive `stores` and the climatology of `task` and choose the windows to be scored."""
    dataset = open_archive(stores, task.levels_hpa)
    windows = split_windows(dataset["time"].values, split, task.protocol, task.t_in, task.t_out)
    scored = choose_windows(evaluation_windows(windows), task.protocol, evaluation)
    expected = Climatology.read(climatology)
    _check_same_grid(dataset, expected, climatology)
    return Cases(dataset, windows, scored, expected)


def _check_same_grid(dataset: xr.Dataset, climatology: Climatology, path: Path) -> None:
    for name, found in (
        ("level", climatology.levels_hpa),
        ("latitude", climatology.latitude),
        ("longitude", climatology.longitude),
    ):
        if not np.array_equal(dataset[name].values, found):
            raise DataError(f"{path}: its {name} is not that of the archive; delete it and run again")


def choose_windows(windows: Windows, protocol: str, evaluation: Evaluation) -> Windows:
    """Every `window_step`-th window, at most `max_windows` of them, evenly spaced in time.

    Protocol paper takes the first `max_windows`, as published. Standard widens the step instead, to an
    odd number: the scored windows span all seasons of the range and all hours of the day.
    """
    step, limit = evaluation.window_step, evaluation.max_windows
    if limit is None:
        return _every(windows, step)
    if protocol == "paper":
        return _every(windows, step, limit)
    return _every(windows, max(step, -(-len(windows) // limit) | 1))


def _every(windows: Windows, step: int, limit: int | None = None) -> Windows:
    return Windows(windows.starts[::step][:limit], windows.t_in, windows.t_out)


def batches(windows: Windows, size: int = BATCH_WINDOWS) -> Iterator[Windows]:
    """Consecutive parts of `windows`, `size` long but for the last."""
    for start in range(0, len(windows), size):
        yield Windows(windows.starts[start : start + size], windows.t_in, windows.t_out)


def read_frames(heights: xr.DataArray, index: np.ndarray) -> np.ndarray:
    """Frames by their index in time: float32 metres [*index.shape, level, latitude, longitude].

    Windows overlap, so each frame is read once and then shared.
    """
    frames, place = np.unique(index, return_inverse=True)
    read = heights.isel(time=frames).values.astype(np.float32, copy=False)
    return read[place.reshape(np.shape(index))]


def read_anomalies(cases: Cases, frames: np.ndarray) -> np.ndarray:
    """Departures from the climatology of their time, float32 metres [frame, level, latitude, longitude]."""
    return read_frames(cases.heights, frames) - cases.climatology.at(cases.time[frames])


def anomaly_blocks(cases: Cases, overlap: int) -> Iterator[np.ndarray]:
    """Anomalies of the training frames in blocks of [n + overlap, ...]; a block ends where the next begins.

    Frames t < n of a block can be paired with t + lead for any lead <= overlap, each pair once. The last
    `overlap` frames of the range are targets only.
    """
    start, stop = cases.training.start, cases.training.stop - overlap
    for first in range(start, stop, BLOCK_FRAMES):
        last = min(first + BLOCK_FRAMES, stop)
        yield read_anomalies(cases, np.arange(first, last + overlap))
