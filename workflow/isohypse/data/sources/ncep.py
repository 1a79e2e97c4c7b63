# SPDX-License-Identifier: Apache-2.0
"""One `hgt.YYYY.nc` of the NCEP/NCAR Reanalysis 1 (Kalnay et al. 1996) -> a dataset under the data contract.

Both generations are read: float32 netCDF-4 with `missing_value` and no `_FillValue` (since 2014), and
netCDF-3 packed into int16 with times in "hours since 1-1-1" of the mixed calendar (before). A file is
refused unless it holds exactly the six-hourly frames of its calendar year on the 73 x 144 grid. Only 2026
may be short: the reanalysis ended in March of it, after at most 304 frames.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from isohypse.config.sections import NCEP_LEVELS_HPA
from isohypse.data.contract import check_six_hourly, contracted, time_blocks
from isohypse.data.sources.opening import open_source
from isohypse.errors import DataError
from isohypse.forecasting import FRAME

VARIABLE = "hgt"
NAMES = {"lat": "latitude", "lon": "longitude"}
LATITUDE = np.linspace(90, -90, 73)
LONGITUDE = np.arange(144) * 2.5
LAST_YEAR, LAST_YEAR_FRAMES = 2026, 304
PRESSURE_UNITS = {"millibar": 1.0, "millibars": 1.0, "mb": 1.0, "mbar": 1.0, "hpa": 1.0, "pa": 0.01}


def read_ncep_year(path: Path | str, levels_hpa: Sequence[int], year: int | None = None) -> xr.Dataset:
    """The year in `path` at `levels_hpa`, lazily; values are checked when they are read.

    year: the calendar year that the file must hold, or None for that of its first frame.
    Raises DataError naming `path`.
    """
    return _under_contract(_open(path), levels_hpa, year, str(path))


def verify_ncep_file(path: Path | str, year: int) -> None:
    """Read all of `path`. Raises DataError unless it is a complete year with all 17 levels and no hole."""
    with _open(path) as source:
        heights = _under_contract(source, NCEP_LEVELS_HPA, year, str(path)).geopotential_height
        try:
            for _ in time_blocks(heights, chunks=1):
                pass
        except RuntimeError as error:  # netCDF4's for a block that cannot be inflated
            raise DataError(f"{path}: cannot be read to its end ({error}); fetch it again") from None


def _open(path: Path | str) -> xr.Dataset:
    raw = open_source(path, mask_and_scale=False, decode_coords=False)
    if VARIABLE in raw and not _plain(raw[VARIABLE]):
        raw.close()
        raw = open_source(path, decode_coords=False)
    return raw


def _plain(heights: xr.DataArray) -> bool:
    """True if stored values are metres: missing ones are -9.97e36 then, which the contract's check refuses.

    Leaving them unmasked saves a pass over the data.
    """
    return heights.dtype == np.float32 and not {"scale_factor", "add_offset"} & set(heights.attrs)


def _under_contract(
    source: xr.Dataset, levels_hpa: Sequence[int], year: int | None, where: str
) -> xr.Dataset:
    if VARIABLE not in source:
        raise DataError(f"{where}: no variable {VARIABLE}; there are {', '.join(map(str, source.data_vars))}")
    heights = source[VARIABLE]
    if set(heights.dims) != {"time", "level", *NAMES} or any(
        dim not in source.coords for dim in heights.dims
    ):
        raise DataError(
            f"{where}: {VARIABLE} has dimensions {heights.dims}, not (time, level, lat, lon) with coordinates"
        )
    check_year(source.time.values, year, where)
    heights = heights.assign_coords(level=_pressure_hpa(source.level, where)).rename(NAMES)
    dataset = contracted(heights, levels_hpa, where)
    _check_grid(dataset, where)
    return dataset.assign_attrs({name: str(value) for name, value in source.attrs.items()})


def check_year(time: np.ndarray, year: int | None, where: str) -> None:
    """Raise DataError unless `time` (datetime64 [n]) is every 6 h of the calendar year `year`."""
    if not np.issubdtype(time.dtype, np.datetime64) or len(time) == 0:
        raise DataError(f"{where}: has no time steps that can be read as dates")
    check_six_hourly(time, where)
    if year is None:
        year = int(str(np.datetime64(time[0], "Y")))
    first, end = (np.datetime64(f"{y:04d}-01-01", "ns") for y in (year, year + 1))
    if time[0] != first:
        raise DataError(
            f"{where}: starts at {np.datetime64(time[0], 'm')}, expected {np.datetime64(first, 'm')}"
        )
    expected = int((end - first) / FRAME)
    short_last_year = year == LAST_YEAR and len(time) <= LAST_YEAR_FRAMES
    if len(time) != expected and not short_last_year:
        raise DataError(f"{where}: {len(time)} time steps, expected {expected} for {year}; fetch it again")


def _pressure_hpa(level: xr.DataArray, where: str) -> np.ndarray:
    units = str(level.attrs.get("units", "millibar"))
    if units.lower() not in PRESSURE_UNITS:
        raise DataError(f"{where}: level is in {units!r}, expected millibar")
    return level.values.astype(np.float64) * PRESSURE_UNITS[units.lower()]


def _check_grid(dataset: xr.Dataset, where: str) -> None:
    for name, expected in (("latitude", LATITUDE), ("longitude", LONGITUDE)):
        found = dataset[name].values
        if not np.array_equal(found, expected):
            raise DataError(
                f"{where}: {name} is {found[0]:g} to {found[-1]:g} ({len(found)} points), expected "
                f"{expected[0]:g} to {expected[-1]:g} ({len(expected)}); the source `files` takes other grids"
            )
