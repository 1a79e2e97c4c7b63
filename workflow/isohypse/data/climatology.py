# SPDX-License-Identifier: Apache-2.0
"""The height to expect on a day of the year at an hour: Zarr stores in, one netCDF out.

After WeatherBench 2 (Rasp et al. 2024, doi:10.1029/2023MS004019): for each of 366 days of the year and each
of 00, 06, 12 and 18 UTC the mean over all years, smoothed by a circular triangular window of `window_days`.
Day 366 shares its neighbours' samples through the window. Only training frames are read, in either
protocol. With less than a year of them there is no seasonal cycle to be had, and the training mean takes
its place.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from isohypse.config.settings import ClimatologySettings
from isohypse.data.archive import open_archive
from isohypse.data.contract import time_blocks
from isohypse.data.windows import training_range
from isohypse.errors import DataError
from isohypse.forecasting import FRAME_HOURS
from isohypse.progress import Progress
from isohypse.provenance import provenance
from isohypse.storage import atomic_path

DAYS, HOURS = 366, 24 // FRAME_HOURS
FRAMES_OF_A_YEAR = 365 * HOURS
MEAN_LABEL = "training mean (less than a year of data)"


@dataclass(frozen=True, eq=False)
class Climatology:
    """heights: float32 metres [day, hour, level, latitude, longitude]; day and hour have size 1 for a mean.

    levels_hpa: int [level], descending; `label` says how it was made, for captions and result files.
    """

    heights: np.ndarray
    levels_hpa: tuple[int, ...]
    latitude: np.ndarray
    longitude: np.ndarray
    label: str

    def at(self, valid_time: np.ndarray) -> np.ndarray:
        """float32 metres [..., level, latitude, longitude] for datetime64 `valid_time` [...].

        Raises ValueError for a time that is not at 00, 06, 12 or 18 UTC.
        """
        day, hour = _day_and_hour(np.asarray(valid_time))
        if self.heights.shape[0] == 1:
            day, hour = np.zeros_like(day), np.zeros_like(hour)
        return self.heights[day, hour]

    @classmethod
    def read(cls, path: Path | str) -> "Climatology":
        """Read what `compute_climatology` wrote. Raises DataError for anything else."""
        try:
            with xr.open_dataset(path, engine="netcdf4") as found:
                found.load()
            heights, label = found.geopotential_height, found.attrs["label"]
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise DataError(f"{path}: not a climatology ({error}); delete it and run again") from None
        levels = tuple(int(level) for level in found.level.values)
        return cls(heights.values, levels, found.latitude.values, found.longitude.values, label)


def compute_climatology(settings: ClimatologySettings, stores: Sequence[Path], destination: Path) -> None:
    """Write the climatology of the training frames to `destination` (netCDF)."""
    archive = open_archive(stores, settings.levels_hpa)
    training = archive.geopotential_height.isel(time=training_range(archive.time.values, settings.split))
    found = fit_climatology(training, settings.window_days)
    record = provenance(settings.digest) | {"data_sha256": archive.attrs["data_sha256"]}
    with atomic_path(destination) as path:
        _to_dataset(found, training).assign_attrs(provenance=json.dumps(record, sort_keys=True)).to_netcdf(
            path, engine="netcdf4"
        )


def fit_climatology(training: xr.DataArray, window_days: int) -> Climatology:
    """The climatology of `training` (time, level, latitude, longitude), every frame of which is used.

    One pass a level; memory: 1464 fp64 frames, and the result. Raises DataError if a value is not finite.
    """
    seasonal = training.sizes["time"] >= FRAMES_OF_A_YEAR
    with Progress(training.size, "climatology", "values") as progress:
        fitted = [
            _fit_level(training.isel(level=i), seasonal, window_days, progress)
            for i in range(training.sizes["level"])
        ]
    heights = np.stack(fitted, axis=2)
    if not np.isfinite(heights).all():
        raise DataError("archive: training heights are missing or infinite; delete its stores and run again")
    return Climatology(
        heights,
        tuple(int(level) for level in training.level.values),
        training.latitude.values,
        training.longitude.values,
        _label(training.time.values, window_days) if seasonal else MEAN_LABEL,
    )


def _fit_level(level: xr.DataArray, seasonal: bool, window_days: int, progress: Progress) -> np.ndarray:
    """float32 [day, hour, latitude, longitude]."""
    days, hours = (DAYS, HOURS) if seasonal else (1, 1)
    sums = np.zeros((days, hours, *level.shape[1:]))
    counts = np.zeros((days, hours))
    for frames, heights in time_blocks(level):
        if seasonal:
            # A block is shorter than a year, so that each (day, hour) occurs in it once at most.
            slot = _day_and_hour(level.time.values[frames])
            sums[slot] += heights
            counts[slot] += 1
        else:
            sums[0, 0] += heights.sum(axis=0, dtype=np.float64)
            counts += len(heights)
        progress.advance(heights.size)
    if seasonal:
        sums, counts = _smooth(sums, counts, window_days)
    return (sums / counts[..., None, None]).astype(np.float32)


def _smooth(sums: np.ndarray, counts: np.ndarray, window_days: int) -> tuple[np.ndarray, np.ndarray]:
    """Weighted sums and counts: each sample enters day d with the weight of its distance to d."""
    window = triangular_window(window_days)
    smooth = np.tensordot(window, sums, axes=1)
    total = window @ counts
    for day in np.flatnonzero((total == 0).any(axis=1)):
        # A window of one day and no leap year: day 366 is like the day before it.
        smooth[day], total[day] = smooth[day - 1], total[day - 1]
    return smooth, total


def triangular_window(window_days: int) -> np.ndarray:
    """float64 [366, 366]: weight of a sample of day j in day i: 1 for the day, 0 half a window away."""
    half = max(window_days // 2, 1)
    distance = np.abs(np.arange(DAYS)[:, None] - np.arange(DAYS))
    distance = np.minimum(distance, DAYS - distance)  # circular
    return np.clip(1 - distance / half, 0, None)


def _day_and_hour(time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Day of the year (0 to 365) and six-hourly index (0 to 3) of datetime64 `time`."""
    days = time.astype("datetime64[D]")
    day = (days - days.astype("datetime64[Y]").astype("datetime64[D]")).astype(np.int64)
    hour, off = np.divmod((time - days).astype("timedelta64[s]").astype(np.int64), FRAME_HOURS * 3600)
    if off.any():
        raise ValueError(f"climatology: {time[off != 0].flat[0]} is not at 00, 06, 12 or 18 UTC")
    return day, hour


def _label(time: np.ndarray, window_days: int) -> str:
    first, last = (str(np.datetime64(moment, "Y")) for moment in (time[0], time[-1]))
    years = first if first == last else f"{first}-{last}"
    return f"day of year x hour, {window_days}-day triangular window, {years}"


def _to_dataset(found: Climatology, training: xr.DataArray) -> xr.Dataset:
    days, hours = found.heights.shape[:2]
    dims = ("dayofyear", "hour", "level", "latitude", "longitude")
    coords = {name: training[name] for name in dims[2:]}
    coords["dayofyear"] = ("dayofyear", np.arange(1, days + 1, dtype=np.int32))
    coords["hour"] = ("hour", np.arange(0, 24, 24 // hours, dtype=np.int32), {"units": "hours"})
    attrs = {"standard_name": "geopotential_height", "units": "m", "cell_methods": "time: mean"}
    period = [str(np.datetime64(training.time.values[i], "s")) for i in (0, -1)]
    return xr.Dataset(
        {"geopotential_height": (dims, found.heights, attrs)},
        coords,
        {"Conventions": "CF-1.11", "label": found.label, "training_period": "/".join(period)},
    )
