# SPDX-License-Identifier: Apache-2.0
"""Mean, spread and extremes of each level: Zarr stores in, one JSON out.

`mean` and `std` count every grid point once, as the paper's Table 1 does; `area_mean` and `area_std` weigh
by cell area. One pass in fp64: each block of frames gives count, mean and sum of squared deviations (M2) of
every latitude circle, and pairs are merged by Chan, Golub & LeVeque (1983,
doi:10.1080/00031305.1983.10483115), which stays exact where the sum of squares of a billion heights would
not. Memory does not grow with years.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from isohypse.config.settings import StatisticsSettings
from isohypse.data.archive import open_archive
from isohypse.data.area import area_weights
from isohypse.data.windows import training_frames
from isohypse.errors import DataError
from isohypse.progress import Progress
from isohypse.provenance import provenance
from isohypse.storage import read_json, write_json

MEAN, M2, MINIMUM, MAXIMUM = range(4)  # what `_circle_moments` puts where
CACHED_FRAMES = 8  # whose differences stay in the processor's cache between two uses
BLOCKS_AT_ONCE = 12  # a year of an archive at 2.5 degrees


@dataclass(frozen=True)
class Statistics:
    """Statistics in metres; each tuple has one entry a level, in the order of `levels_hpa` (descending).

    std is the population's (divided by the count). period: first and last valid time, ISO 8601.
    """

    levels_hpa: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    minimum: tuple[float, ...]
    maximum: tuple[float, ...]
    area_mean: tuple[float, ...]
    area_std: tuple[float, ...]
    period: tuple[str, str]
    frames: int
    protocol: str

    def to_json_dict(self) -> dict[str, Any]:
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()
        }

    @classmethod
    def read(cls, path: Path | str) -> "Statistics":
        """Read what `compute_statistics` wrote. Raises DataError for anything else."""
        try:
            values = read_json(path)["statistics"]
            return cls(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}: not a statistics file ({error}); delete it and run again") from None


def compute_statistics(settings: StatisticsSettings, stores: Sequence[Path], destination: Path) -> None:
    """Write the statistics of the frames that the protocol may see to `destination` (JSON)."""
    archive = open_archive(stores, settings.levels_hpa)
    frames = training_frames(archive.time.values, settings.split, settings.protocol)
    found = statistics_of(archive.geopotential_height.isel(time=frames), settings.protocol)
    record = provenance(settings.digest) | {"data_sha256": archive.attrs["data_sha256"]}
    write_json(destination, {"statistics": found.to_json_dict(), "provenance": record})


def statistics_of(heights: xr.DataArray, protocol: str) -> Statistics:
    """Statistics of `heights` (time, level, latitude, longitude), dask or numpy.

    Raises DataError if a value is missing or infinite.
    """
    count, moments = _merge_blocks(heights)  # [4, level, latitude]
    if not np.isfinite(moments).all():
        raise DataError("archive: heights are missing or infinite; delete its stores and run again")
    even = np.ones(heights.sizes["latitude"])
    mean, std = _over_latitude(moments, count, even)
    area_mean, area_std = _over_latitude(moments, count, area_weights(heights.latitude.values))
    first, last = (str(np.datetime64(heights.time.values[i], "s")) for i in (0, -1))
    return Statistics(
        levels_hpa=tuple(int(level) for level in heights.level.values),
        mean=mean,
        std=std,
        minimum=tuple(moments[MINIMUM].min(axis=-1).tolist()),
        maximum=tuple(moments[MAXIMUM].max(axis=-1).tolist()),
        area_mean=area_mean,
        area_std=area_std,
        period=(first, last),
        frames=heights.sizes["time"],
        protocol=protocol,
    )


def _merge_blocks(heights: xr.DataArray) -> tuple[int, np.ndarray]:
    """Values on a latitude circle over all times, and their moments, float64 [4, level, latitude]."""
    data = da.asarray(heights.transpose("time", "level", "latitude", "longitude").data)
    data = data.rechunk({2: -1, 3: -1})
    moments = data.map_blocks(
        _circle_moments,
        chunks=((1,) * data.numblocks[0], data.chunks[1], data.chunks[2], (4,)),
        dtype=np.float64,
        meta=np.empty((0, 0, 0, 0)),
    )
    total, merged = 0, None
    with Progress(data.numblocks[0], "statistics", "blocks") as progress:
        for first in range(0, data.numblocks[0], BLOCKS_AT_ONCE):
            group = slice(first, first + BLOCKS_AT_ONCE)
            for frames, block in zip(data.chunks[0][group], moments.blocks[group].compute()):
                count, block = frames * data.shape[3], np.moveaxis(block, -1, 0)
                merged = block if merged is None else _merge(total, merged, count, block)
                total += count
                progress.advance()
    return total, merged


def _circle_moments(block: np.ndarray) -> np.ndarray:
    """float64 [1, level, latitude, 4] of `block` [time, level, latitude, longitude].

    Sums are of the differences from the circle's mean in the first frame, which is near the block's.
    """
    pivot = block[:1].mean(axis=(0, 3), dtype=np.float64)
    first, second = np.zeros(block.shape[1:]), np.zeros(block.shape[1:])
    for start in range(0, len(block), CACHED_FRAMES):
        values = block[start : start + CACHED_FRAMES] - pivot[:, :, None]
        first += values.sum(axis=0)
        second += np.einsum("tzyx,tzyx->zyx", values, values)
    count = block.shape[0] * block.shape[3]
    shift = first.sum(axis=-1) / count
    m2 = second.sum(axis=-1) - count * shift**2
    extremes = block.min(axis=0).min(axis=-1), block.max(axis=0).max(axis=-1)
    return np.stack([pivot + shift, np.maximum(m2, 0.0), *extremes], axis=-1)[None]


def _merge(n_a: int, a: np.ndarray, n_b: int, b: np.ndarray) -> np.ndarray:
    """Moments of two samples together (the pairwise update of Chan et al.)."""
    n = n_a + n_b
    difference = b[MEAN] - a[MEAN]
    mean = a[MEAN] + difference * (n_b / n)
    m2 = a[M2] + b[M2] + difference**2 * (n_a * (n_b / n))
    return np.stack([mean, m2, np.minimum(a[MINIMUM], b[MINIMUM]), np.maximum(a[MAXIMUM], b[MAXIMUM])])


def _over_latitude(moments: np.ndarray, count: int, weights: np.ndarray) -> tuple[tuple, tuple]:
    """Mean and std of each level: the variance within circles plus that between them."""
    weights = weights / weights.sum()
    mean = moments[MEAN] @ weights
    between = (moments[MEAN] - mean[:, None]) ** 2
    variance = (moments[M2] / count + between) @ weights
    return tuple(mean.tolist()), tuple(np.sqrt(variance).tolist())
