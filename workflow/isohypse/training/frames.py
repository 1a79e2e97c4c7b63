# SPDX-License-Identifier: Apache-2.0
"""The archive as normalised frames: heights in metres in, dimensionless anomalies out.

x = (z - mean) / std with one mean and one standard deviation a level (the run's statistics.json).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from isohypse.data.archive import open_archive
from isohypse.data.statistics import Statistics
from isohypse.errors import DataError

BLOCK_FRAMES = 1460  # read at once: a year


class Normalisation:
    """Metres to and from dimensionless heights by level; arrays are [..., level, latitude, longitude]."""

    def __init__(self, statistics: Statistics, levels_hpa: Sequence[int]):
        if tuple(statistics.levels_hpa) != tuple(levels_hpa):
            raise DataError(
                f"statistics are of {list(statistics.levels_hpa)} hPa, the run needs {list(levels_hpa)} hPa"
            )
        self.mean_m = np.asarray(statistics.mean, np.float32)[:, None, None]
        self.std_m = np.asarray(statistics.std, np.float32)[:, None, None]

    def normalise(self, heights_m: np.ndarray) -> np.ndarray:
        normalised = np.subtract(heights_m, self.mean_m, dtype=np.float32)
        normalised /= self.std_m
        return normalised

    def restore(self, normalised: np.ndarray) -> np.ndarray:
        return normalised * self.std_m + self.mean_m


class Frames:
    """Normalised frames of an archive, read when asked for; `shape` is (time, level, latitude, longitude).

    `digest` identifies the archive's data.
    """

    def __init__(self, archive: xr.Dataset, statistics: Statistics):
        dimensions = ("time", "level", "latitude", "longitude")
        self.heights = archive["geopotential_height"].transpose(*dimensions)
        self.normalisation = Normalisation(statistics, archive["level"].values.tolist())
        self.shape = self.heights.shape
        self.time = archive["time"].values
        self.latitude = archive["latitude"].values
        self.longitude = archive["longitude"].values
        self.digest = archive.attrs["data_sha256"]

    def read(self, index: slice | np.ndarray) -> np.ndarray:
        """float32 [frame, level, latitude, longitude] of a range of times or of an index array."""
        return self.normalisation.normalise(self.heights.isel(time=index).values)

    def blocks(self, start: int, stop: int) -> Iterator[tuple[slice, np.ndarray]]:
        """The frames [start, stop) in metres and in order, a year at a time, with where they stand."""
        for first in range(start, stop, BLOCK_FRAMES):
            where = slice(first, min(first + BLOCK_FRAMES, stop))
            yield where, self.heights.isel(time=where).values

    def mean(self, start: int, stop: int) -> np.ndarray:
        """float32 [level, latitude, longitude]: the mean of the frames [start, stop), summed in float64."""
        total = np.zeros(self.shape[1:])
        for _, block in self.blocks(start, stop):
            total += self.normalisation.normalise(block).sum(axis=0, dtype=np.float64)
        return (total / (stop - start)).astype(np.float32)


def open_frames(stores: Sequence[Path], levels_hpa: Sequence[int], statistics: Path) -> Frames:
    """The archive's frames at `levels_hpa`. Raises DataError if the statistics are of other levels."""
    return Frames(open_archive(stores, levels_hpa), Statistics.read(statistics))
