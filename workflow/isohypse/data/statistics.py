# SPDX-License-Identifier: Apache-2.0
"""Mean, spread and extremes of each level: Zarr stores in, one JSON out.

`mean` and `std` count every grid point once, as the paper's Table 1 does; `area_mean` and `area_std` weigh
by cell area. They are merged from the moments of blocks of frames (`moments.py`): those that the archive
keeps of its shards, and, where the period begins or ends within one or a store keeps none, those of the
heights themselves, read in one pass. A year more takes half a megabyte of memory.
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
from isohypse.data.moments import M2, MAXIMUM, MEAN, MINIMUM, Known, circle_moments, known_moments, merge
from isohypse.data.windows import training_frames
from isohypse.errors import DataError
from isohypse.progress import Progress
from isohypse.provenance import provenance
from isohypse.storage import read_json, write_json

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
    heights = archive.geopotential_height.isel(time=frames)
    known = known_moments([Path(store) for store in stores], heights.name, heights.level.values)
    found = statistics_of(heights, settings.protocol, known)
    record = provenance(settings.digest) | {"data_sha256": archive.attrs["data_sha256"]}
    write_json(destination, {"statistics": found.to_json_dict(), "provenance": record})


def statistics_of(heights: xr.DataArray, protocol: str, known: Known | None = None) -> Statistics:
    """Statistics of `heights` (time, level, latitude, longitude), dask or numpy.

    known: moments of blocks that need not be read. Raises DataError if a value is missing or infinite.
    """
    count, moments = _merge_blocks(heights, known or {})  # [4, level, latitude]
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


def _merge_blocks(heights: xr.DataArray, known: Known) -> tuple[int, np.ndarray]:
    """Values on a latitude circle over all times, and their moments, float64 [4, level, latitude]."""
    data = da.asarray(heights.transpose("time", "level", "latitude", "longitude").data)
    data = data.rechunk({2: -1, 3: -1})
    moments = data.map_blocks(
        lambda block: circle_moments(block)[None],
        chunks=((1,) * data.numblocks[0], data.chunks[1], data.chunks[2], (4,)),
        dtype=np.float64,
        meta=np.empty((0, 0, 0, 0)),
    )
    blocks = list(zip(heights.time.values[np.cumsum((0, *data.chunks[0][:-1]))], data.chunks[0]))
    total, merged = 0, None
    with Progress(len(blocks), "statistics", "blocks") as progress:
        for first in range(0, len(blocks), BLOCKS_AT_ONCE):
            group = range(first, min(first + BLOCKS_AT_ONCE, len(blocks)))
            unknown = [number for number in group if blocks[number] not in known]
            read = dict(zip(unknown, da.compute(*(moments.blocks[number][0] for number in unknown))))
            for number in group:
                found = read[number] if number in read else known[blocks[number]]
                count = blocks[number][1] * data.shape[3]
                merged = found if merged is None else merge(total, merged, count, found)
                total += count
                progress.advance()
    return total, np.moveaxis(merged, -1, 0).copy()


def _over_latitude(moments: np.ndarray, count: int, weights: np.ndarray) -> tuple[tuple, tuple]:
    """Mean and std of each level: the variance within circles plus that between them."""
    weights = weights / weights.sum()
    mean = moments[MEAN] @ weights
    between = (moments[MEAN] - mean[:, None]) ** 2
    variance = (moments[M2] / count + between) @ weights
    return tuple(mean.tolist()), tuple(np.sqrt(variance).tolist())
