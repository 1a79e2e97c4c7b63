# SPDX-License-Identifier: Apache-2.0
"""The record beside a yearly file: `hgt.YYYY.nc` in, `hgt.YYYY.nc.json` out, and the check against it.

Inside netCDF-4 each deflated block carries a checksum, but what lies around the blocks does not, and netCDF-3
has none at all. What was verified when a file came is therefore remembered by its SHA-256, and a file that
has changed since is refused before anything is read from it.
"""

from pathlib import Path
from typing import Any

from isohypse.errors import DataError
from isohypse.storage import read_json, sha256, write_json


def record_path(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def write_record(destination: Path, content: Path, origin: dict[str, Any]) -> None:
    """Note beside `destination` its `origin`, and size and SHA-256 of `content`, soon to be moved there."""
    write_json(
        record_path(destination), origin | {"bytes": content.stat().st_size, "sha256": sha256(content)}
    )


def check_record(path: Path, record: Path | None = None) -> None:
    """Raise DataError if `path` differs from its record; without a record nothing can be said."""
    record = record_path(path) if record is None else record
    try:
        noted = read_json(record)
        expected = noted["bytes"], noted["sha256"]
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{record}: not a record of {path.name} ({error}); delete both and run again"
        ) from None
    if not path.exists():
        raise DataError(f"{path}: no such file")
    size = path.stat().st_size
    if size != expected[0]:
        raise DataError(
            f"{path}: {size} bytes, but {expected[0]} were recorded; delete it and fetch it again"
        )
    if sha256(path) != expected[1]:
        raise DataError(f"{path}: has changed since its SHA-256 was recorded; delete it and fetch it again")
