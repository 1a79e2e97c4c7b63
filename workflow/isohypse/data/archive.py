# SPDX-License-Identifier: Apache-2.0
"""The analysis-ready archive: one year of a source -> one Zarr v3 store; all stores -> one dataset.

Stores hold the data contract's dataset (`contract.py`), bit for bit as the source has it. A chunk is 61
frames of one level: training reads stretches of time, level by level. A shard, which is one file, holds 122
frames of all levels, so that a year is a dozen files. LZ4 with bit shuffle: docs/measurements/conversion.md.
A store appears under its name only when it is complete.
"""

import hashlib
import json
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import xarray as xr
import zarr
from zarr.codecs import BloscCodec

from isohypse import __version__
from isohypse.config.sections import FIRST_ANALYSED_YEAR
from isohypse.config.settings import ArchiveSettings
from isohypse.data.contract import CHUNKS_OF_A_SHARD, check_contract, every_nth, shard_frames
from isohypse.data.moments import circle_moments, write_moments
from isohypse.data.sources import read_year
from isohypse.errors import DataError
from isohypse.progress import Progress
from isohypse.provenance import provenance
from isohypse.storage import atomic_path

GRID = ("level", "latitude", "longitude")
COMPRESSOR = BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle")


def write_archive_year(
    settings: ArchiveSettings, year: int, inputs: Sequence[Path], destination: Path, threads: int = 1
) -> None:
    """Write the calendar year `year` of `inputs` to the Zarr store `destination`.

    For the source `files` the configured paths are read instead of `inputs`. With more than one thread,
    frames are read while those before them are compressed. Raises DataError if the source does not obey the
    data contract; nothing is left then.
    """
    where = str(inputs[0]) if len(inputs) == 1 else f"year {year}"
    with read_year(settings, year, inputs) as source, atomic_path(destination) as path:
        dataset = every_nth(source, settings.stride, where)
        check_contract(dataset, where)
        dataset = dataset.assign_attrs(_provenance(settings, year, dataset.attrs, inputs))
        try:
            digest = _write(dataset, path, f"archive {year}", threads)
        except RuntimeError as error:  # netCDF4's for a block that cannot be inflated
            raise DataError(f"{where}: cannot be read to its end ({error}); fetch it again") from None
        zarr.open_group(path, mode="r+", use_consolidated=False).attrs["data_sha256"] = digest
        _consolidate(path)


def open_archive(stores: Sequence[Path], levels_hpa: Sequence[int] | None = None) -> xr.Dataset:
    """All `stores` as one dataset under the data contract, lazily, at `levels_hpa` (None: all), descending.

    Its attributes are those of the first store; `data_sha256` identifies the data of all of them.
    Raises DataError unless the stores share one grid and their frames follow each other every 6 h.
    """
    if not stores:
        raise DataError("archive: no store given; the year range is empty")
    years = sorted((_open_store(store) for store in stores), key=lambda pair: pair[1].time.values[0])
    first_store = years[0][0]
    for (before, early), (after, late) in pairwise(years):
        _check_follows(before, early, after, late)
    dataset = xr.concat(
        [year for _, year in years],
        dim="time",
        data_vars="minimal",
        coords="minimal",
        compat="override",
        join="override",
        combine_attrs="override",
    )
    check_contract(dataset, f"archive {first_store.parent}")
    digests = "".join(year.attrs.get("data_sha256", "") for _, year in years)
    dataset.attrs["data_sha256"] = hashlib.sha256(digests.encode()).hexdigest()
    return dataset if levels_hpa is None else _select_levels(dataset, levels_hpa, str(first_store))


def _write(dataset: xr.Dataset, path: Path, label: str, threads: int) -> str:
    """Write the store; returns the SHA-256 of the SHA-256 of each shard's frames, in order."""
    heights = dataset.geopotential_height
    encoding = _encoding(dataset)
    dataset.to_zarr(path, mode="w", zarr_format=3, consolidated=False, encoding=encoding, compute=False)
    shards, digests, moments = [], [], []
    with (
        zarr.config.set({"threading.max_workers": threads}),
        Progress(heights.size, label, "values") as progress,
    ):
        # No chunk is empty, and to look for one would cost a pass over the data.
        stored = zarr.open_array(path, path=heights.name, mode="r+", config={"write_empty_chunks": True})
        for frames, block in _read_ahead(heights, encoding[heights.name]["shards"][0], threads):
            digests.append(hashlib.sha256(block).digest())
            stored[frames] = block
            shards.append(frames)
            moments.append(circle_moments(block))
            progress.advance(block.size)
    write_moments(path, heights, shards, moments)
    return hashlib.sha256(b"".join(digests)).hexdigest()


