# SPDX-License-Identifier: Apache-2.0
"""All measurements of a study in one table.

Files in: the JSON files of `measure`. File out: costs.csv, one row a model and length. Speed and latency
have three columns each: the median under their own name, the extremes with `_min` and `_max`. A measurement
that did not fit into memory has `fits` False and empty cells.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from isohypse.errors import DataError
from isohypse.storage import atomic_path, read_json

SPREAD = ("frames_per_second", "latency_ms")
PLAIN = (
    "model",
    "label",
    "flavour",
    "length",
    "batch_size",
    "parameters",
    "precision",
    "device",
    "threads",
    "fits",
)


def tabulate_costs(measurements: Sequence[Path], destination_csv: Path) -> None:
    """Write costs.csv, sorted by model and length. Raises DataError for a file that is no measurement."""
    rows = [_row(Path(path)) for path in measurements]
    table = pd.DataFrame(rows).sort_values(["model", "length"], ignore_index=True)
    with atomic_path(destination_csv) as path:
        table.to_csv(path, index=False)


def _row(path: Path) -> dict[str, Any]:
    try:
        record = read_json(path)
        row = {name: record[name] for name in PLAIN}
        row["kernels"] = "+".join(f"{kind} {form}" for kind, form in sorted(record["kernels"].items()))
        row["grid"] = " × ".join(map(str, record["grid"]))
        row["peak_memory_bytes"] = record["peak_memory_bytes"]
        for name in SPREAD:
            row |= _columns(name, record[name])
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise DataError(f"{path} is not a measurement ({error}); measure it again") from None
    return row


def _columns(name: str, spread: dict[str, float] | None) -> dict[str, float | None]:
    spread = spread or {"median": None, "min": None, "max": None}
    return {name: spread["median"], f"{name}_min": spread["min"], f"{name}_max": spread["max"]}
