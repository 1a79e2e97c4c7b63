# SPDX-License-Identifier: Apache-2.0
"""The user's own netCDF or Zarr files -> one calendar year under the data contract.

Nothing is guessed in silence. The variable and its dimensions are found by the configuration's names, then
by CF attributes, then by habit (`find.py` holds the names); two that fit are an error that names both and
the key that decides. Geopotential becomes height by the standard gravity 9.80665 m s-2. Times finer than 6
h are thinned to 00, 06, 12 and 18 UTC.
"""

from collections.abc import Sequence
from glob import glob
from pathlib import Path

import numpy as np
import xarray as xr

from isohypse.config.sections import Files
from isohypse.data.contract import DIMS, contracted, frames_read_at_once
from isohypse.data.sources.find import find_dimensions, find_variable, metres_per_unit, pressure_hpa
from isohypse.data.sources.opening import open_source
from isohypse.errors import DataError
from isohypse.forecasting import FRAME

SUFFIXES = (".nc", ".nc4", ".nc3", ".cdf", ".netcdf", ".zarr")
CALENDARS = ("standard", "gregorian", "proleptic_gregorian")


def read_files(files: Files, year: int, levels_hpa: Sequence[int]) -> xr.Dataset:
    """The frames of `year` in all of `files.paths`, lazily; values are checked when they are read.

    A year may be covered in part, without a gap (the archive refuses gaps between years). Raises DataError.
    """
    paths = resolve_paths(files)
    parts = {path: _frames_of_year(_heights(path, files), year) for path in paths}
    parts = {path: heights for path, heights in parts.items() if heights.sizes["time"]}
    if not parts:
        raise DataError(f"{_named(paths)}: no frame in {year}; see files.paths and the years under `source`")
    where = _named(list(parts))
    heights, thinned = _thinned(_combined(list(parts.values()), where), where)
    dataset = contracted(heights, levels_hpa, where)
    said = {"source_files": ", ".join(path.name for path in parts)}
    if thinned:
        said["thinned_from"] = thinned
    return dataset.assign_attrs(said)


def resolve_paths(files: Files) -> list[Path]:
    """Every file or Zarr store that `files.paths` names: paths, globs, and folders of such files. Sorted."""
    found: list[Path] = []
    for pattern in files.paths:
        matches = [Path(match) for match in sorted(glob(str(Path(pattern).expanduser()), recursive=True))]
        here = [path for match in matches for path in _expand(match)]
        if not here:
            raise DataError(f"files.paths: {pattern!r} matches no netCDF file and no Zarr store")
        found += here
    return sorted(set(found))


def _expand(path: Path) -> list[Path]:
    if path.is_dir() and not _is_zarr(path):
        return [inside for inside in sorted(path.iterdir()) if inside.suffix.lower() in SUFFIXES]
    return [path]


def _is_zarr(path: Path) -> bool:
    return any((path / name).exists() for name in ("zarr.json", ".zgroup", ".zmetadata"))


def _named(paths: Sequence[Path]) -> str:
    return str(paths[0]) if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"


def _heights(path: Path, files: Files) -> xr.DataArray:
    """Heights in metres (float32), lazily, with the contract's dimension names, in the file's order."""
    source = open_source(path)
    variable = find_variable(source, files, str(path))
    found = find_dimensions(variable, files, str(path))
    factor = metres_per_unit(variable, files, str(path))
    level = pressure_hpa(variable, found["level"], files, str(path))
    frames = frames_read_at_once(variable, found["time"], found["latitude"], found["longitude"])
    variable = variable.chunk({found["time"]: frames})
    dims = [found[role] for role in DIMS if found[role] in variable.dims]
    rename = {found[role]: role for role in DIMS if found[role] in variable.dims}
    variable = variable.isel({dim: 0 for dim in variable.dims if dim not in dims}, drop=True)
    bare = xr.DataArray(variable.variable, {dim: variable[dim].values for dim in dims}).rename(rename)
    bare = bare if "level" in bare.dims else bare.expand_dims("level")
    bare = bare.assign_coords(level=level, time=_instants(bare.time.values, str(path)))
    return _in_metres(bare, factor)


def _instants(time: np.ndarray, where: str) -> np.ndarray:
    """datetime64[ns] of `time`. xarray leaves other calendars, and years that ns cannot hold, to cftime."""
    if np.issubdtype(time.dtype, np.datetime64):
        return time.astype("datetime64[ns]")
    calendar = getattr(time.flat[0], "calendar", None) if time.size else None
    if calendar in CALENDARS:
        raise DataError(f"{where}: time starts in {time[0].year}; only 1678 to 2261 can be used")
    kind = f"calendar {calendar}" if calendar else "numbers, not dates"
    raise DataError(f"{where}: time is in {kind}; only the real (Gregorian) calendar can be used")


def _in_metres(heights: xr.DataArray, factor: float) -> xr.DataArray:
    """float32 metres; fp64 in between only where something is multiplied."""
    if factor == 1.0:
        return heights.astype(np.float32, copy=False)
    return (heights.astype(np.float64) * factor).astype(np.float32)


def _frames_of_year(heights: xr.DataArray, year: int) -> xr.DataArray:
    first, end = (np.datetime64(f"{y:04d}-01-01", "ns") for y in (year, year + 1))
    inside = (heights.time.values >= first) & (heights.time.values < end)
    return heights.isel(time=inside)


def _combined(parts: list[xr.DataArray], where: str) -> xr.DataArray:
    """Files of different times, or of different levels, as one array sorted by time."""
    if len(parts) == 1:
        return parts[0]
    datasets = [part.to_dataset(name="heights") for part in parts]
    try:
        return xr.combine_by_coords(datasets, join="exact", combine_attrs="drop").heights
    except ValueError as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{where}: the files do not fit together ({reason})") from None


def _thinned(heights: xr.DataArray, where: str) -> tuple[xr.DataArray, str]:
    """Frames at 00, 06, 12 and 18 UTC, and what they were taken from ('' if nothing was left out)."""
    time = heights.time.values
    steps = np.diff(time)
    finer = len(steps) > 0 and steps[0] < FRAME
    if not finer:
        return heights, ""
    if (steps != steps[0]).any() or FRAME % steps[0] != np.timedelta64(0):
        raise DataError(f"{where}: times are neither every 6 h nor evenly spaced steps that divide 6 h")
    on_time = (time - time.astype("datetime64[D]")) % FRAME == np.timedelta64(0)
    hours = steps[0] / np.timedelta64(1, "h")
    return heights.isel(time=on_time), f"every {hours:g} h; kept 00, 06, 12 and 18 UTC"
