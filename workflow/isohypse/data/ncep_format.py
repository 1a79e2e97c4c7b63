# SPDX-License-Identifier: Apache-2.0
"""Writes heights as NOAA PSL writes those of the NCEP/NCAR Reanalysis 1: one `hgt.YYYY.nc` a year.

NETCDF4_CLASSIC, `hgt(time, level, lat, lon)` float32 in whole metres, pressure descending, latitude from
north to south, six-hourly; attributes by name, type, order and (but for the origin of the data) by value
those of the files since 2014. Only title, description, history, dataset_title and References
say what the data really are. Kalnay et al. (1996), Bull. Amer. Meteor. Soc. 77, 437.
"""

from calendar import isleap
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

import netCDF4
import numpy as np

from isohypse.errors import ConfigurationError

LEVELS_HPA = (1000, 925, 850, 700, 600, 500, 400, 300, 250, 200, 150, 100, 70, 50, 30, 20, 10)
LATITUDE_DEG = np.linspace(90.0, -90.0, 73, dtype=np.float32)
LONGITUDE_DEG = (np.arange(144) * 2.5).astype(np.float32)
STEP_HOURS = 6
TIME_ORIGIN = datetime(1800, 1, 1)
TIME_UNITS = "hours since 1800-01-01 00:00:0.0"
MISSING_VALUE = np.float32(-9.96921e36)
DEFLATE_LEVEL = 1  # with shuffle; whole metres leave two of four bytes empty, a higher level gains little

COORDINATES = {
    "level": {
        "units": "millibar",
        "long_name": "Level",
        "positive": "down",
        "GRIB_id": np.int16(100),
        "GRIB_name": "hPa",
        "axis": "Z",
        "actual_range": None,  # known once the values are
    },
    "lat": {
        "units": "degrees_north",
        "actual_range": None,
        "long_name": "Latitude",
        "standard_name": "latitude",
        "axis": "Y",
    },
    "lon": {
        "units": "degrees_east",
        "long_name": "Longitude",
        "actual_range": None,
        "standard_name": "longitude",
        "axis": "X",
    },
    "time": {
        "long_name": "Time",
        "delta_t": "0000-00-00 06:00:00",
        "standard_name": "time",
        "axis": "T",
        "units": TIME_UNITS,
        "actual_range": None,
    },
}
HEIGHT = {
    "long_name": "4xDaily Geopotential height",
    "units": "m",
    "precision": np.int16(0),
    "least_significant_digit": np.int16(0),
    "GRIB_id": np.int16(7),
    "GRIB_name": "HGT",
    "var_desc": "Geopotential height",
    "dataset": "NCEP Reanalysis",
    "level_desc": "Multiple levels",
    "statistic": "Individual Obs",
    "parent_stat": "Other",
    "missing_value": MISSING_VALUE,
    "valid_range": np.array([-700.0, 35000.0], np.float32),
    "actual_range": None,
}


def steps_of_year(year: int) -> int:
    """1460 analyses a year, 1464 in leap years of the Gregorian calendar."""
    return (366 if isleap(year) else 365) * 24 // STEP_HOURS


def times_of_year(year: int) -> np.ndarray:
    """Valid times of 00, 06, 12, 18 UTC of all days, float64 hours since 1800-01-01."""
    first = (datetime(year, 1, 1) - TIME_ORIGIN).days * 24
    return first + STEP_HOURS * np.arange(steps_of_year(year), dtype=np.float64)


def checked_levels(levels_hpa: Sequence[int]) -> tuple[int, ...]:
    """The levels, pressure descending. ConfigurationError unless they are different ones of `LEVELS_HPA`."""
    levels = tuple(sorted({int(level) for level in levels_hpa}, reverse=True))
    if not levels or len(levels) != len(levels_hpa) or not set(levels) <= set(LEVELS_HPA):
        raise ConfigurationError(
            f"levels {list(levels_hpa)} hPa: expected different levels of {list(LEVELS_HPA)}"
        )
    return levels


def write_year(
    path: Path, year: int, levels_hpa: Sequence[int], frames: Iterable[np.ndarray], source: str
) -> None:
    """Write the year's `frames`, each (level, latitude, longitude) in whole metres, as they come.

    Only one frame is held in memory. `source` is the sentence that names the origin of synthetic data.
    Not atomic: give it a temporary path. ValueError if the number of frames is not that of the year.
    """
    levels_hpa = checked_levels(levels_hpa)
    times = times_of_year(year)
    with netCDF4.Dataset(path, "w", format="NETCDF4_CLASSIC") as file:
        _write_coordinates(file, levels_hpa, times)
        height = _define_height(file, len(levels_hpa))
        file.setncatts(_global_attributes(year, source))
        lowest, highest, count = np.inf, -np.inf, 0
        for frame in frames:
            height[count] = frame
            lowest, highest = min(lowest, frame.min()), max(highest, frame.max())
            count += 1
        if count != len(times):
            raise ValueError(f"{path}: {count} frames, but {year} has {len(times)}")
        height.actual_range = np.array([lowest, highest], np.float32)


def _write_coordinates(file: netCDF4.Dataset, levels_hpa: Sequence[int], times: np.ndarray) -> None:
    values = {
        "level": np.array(levels_hpa, np.float32),
        "lat": LATITUDE_DEG,
        "lon": LONGITUDE_DEG,
        "time": times,
    }
    for name, value in values.items():
        file.createDimension(name, None if name == "time" else len(value))
    for name, value in values.items():
        chunks = (len(value),) if name == "time" else None
        variable = file.createVariable(name, value.dtype, (name,), fill_value=False, chunksizes=chunks)
        ends = np.array([value[0], value[-1]], value.dtype)
        variable.setncatts({key: ends if item is None else item for key, item in COORDINATES[name].items()})
        variable[:] = value


def _define_height(file: netCDF4.Dataset, levels: int) -> netCDF4.Variable:
    shape = (1, levels, len(LATITUDE_DEG), len(LONGITUDE_DEG))
    height = file.createVariable(
        "hgt",
        np.float32,
        ("time", "level", "lat", "lon"),
        compression="zlib",
        complevel=DEFLATE_LEVEL,
        shuffle=True,
        chunksizes=shape,
        fill_value=False,  # no _FillValue attribute, as in the original; every value is written
    )
    height.set_auto_maskandscale(False)
    placeholder = np.zeros(2, np.float32)
    height.setncatts({key: placeholder if item is None else item for key, item in HEIGHT.items()})
    return height


def _global_attributes(year: int, source: str) -> dict[str, str]:
    return {
        "Conventions": "COARDS",
        "platform": "Model",
        "title": f"4x daily synthetic heights ({year}), not a reanalysis",
        "description": f"Synthetic data in the format of the NCEP/NCAR Reanalysis 1,\nmade by {source}.",
        "history": f"created by {source}",
        "dataset_title": "Synthetic heights in the format of NCEP-NCAR Reanalysis 1",
        "References": "https://doi.org/10.1175/1520-0469(1993)050<1792:TADUOP>2.0.CO;2",
    }
