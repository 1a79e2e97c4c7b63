# SPDX-License-Identifier: Apache-2.0
"""What every source must deliver and every archive holds; the checks that refuse anything else.

A dataset obeys the contract if its variable `geopotential_height` (time, level, latitude, longitude) is
float32 metres without a missing value, on

- time: datetime64[ns], every 6 h at 00, 06, 12, 18 UTC;
- level: int32 hPa, strictly descending pressure;
- latitude: degrees, evenly spaced, north to south;
- longitude: degrees, evenly spaced, increasing; in [0, 360) unless a regional grid crosses Greenwich.

Sources bring their data here by name and by coordinate value, never by position.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import xarray as xr

from isohypse.errors import DataError
from isohypse.forecasting import FRAME

DIMS = ("time", "level", "latitude", "longitude")
SHARD_FRAMES = 122  # a common year is 12 shards of at most 122 frames, a leap year 12 full ones
SHARD_BYTES = 2**23  # of one level; finer grids than 2.5 degrees get fewer frames a shard
CHUNKS_OF_A_SHARD = 2  # along time; a level each
PLAUSIBLE_M = (-2000.0, 90000.0)  # from a deep low at 1000 hPa to the mesopause
ATTRIBUTES = {
    "geopotential_height": {
        "standard_name": "geopotential_height",
        "long_name": "geopotential height",
        "units": "m",
    },
    "time": {"standard_name": "time", "axis": "T"},
    "level": {"standard_name": "air_pressure", "units": "hPa", "axis": "Z", "positive": "down"},
    "latitude": {"standard_name": "latitude", "units": "degrees_north", "axis": "Y"},
    "longitude": {"standard_name": "longitude", "units": "degrees_east", "axis": "X"},
}


def check_contract(dataset: xr.Dataset, where: str) -> None:
    """Check names, types and coordinates; values are checked as they stream (`checked_heights`).

    Raises DataError with one line that opens with `where`.
    """
    if "geopotential_height" not in dataset:
        raise DataError(f"{where}: no variable geopotential_height; write it with `isohypse data archive`")
    heights = dataset.geopotential_height
    if heights.dims != DIMS or heights.dtype != np.float32:
        raise DataError(f"{where}: geopotential_height is {heights.dtype} {heights.dims}, not float32 {DIMS}")
    if 0 in heights.shape:
        raise DataError(f"{where}: is empty, {dict(heights.sizes)}")
    level = dataset.level
    if level.dtype != np.int32 or (np.diff(level.values) >= 0).any():
        raise DataError(f"{where}: levels {level.values.tolist()} are not int32 in descending order")
    _check_even(dataset.latitude.values, "latitude", -1, where)
    _check_even(dataset.longitude.values, "longitude", 1, where)
    _check_on_earth(dataset, where)
    check_six_hourly(dataset.time.values, where)


def _check_on_earth(dataset: xr.Dataset, where: str) -> None:
    latitude, longitude = dataset.latitude.values, dataset.longitude.values
    hint = "are latitude and longitude exchanged (for your own files: files.latitude, files.longitude)?"
    if np.abs(latitude).max() > 90:
        raise DataError(f"{where}: latitude goes to {latitude[np.abs(latitude).argmax()]:g}; {hint}")
    if longitude[-1] - longitude[0] >= 360:
        raise DataError(f"{where}: longitude spans {longitude[-1] - longitude[0]:g} degrees; {hint}")


def check_six_hourly(time: np.ndarray, where: str) -> None:
    """Raise DataError unless `time` (datetime64 [n]) is every 00, 06, 12 and 18 UTC without a gap."""
    steps = np.diff(time)
    wrong = np.flatnonzero(steps != FRAME)
    if len(wrong) and len(steps) > 1 and (steps == steps[0]).all():
        hours = steps[0] / np.timedelta64(1, "h")
        hint = " (a file of daily means can bear the same name)" if hours == 24 else ""
        raise DataError(f"{where}: frames are {hours:g} h apart, not 6 h{hint}")
    if len(wrong):
        before, after = (str(np.datetime64(time[wrong[0] + i], "m")) for i in (0, 1))
        raise DataError(f"{where}: frames must be 6 h apart, but {before} is followed by {after}")
    if len(time) and (time[0] - time[0].astype("datetime64[D]")) % FRAME:
        raise DataError(
            f"{where}: frames must be at 00, 06, 12 and 18 UTC; the first is at {np.datetime64(time[0], 'm')}"
        )


def contracted(
    heights: xr.DataArray,
    levels_hpa: Sequence[int],
    where: str,
    bounds_m: tuple[float, float] = PLAUSIBLE_M,
) -> xr.Dataset:
    """A dataset under the contract from `heights`: metres, the contract's dimension names in any order.

    Selects `levels_hpa` by value, turns the grid north to south and eastward from Greenwich, cuts it into
    chunks and lets every value be checked against `bounds_m` when it is read. Raises DataError.
    """
    heights = _with_levels(heights.transpose(*DIMS), levels_hpa, where)
    if heights.chunks is None:
        heights = heights.chunk(time=frames_read_at_once(heights, "time", "latitude", "longitude"))
    heights = _eastward(heights.sortby("latitude", ascending=False), where)
    coordinates = {
        "time": heights.time.values.astype("datetime64[ns]"),
        "level": heights.level.values,
        "latitude": heights.latitude.values.astype(np.float64),
        "longitude": heights.longitude.values.astype(np.float64),
    }
    data = heights.data.map_blocks(
        _check_block,
        where,
        coordinates["time"],
        bounds_m,
        dtype=np.float32,
        meta=np.empty((0, 0, 0, 0), np.float32),
    )
    variables = {"geopotential_height": (DIMS, data, ATTRIBUTES["geopotential_height"])}
    coords = {name: (name, values, ATTRIBUTES[name]) for name, values in coordinates.items()}
    dataset = xr.Dataset(variables, coords)
    check_contract(dataset, where)
    return dataset


def every_nth(dataset: xr.Dataset, stride: int, where: str) -> xr.Dataset:
    """Every `stride`-th grid point in both directions, both poles kept. Raises DataError if it cannot be."""
    if stride == 1:
        return dataset
    latitude, longitude = dataset.latitude.values, dataset.longitude.values
    if np.abs(latitude[[0, -1]]).min() == 90 and (len(latitude) - 1) % stride:
        raise DataError(f"{where}: grid.stride {stride} misses the south pole of {len(latitude)} latitudes")
    if is_global(longitude) and len(longitude) % stride:
        raise DataError(f"{where}: grid.stride {stride} does not divide the {len(longitude)} longitudes")
    nth = slice(None, None, stride)
    return dataset.isel(latitude=nth, longitude=nth)


def is_global(longitude: np.ndarray) -> bool:
    """True if evenly spaced `longitude` (degrees) goes once round the earth."""
    return bool(np.isclose((longitude[1] - longitude[0]) * len(longitude), 360, rtol=1e-4))


def shard_frames(latitudes: int, longitudes: int) -> int:
    """Frames in one shard of the archive: SHARD_FRAMES, or as many as SHARD_BYTES hold; whole chunks."""
    frames = int(np.clip(SHARD_BYTES // (4 * latitudes * longitudes), CHUNKS_OF_A_SHARD, SHARD_FRAMES))
    return frames - frames % CHUNKS_OF_A_SHARD


def frames_read_at_once(heights: xr.DataArray, time: str, latitude: str, longitude: str) -> int:
    """Frames in one chunk of reading: the archive's shard, or what fits the chunks of the file.

    None of those should be inflated twice. The last three arguments are the names of dimensions.
    """
    frames = shard_frames(heights.sizes[latitude], heights.sizes[longitude])
    stored = heights.encoding.get("preferred_chunks", {}).get(time, 1)
    return stored if stored > frames else frames - frames % stored


def time_blocks(heights: xr.DataArray, shards: int = 4) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield (frames, values) along time, `shards` of the archive at a time: memory stays flat."""
    frames = shards * shard_frames(heights.sizes["latitude"], heights.sizes["longitude"])
    for start in range(0, heights.sizes["time"], frames):
        block = slice(start, min(start + frames, heights.sizes["time"]))
        yield block, heights.isel(time=block).values


