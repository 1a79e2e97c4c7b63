# SPDX-License-Identifier: Apache-2.0
"""The analysis-ready archive: one year of a source -> one Zarr v3 store; all stores -> one dataset.

Stores hold the data contract's dataset (`contract.py`), bit for bit as the source has it, in chunks of about
122 frames of one level. A store appears under its name only when it is complete.
"""

import hashlib
import json
import warnings
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import xarray as xr
import zarr
from zarr.codecs import BloscCodec

from isohypse import __version__
from isohypse.config.settings import ArchiveSettings
from isohypse.data.contract import check_contract, chunk_frames, every_nth
from isohypse.data.sources import read_year
from isohypse.errors import DataError
from isohypse.progress import Progress
from isohypse.provenance import provenance
from isohypse.storage import atomic_path

GRID = ("level", "latitude", "longitude")
COMPRESSOR = BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle")


def write_archive_year(
    settings: ArchiveSettings, year: int, inputs: Sequence[Path], destination: Path
) -> None:
    """Write the calendar year `year` of `inputs` to the Zarr store `destination`.

    For the source `files` the configured paths are read instead of `inputs`. Raises DataError if the source
    does not obey the data contract; nothing is left then.
    """
    where = str(inputs[0]) if len(inputs) == 1 else f"year {year}"
    dataset = every_nth(read_year(settings, year, inputs), settings.stride, where)
    check_contract(dataset, where)
    frames = chunk_frames(dataset.sizes["latitude"], dataset.sizes["longitude"])
    dataset = dataset.chunk(time=frames).assign_attrs(_provenance(settings, dataset.attrs, inputs))
    with atomic_path(destination) as path:
        try:
            digest = _write(dataset, path, f"archive {year}")
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


def _write(dataset: xr.Dataset, path: Path, label: str) -> str:
    """Write the store; returns the SHA-256 of the SHA-256 of each block, in order."""
    heights = dataset.geopotential_height
    digests: dict[tuple[int, ...], bytes] = {}
    with Progress(heights.data.npartitions, label, "blocks") as progress:

        def hashed(block: np.ndarray, block_id: tuple[int, ...]) -> np.ndarray:
            digests[block_id] = hashlib.sha256(np.ascontiguousarray(block)).digest()
            progress.advance()
            return block

        data = heights.data.map_blocks(hashed, dtype=heights.dtype, meta=heights.data._meta)
        dataset = dataset.assign(geopotential_height=heights.copy(data=data))
        dataset.to_zarr(path, mode="w", zarr_format=3, consolidated=False, encoding=_encoding(dataset))
    return hashlib.sha256(b"".join(digests[i] for i in sorted(digests))).hexdigest()


def _consolidate(path: Path) -> None:
    """Repeat all metadata in the group's, without which a plain `xr.open_mfdataset` warns at each store."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Consolidated metadata is currently not part", UserWarning)
        zarr.consolidate_metadata(path)


def _encoding(dataset: xr.Dataset) -> dict[str, dict]:
    grid = dataset.sizes["latitude"], dataset.sizes["longitude"]
    heights = {
        "chunks": (min(chunk_frames(*grid), dataset.sizes["time"]), 1, *grid),
        "compressors": [COMPRESSOR],
        "fill_value": np.float32("nan"),  # a chunk that got lost reads as NaN, never as 0 m
        "_FillValue": None,
    }
    time = {"units": "hours since 1800-01-01", "calendar": "proleptic_gregorian", "dtype": "int64"}
    coordinates = {name: {"_FillValue": None} for name in ("latitude", "longitude")}
    return {"geopotential_height": heights, "time": time, **coordinates}


def _provenance(settings: ArchiveSettings, source: dict, inputs: Sequence[Path]) -> dict[str, object]:
    levels = ", ".join(map(str, settings.levels_hpa))
    step = f"isohypse {__version__}: {levels} hPa, grid stride {settings.stride}, converted to Zarr"
    known = {
        f"source_{name}": source[name] for name in ("title", "dataset_title", "References") if name in source
    }
    said = {name: source[name] for name in ("thinned_from", "source_files") if name in source}
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
        dataset = xr.open_zarr(store, consolidated=False, chunks={})
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{store}: not a Zarr store of the archive ({error}); delete it and run again"
        ) from None
    dataset["time"] = dataset.time.astype("datetime64[ns]")
    check_contract(dataset, str(store))
    return store, dataset


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
