# SPDX-License-Identifier: Apache-2.0
"""Where heights come from: NOAA's files (`ncep`, fetched by `download`) and the user's own (`files`).

The embedded quasi-geostrophic model writes NOAA's format, so `ncep` reads it too.
"""

from collections.abc import Sequence
from pathlib import Path

import xarray as xr

from isohypse.config.settings import ArchiveSettings
from isohypse.data.sources.files import read_files
from isohypse.data.sources.ncep import read_ncep_year
from isohypse.data.sources.record import check_record
from isohypse.errors import DataError


def read_year(settings: ArchiveSettings, year: int, inputs: Sequence[Path]) -> xr.Dataset:
    """One calendar year under the data contract, not yet read into memory. Raises DataError."""
    if settings.kind == "files":
        return read_files(settings.files, year, settings.levels_hpa)
    if len(inputs) != 1:
        raise DataError(f"year {year}: expected one file, got {[str(path) for path in inputs]}")
    check_record(inputs[0])
    return read_ncep_year(inputs[0], settings.levels_hpa, year)
