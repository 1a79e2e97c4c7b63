# SPDX-License-Identifier: Apache-2.0
"""Reads the tidy tables of the earlier stages and sums up over seeds.

In: `metrics.csv` of runs, `scores.csv` of a task, `costs.csv`. Out: data frames with the columns named
here. A table without its columns, or with no row, is refused by name.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from isohypse.errors import DataError
from isohypse.publication.labels import Method, run_of

METRIC_COLUMNS = ("step", "split", "metric", "value")
SCORE_COLUMNS = (
    "method", "label", "kind", "seed", "definition", "lead_time_hours", "level_hpa", "metric",
    "value", "low", "high", "samples",
)  # fmt: skip


def read_tidy(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """A CSV file with at least `columns` and one row. Raises DataError with the file's name."""
    try:
        table = pd.read_csv(path)
    except (OSError, pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a table: {error}") from None
    missing = [column for column in columns if column not in table]
    if missing:
        raise DataError(f"{path}: lacks the columns {', '.join(missing)}; it has {', '.join(table)}")
    if table.empty:
        raise DataError(f"{path}: holds no row")
    return table


def read_metrics(paths: Sequence[Path]) -> pd.DataFrame:
    """All runs' metrics with the columns model, flavour, seed beside step, split, metric, value."""
    tables = []
    for path in paths:
        run = run_of(path)
        table = read_tidy(path, METRIC_COLUMNS)
        tables.append(table.assign(model=run.model, flavour=run.flavour, seed=run.seed))
    if not tables:
        raise DataError("no metrics.csv was given")
    return pd.concat(tables, ignore_index=True)


def read_scores(path: Path, definition: str) -> pd.DataFrame:
    """The scores of one definition, one row for each method, flavour, level, lead and metric.

    Columns: name, flavour, label, level_hpa, lead (int hours; the rows over all leads are left out), metric,
    value (mean over seeds), low and high (envelope of the seeds' intervals), seed_low and seed_high (range of
    the seeds' values), seeds (tuple), samples.
    """
    table = read_tidy(path, SCORE_COLUMNS)
    table = table[(table["definition"] == definition) & (table["lead_time_hours"].astype(str) != "all")]
    if table.empty:
        raise DataError(f"{path}: holds no score of the definition {definition!r} for a single lead time")
    methods = [Method.parse(text) for text in table["method"]]
    table = table.assign(
        name=[method.name for method in methods],
        flavour=[method.flavour or "" for method in methods],
        seed=[method.seed for method in methods],
        lead=table["lead_time_hours"].astype(float).astype(int),
    )
    return over_seeds(table)


def over_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """One row for each method without its seed, in the order in which methods first appear."""
    grouped = table.groupby(["name", "flavour", "level_hpa", "lead", "metric"], sort=False)
    summary = grouped.agg(
        label=("label", "first"),
        value=("value", "mean"),
        low=("low", "min"),
        high=("high", "max"),
        seed_low=("value", "min"),
        seed_high=("value", "max"),
        seeds=("seed", lambda seeds: tuple(sorted(int(seed) for seed in seeds if pd.notna(seed)))),
        samples=("samples", "min"),
    )
    return summary.reset_index()


def scores_of(scores: pd.DataFrame, metric: str, level_hpa: int) -> pd.DataFrame:
    return scores[(scores["metric"] == metric) & (scores["level_hpa"] == level_hpa)]