def _check_even(values: np.ndarray, name: str, sign: int, where: str) -> None:
    if not _even(values, sign):
        raise DataError(
            f"{where}: {name} {values[0]:g} to {values[-1]:g} ({len(values)} points) is not evenly spaced; "
            "only regular latitude-longitude grids of at least 2 x 2 points can be used"
        )


def _even(values: np.ndarray, sign: int) -> bool:
    """True if `values` are evenly spaced and rise (sign 1) or fall (-1); float32 coordinates are forgiven."""
    if len(values) < 2 or not np.isfinite(values).all():
        return False
    exact, step = np.linspace(values[0], values[-1], len(values), retstep=True)
    return step * sign > 0 and bool(np.abs(values - exact).max() <= 1e-3 * abs(step))


def _with_levels(heights: xr.DataArray, levels_hpa: Sequence[int], where: str) -> xr.DataArray:
    wanted = np.array(sorted(levels_hpa, reverse=True), dtype=np.int32)
    there = np.asarray(heights.level.values, dtype=np.float64)
    missing = [int(level) for level in wanted if not np.isclose(there, level, rtol=1e-5).any()]
    if missing:
        raise DataError(f"{where}: no level {missing} hPa; there are {[float(f'{x:g}') for x in there]}")
    if len(np.unique(there)) < len(there):
        raise DataError(f"{where}: a level occurs twice: {[float(f'{x:g}') for x in there]}")
    index = [int(np.abs(there - level).argmin()) for level in wanted]
    return heights.isel(level=index).assign_coords(level=wanted)


def _eastward(heights: xr.DataArray, where: str) -> xr.DataArray:
    """Longitudes increasing in [0, 360), or as they are if a regional grid crosses Greenwich."""
    longitude = heights.longitude.values.astype(np.float64)
    wrapped = np.mod(longitude, 360.0)
    if len(np.unique(wrapped)) < len(wrapped):
        raise DataError(f"{where}: a longitude occurs twice (a cyclic point?); take it out")
    order = np.argsort(wrapped)
    if _even(wrapped[order], 1):
        return heights.isel(longitude=order).assign_coords(longitude=wrapped[order])
    return heights.sortby("longitude")


def _check_block(
    block: np.ndarray,
    where: str,
    time: np.ndarray,
    bounds_m: tuple[float, float],
    block_info: dict | None = None,
) -> np.ndarray:
    """`block` as float32, if all of it can be heights. Raises DataError naming the first bad frame."""
    low, high = bounds_m
    if block.size == 0 or (block.min() >= low and block.max() <= high):  # NaN fails both
        return block.astype(np.float32, copy=False)
    first = block_info[0]["array-location"][0][0]
    frame = int(np.flatnonzero(~((block >= low) & (block <= high)).all(axis=(1, 2, 3)))[0])
    values, when = block[frame], np.datetime64(time[first + frame], "m")
    missing = ~(np.abs(values) < 1e15)
    if missing.any():
        raise DataError(f"{where}: {missing.sum()} heights are missing at {when}; fetch the file again")
    raise DataError(
        f"{where}: heights from {values.min():g} to {values.max():g} m at {when} are impossible; "
        "check the units"
    )