def _read_ahead(heights: xr.DataArray, frames: int, threads: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield `frames` frames at a time and where they stand; the next are read meanwhile if threads allow."""
    end = heights.sizes["time"]
    blocks = [slice(first, min(first + frames, end)) for first in range(0, end, frames)]

    def read(block: slice) -> np.ndarray:
        found = heights.isel(time=block).data
        # dask copies what it computes if it is one block, unless it is asked for that block.
        asked = found.to_delayed().item() if found.npartitions == 1 else found
        return np.ascontiguousarray(asked.compute(scheduler="synchronous"))

    if threads == 1:
        yield from ((block, read(block)) for block in blocks)
        return
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="reader") as reader:
        ahead = reader.submit(read, blocks[0])
        for block, following in zip(blocks, [*blocks[1:], None]):
            values = ahead.result()
            if following is not None:
                ahead = reader.submit(read, following)
            yield block, values


def _consolidate(path: Path) -> None:
    """Repeat all metadata in the group's, without which a plain `xr.open_mfdataset` warns at each store."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Consolidated metadata is currently not part", UserWarning)
        zarr.consolidate_metadata(path)


def _encoding(dataset: xr.Dataset) -> dict[str, dict]:
    levels, *grid = (dataset.sizes[name] for name in GRID)
    chunk = min(shard_frames(*grid), dataset.sizes["time"] + 1) // CHUNKS_OF_A_SHARD
    heights = {
        "chunks": (chunk, 1, *grid),
        "shards": (chunk * CHUNKS_OF_A_SHARD, levels, *grid),
        "compressors": [COMPRESSOR],
        "fill_value": np.float32("nan"),  # a chunk that got lost reads as NaN, never as 0 m
        "_FillValue": None,
    }
    time = {"units": "hours since 1800-01-01", "calendar": "proleptic_gregorian", "dtype": "int64"}
    coordinates = {name: {"_FillValue": None} for name in ("latitude", "longitude")}
    return {"geopotential_height": heights, "time": time, **coordinates}


def _provenance(
    settings: ArchiveSettings, year: int, source: dict, inputs: Sequence[Path]
) -> dict[str, object]:
    levels = ", ".join(map(str, settings.levels_hpa))
    step = f"isohypse {__version__}: {levels} hPa, grid stride {settings.stride}, converted to Zarr"
    known = {
        f"source_{name}": source[name] for name in ("title", "dataset_title", "References") if name in source
    }
    said = {name: source[name] for name in ("thinned_from", "source_files") if name in source}
    if settings.kind == "ncep-r1" and year < FIRST_ANALYSED_YEAR:
        said["comment"] = "short forecasts: the analyses of 1948-57 were at 03/09/15/21 UTC"
    return {
        "Conventions": "CF-1.11",
        "title": "geopotential height, six-hourly",
        "history": "\n".join(filter(None, [str(source.get("history", "")), step])),
        "source_kind": settings.kind,
        "source_files": ", ".join(Path(path).name for path in inputs),
        "synthetic": int(settings.kind == "quasigeostrophic"),
        "isohypse_version": __version__,
        "settings_digest": settings.digest,
        "provenance": json.dumps(provenance(settings.digest), sort_keys=True),
        **known,
        **said,
    }


def _open_store(store: Path) -> tuple[Path, xr.Dataset]:
    store = Path(store)
    try:
        dataset = xr.open_zarr(store, consolidated=False, chunks=None)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{store}: not a Zarr store of the archive ({error}); delete it and run again"
        ) from None
    dataset["time"] = dataset.time.astype("datetime64[ns]")
    check_contract(dataset, str(store))
    # A level of a shard at a time: its chunks lie side by side.
    stored = dataset.geopotential_height.encoding
    return store, dataset.chunk(time=(stored.get("shards") or stored["chunks"])[0], level=1)


def _check_follows(before: Path, early: xr.Dataset, after: Path, late: xr.Dataset) -> None:
    """Raise DataError unless `late` continues `early` on the same grid, six hours later."""
    for name in GRID:
        if not np.array_equal(early[name].values, late[name].values):
            raise DataError(
                f"{after}: {name} differs from {before}; archive both with the same configuration"
            )
    last, first = early.time.values[-1], late.time.values[0]
    if first - last != np.timedelta64(6, "h"):
        ends, starts = np.datetime64(last, "m"), np.datetime64(first, "m")
        raise DataError(
            f"{after}: starts at {starts}, but {before} ends at {ends}; frames must follow every 6 h"
        )


def _select_levels(dataset: xr.Dataset, levels_hpa: Sequence[int], where: str) -> xr.Dataset:
    missing = [level for level in levels_hpa if level not in dataset.level.values]
    if missing:
        have = dataset.level.values.tolist()
        raise DataError(f"{where}: no level {missing} hPa in the archive, which has {have}")
    return dataset.sel(level=sorted(levels_hpa, reverse=True))
