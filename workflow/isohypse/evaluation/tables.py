# SPDX-License-Identifier: Apache-2.0
"""The tidy table of a task: the scores.nc of its methods in, one scores.csv out.

One row for each method, definition, lead time, level and metric, with the bounds of its confidence interval
(`significance.py`). RMSE is the root of the mean squared error of all samples; at lead time `all`, of all
samples and lead times. ACC is the mean of the correlations of single forecasts. Levels are never averaged.
`rmse_difference_m` is RMSE minus that of persistence on the same forecasts: below zero is better.
An undefined value, such as the ACC of the climatology against itself, is an empty cell.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from isohypse.config.settings import ScoresSettings
from isohypse.errors import DataError
from isohypse.evaluation.significance import Interval, mean_interval, rmse_difference
from isohypse.storage import atomic_path

COLUMNS = (
    "method", "label", "kind", "seed", "definition", "lead_time_hours", "level_hpa", "metric",
    "value", "low", "high", "samples",
)  # fmt: skip
REFERENCE = "persistence"
ALL_LEADS = "all"


def tabulate_scores(settings: ScoresSettings, scores: Sequence[Path], destination: Path) -> None:
    """Write the table of all `scores` files to `destination` (CSV).

    Raises DataError unless all are scores of the same forecasts of the task, each method once.
    """
    datasets = [read_scores(path, str(settings.task)) for path in scores]
    _check_comparable(datasets, scores)
    reference = next((found for found in datasets if found.attrs["method"] == REFERENCE), None)
    rows = [row for found in datasets for row in score_rows(found, reference, settings.confidence)]
    with atomic_path(destination) as path:
        pd.DataFrame(rows, columns=COLUMNS).to_csv(path, index=False, float_format="%.8g")


def read_scores(path: Path, task: str) -> xr.Dataset:
    """Read a scores.nc of `task`. Raises DataError for anything else."""
    try:
        with xr.open_dataset(path, engine="netcdf4", decode_timedelta=False) as dataset:
            found = dataset[["mse", "bias", "acc"]].load()
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: not a file of scores ({error}); delete its folder and run again") from None
    if found.attrs.get("task") != task:
        raise DataError(f"{path}: scores of the task {found.attrs.get('task')}, expected {task}")
    return found


def _check_comparable(datasets: Sequence[xr.Dataset], paths: Sequence[Path]) -> None:
    """Raise DataError unless every file holds the same forecasts of another method."""
    if not datasets:
        raise DataError("scores: no file was given")
    seen: dict[str, Path] = {}
    for found, path in zip(datasets, paths, strict=True):
        if not np.array_equal(found["init_time"].values, datasets[0]["init_time"].values):
            raise DataError(f"{path}: its forecasts are not those of {paths[0]}; score both anew")
        method = found.attrs["method"]
        if method in seen:
            raise DataError(f"{path}: {method} is already scored by {seen[method]}")
        seen[method] = path


def score_rows(scores: xr.Dataset, reference: xr.Dataset | None, confidence: float) -> Iterator[dict]:
    """The rows of one method; with a `reference` other than itself, its RMSE differences too."""
    samples = {name: with_all_leads(scores[name]) for name in ("mse", "bias", "acc")}
    intervals = {
        "rmse_m": mean_interval(samples["mse"], confidence).sqrt(),
        "bias_m": mean_interval(samples["bias"], confidence),
        "acc": mean_interval(samples["acc"], confidence),
    }
    if reference is not None and reference is not scores:
        paired = with_all_leads(reference["mse"])
        intervals["rmse_difference_m"] = rmse_difference(samples["mse"], paired, confidence)
    method = {name: scores.attrs.get(name) for name in ("method", "label", "kind", "seed")}
    for metric, interval in intervals.items():
        for row in _rows(interval, scores):
            yield method | {"metric": metric, "samples": scores.sizes["sample"]} | row


def with_all_leads(scores: xr.DataArray) -> np.ndarray:
    """float64 [sample, definition, lead_time + 1, level]: the last lead time is the mean over all of them."""
    values = scores.transpose("sample", "definition", "lead_time", "level").values
    return np.concatenate([values, values.mean(axis=2, keepdims=True)], axis=2)


def _rows(interval: Interval, scores: xr.Dataset) -> Iterator[dict]:
    leads = [*scores["lead_time"].values.tolist(), ALL_LEADS]
    for i, definition in enumerate(scores["definition"].values):
        for j, lead in enumerate(leads):
            for k, level in enumerate(scores["level"].values):
                bounds = {name: getattr(interval, name)[i, j, k] for name in ("value", "low", "high")}
                place = {"definition": str(definition), "lead_time_hours": lead, "level_hpa": int(level)}
                yield place | bounds
