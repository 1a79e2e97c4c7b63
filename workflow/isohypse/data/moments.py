# SPDX-License-Identifier: Apache-2.0
"""Moments of the latitude circles of a block of frames: what statistics of any period are merged from.

Each block of frames gives mean, sum of squared deviations (M2), minimum and maximum of every latitude circle
of every level, in fp64, and pairs are merged by Chan, Golub & LeVeque (1983,
doi:10.1080/00031305.1983.10483115), which stays exact where the sum of squares of a billion heights would
not. The archive keeps those of its shards, made in the pass that writes them, in a group of its own beside
the heights (0.3 MB a year), so that statistics need not read what they cover.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr
import zarr

MEAN, M2, MINIMUM, MAXIMUM = range(4)  # the order along `moment`
CACHED_FRAMES = 8  # whose differences stay in the processor's cache between two uses
GROUP, NAME = "moments", "circle_moments"

Known = dict[tuple[np.datetime64, int], np.ndarray]
"""(first valid time, frames) of a block -> its moments, float64 [level, latitude, 4]."""


def circle_moments(block: np.ndarray) -> np.ndarray:
    """float64 [level, latitude, 4] of `block` [time, level, latitude, longitude]."""
    return np.stack([_of_level(block[:, level]) for level in range(block.shape[1])])


def _of_level(block: np.ndarray) -> np.ndarray:
    """float64 [latitude, 4] of `block` [time, latitude, longitude].

    Sums are of the differences from the circle's mean in the first frame, which is near the block's.
    """
    pivot = block[0].mean(axis=-1, dtype=np.float64)
    first, second = np.zeros(block.shape[1:]), np.zeros(block.shape[1:])
    for start in range(0, len(block), CACHED_FRAMES):
        values = block[start : start + CACHED_FRAMES] - pivot[:, None]
        first += values.sum(axis=0)
        second += np.einsum("tyx,tyx->yx", values, values)
    count = block.shape[0] * block.shape[2]
    shift = first.sum(axis=-1) / count
    m2 = second.sum(axis=-1) - count * shift**2
    extremes = block.min(axis=0).min(axis=-1), block.max(axis=0).max(axis=-1)
    return np.stack([pivot + shift, np.maximum(m2, 0.0), *extremes], axis=-1)


def merge(n_a: int, a: np.ndarray, n_b: int, b: np.ndarray) -> np.ndarray:
    """Moments [..., 4] of two samples together (the pairwise update of Chan et al.)."""
    n = n_a + n_b
    difference = b[..., MEAN] - a[..., MEAN]
    mean = a[..., MEAN] + difference * (n_b / n)
    m2 = a[..., M2] + b[..., M2] + difference**2 * (n_a * (n_b / n))
    lowest = np.minimum(a[..., MINIMUM], b[..., MINIMUM])
    return np.stack([mean, m2, lowest, np.maximum(a[..., MAXIMUM], b[..., MAXIMUM])], axis=-1)


def write_moments(
    store: Path, heights: xr.DataArray, shards: Sequence[slice], found: list[np.ndarray]
) -> None:
    """Keep the moments `found` of the shards of `heights` in the archive's `store`."""
    values = np.stack(found)
    times = heights.time.values.astype("datetime64[s]").astype(str)
    about = {
        "first_time": [str(times[shard.start]) for shard in shards],
        "frames": [shard.stop - shard.start for shard in shards],
        "level": heights.level.values.tolist(),
        "moment": ["mean", "sum of squared deviations", "minimum", "maximum"],
    }
    group = zarr.open_group(store, path=GROUP, mode="w", zarr_format=3)
    array = group.create_array(
        NAME, shape=values.shape, dtype=values.dtype, chunks=values.shape, attributes=about
    )
    array[:] = values


def known_moments(stores: Sequence[Path], variable: str, levels_hpa: np.ndarray) -> Known:
    """The moments that `stores` keep, at `levels_hpa`, but for shards of `variable` that got lost."""
    known: Known = {}
    for store in stores:
        if not (store / GROUP).is_dir():
            continue  # an older one
        array = zarr.open_group(store, path=GROUP, mode="r")[NAME]
        first, frames, levels = (array.attrs[name] for name in ("first_time", "frames", "level"))
        values = array[:][:, [levels.index(level) for level in levels_hpa]]
        for shard, key in enumerate(zip(np.array(first, "datetime64[ns]"), frames)):
            if (store / variable / "c" / str(shard) / "0" / "0" / "0").is_file():
                known[key] = values[shard]
    return known
