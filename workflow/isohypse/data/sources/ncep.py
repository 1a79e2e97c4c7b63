# SPDX-License-Identifier: Apache-2.0
"""One `hgt.YYYY.nc` of the NCEP/NCAR Reanalysis 1 (Kalnay et al. 1996) -> a dataset under the data contract.

Both generations are read: float32 netCDF-4 with `missing_value` and no `_FillValue` (since 2014), and
netCDF-3 packed into int16 with times in "hours since 1-1-1" of the mixed calendar (before). A file is
refused unless it holds exactly the six-hourly frames of its calendar year on the 73 x 144 grid, in metres,
and each frame's mean height is that of its level, not of a neighbour. Only 2026 may be short: the reanalysis
ended in March of it, after at most 304 frames.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from isohypse.config.sections import NCEP_LEVELS_HPA
from isohypse.data.contract import check_six_hourly, contracted, time_blocks
from isohypse.data.levels import mean_bounds_m
from isohypse.data.sources.opening import open_source
from isohypse.errors import DataError
from isohypse.forecasting import FRAME

VARIABLE = "hgt"
NAMES = {"lat": "latitude", "lon": "longitude"}
LATITUDE = np.linspace(90, -90, 73)
LONGITUDE = np.arange(144) * 2.5
LAST_YEAR, LAST_YEAR_FRAMES = 2026, 304
VALID_M = (-700.0, 35000.0)  # the files' own valid_range
PACKING = {"scale_factor": 1, "add_offset": 32066}
METRES = ("m", "meter", "meters", "metre", "metres", "gpm")
PRESSURE_UNITS = {"millibar": 1.0, "millibars": 1.0, "mb": 1.0, "mbar": 1.0, "hpa": 1.0, "pa": 0.01}


def read_ncep_year(path: Path | str, levels_hpa: Sequence[int], year: int | None = None) -> xr.Dataset:
    """The year in `path` at `levels_hpa`, lazily; values are checked when they are read.

    year: the calendar year that the file must hold, or None for that of its first frame. Closing the dataset
    closes the file. Raises DataError naming `path`.
    """
    source = _open(path)
    try:
        dataset = _under_contract(source, levels_hpa, year, str(path))
    except DataError:
        source.close()
        raise
    dataset.set_close(source.close)
    return dataset


def verify_ncep_file(path: Path | str, year: int) -> None:
    """Read all of `path`. Raises DataError unless it is a complete year with all 17 levels and no hole."""
    with _open(path) as source:
        heights = _under_contract(source, NCEP_LEVELS_HPA, year, str(path)).geopotential_height
        try:
            for _ in time_blocks(heights, shards=1):
                pass
        except RuntimeError as error:  # netCDF4's for a block that cannot be inflated
            raise DataError(f"{path}: cannot be read to its end ({error}); fetch it again") from None


def _open(path: Path | str) -> xr.Dataset:
    raw = open_source(path, mask_and_scale=False, decode_coords=False)
    if VARIABLE not in raw:
        return raw
    try:
        plain = _plain(raw[VARIABLE], str(path))
    except DataError:
        raw.close()
        raise
    if plain:
        return raw
    raw.close()
    return open_source(path, decode_coords=False)


def _plain(heights: xr.DataArray, where: str) -> bool:
    """True if stored values are metres: missing ones are -9.97e36 then, which the contract's check refuses.

    Leaving them unmasked saves a pass over the data. Raises DataError for anything but the two generations.
    """
    packing = {name: heights.attrs[name] for name in PACKING if name in heights.attrs}
    if heights.dtype == np.float32 and not packing:
        return True
    if heights.dtype != np.int16 or packing != PACKING:
        raise DataError(
            f"{where}: {VARIABLE} is {heights.dtype} with {packing or 'no packing'}, not float32 or int16 "
            f"with {PACKING}; fetch it again"
        )
    return False


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
    units = str(heights.attrs.get("units", "m"))
    if units.lower() not in METRES:
        raise DataError(f"{where}: {VARIABLE} is in {units!r}, expected m; the source `files` converts units")
    check_year(source.time.values, year, where)
    heights = heights.assign_coords(level=_pressure_hpa(source.level, where)).rename(NAMES)
    dataset = contracted(heights, levels_hpa, where, VALID_M)
    _check_grid(dataset, where)
    found = dataset.geopotential_height
    checked = found.data.map_blocks(
        _check_levels, where, found.time.values, found.level.values, dtype=np.float32, meta=found.data._meta
    )
    dataset = dataset.assign(geopotential_height=found.copy(data=checked))
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


def _check_levels(
    block: np.ndarray, where: str, time: np.ndarray, level: np.ndarray, block_info: dict | None = None
) -> np.ndarray:
    """`block` as it is, if its frames are about as high as their levels. Raises DataError naming the first.

    Seen are a few hundred points of each frame: enough to tell a level from its neighbours, or a block that
    the file has lost (zeros) from heights.
    """
    if block.size == 0:
        return block
    (first, _), (level_first, level_stop) = block_info[0]["array-location"][:2]
    low, high = mean_bounds_m(level[level_first:level_stop])
    means = block[:, :, ::8, ::8].mean(axis=(2, 3), dtype=np.float64)
    flat = np.ptp(block[:, :, ::8, ::8], axis=(2, 3)) == 0
    wrong = np.argwhere((means < low) | (means > high) | flat)
    if len(wrong):
        frame, place = wrong[0]
        when = np.datetime64(time[first + frame], "m")
        raise DataError(
            f"{where}: {level[level_first + place]} hPa lies at {means[frame, place]:.0f} m at {when}, not "
            f"between {low[place]:.0f} and {high[place]:.0f} m; levels mixed up or frames lost; fetch again"
        )
    return block
