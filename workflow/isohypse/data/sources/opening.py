# SPDX-License-Identifier: Apache-2.0
"""Opening a netCDF file or Zarr store lazily, with every way in which that can fail told in one line."""

import warnings
from pathlib import Path
from typing import Any

import xarray as xr
from scipy.io import netcdf_file

from isohypse.errors import DataError

CLASSIC = (b"CDF\x01", b"CDF\x02")


def open_source(path: Path | str, **options: Any) -> xr.Dataset:
    """The dataset in `path`; nothing but coordinates is read. Raises DataError naming `path`."""
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: no such file")
    engine = "zarr" if path.is_dir() else "netcdf4"
    try:
        if path.is_file():
            _check_length(path)
        with warnings.catch_warnings():
            # Old NCEP files count from "1-1-1", which xarray reads rightly and wonders about.
            warnings.filterwarnings("ignore", "Ambiguous reference date", xr.SerializationWarning)
            warnings.filterwarnings("ignore", "Unable to decode time axis", xr.SerializationWarning)
            warnings.filterwarnings("ignore", "Failed to open Zarr store with consolidated", RuntimeWarning)
            return xr.open_dataset(path, engine=engine, cache=False, **options)
    except (OSError, ValueError, OverflowError, RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"{path}: cannot be opened, perhaps truncated or no netCDF ({reason}); fetch it again"
        ) from None


def _check_length(path: Path) -> None:
    """Raise if a netCDF-3 file lacks its end: the netCDF library would read zeros there."""
    with path.open("rb") as file:
        classic = file.read(4) in CLASSIC
    if classic:
        try:
            # Mapping needs every byte that the header promises, and reads none of them.
            netcdf_file(path, mmap=True).close()
        except (TypeError, ValueError):
            raise ValueError("shorter than its header says") from None
