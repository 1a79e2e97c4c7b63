# SPDX-License-Identifier: Apache-2.0
"""Table 4: what the trained models and the baselines score on one task.

In: `scores.csv` of the task, `run.json` and `metrics.csv` of its runs. Out: CSV and HTML. Which method wins
is worked out from these numbers. The paper's Table 4 stands beside ours only where it is comparable.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from isohypse.config import Task
from isohypse.config.settings import TableSettings
from isohypse.errors import DataError
from isohypse.publication import paper
from isohypse.publication.document import Column, Row, Table, is_missing, write_table
from isohypse.publication.labels import (
    DEFINITIONS,
    Method,
    forecasts_line,
    interval_line,
    run_of,
    seeds_line,
    task_line,
    task_of,
    with_flavours,
)
from isohypse.publication.reading import read_metrics, read_scores
from isohypse.storage import read_json

RECORD_KEYS = ("parameters", "frames_per_second", "peak_memory_bytes", "device", "steps", "grid")
REFERENCE = ("persistence", "")
CSV_ONLY = ("kind", "level_hpa", "samples", "steps", "device")


def table4(
    settings: TableSettings,
    scores: Path,
    runs: Sequence[Path],
    destination_csv: Path,
    destination_html: Path,
) -> None:
    """Write Table 4 of the task of `scores` (`.../evaluation/<task>/scores.csv`).

    runs: `.../training/<run>/run.json` of the same task; each run's `metrics.csv` lies beside it.
    Raises DataError if they belong to another task or lack a value.
    """
    task = task_of(scores)
    table = read_scores(scores, task.protocol)
    trained = read_trained(runs, task)
    leads = sorted({table["lead"].min(), table["lead"].max()})
    rows = [
        row
        for level in dict.fromkeys(table["level_hpa"])
        for row in _level_rows(settings, task, table[table["level_hpa"] == level], trained, leads)
    ]
    seeds = seeds_line(seed for row in table["seeds"] for seed in row)
    about = [f"{task_line(task)} · {seeds}", f"Definition “{task.protocol}”: {DEFINITIONS[task.protocol]}"]
    reading = _reading_notes(seeds, rows, settings.confidence)
    notes = [*_findings(rows, leads), *reading, *_paper_notes(settings, task, trained)]
    shared = {"task": str(task), "definition": task.protocol}
    rules = frozenset(i for i in range(1, len(rows)) if rows[i]["kind"] != rows[i - 1]["kind"])
    columns = _columns(leads, several_levels=table["level_hpa"].nunique() > 1)
    document = Table("Table 4 · Results", about, columns, rows, notes, shared, rules, CSV_ONLY)
    write_table(document, settings, destination_csv, destination_html)


def _columns(leads: Sequence[int], several_levels: bool) -> list[Column]:
    columns = [Column("method", "Method"), Column("flavour", "Flavour"), Column("seeds", "Seeds")]
    if several_levels:
        columns.append(Column("level_hpa", "Level", "hPa", "{}"))
    for lead in leads:
        group = f"{lead} h ahead"
        columns += [
            Column(f"rmse_{lead}h_m", "RMSE", "m", "{:.1f}", group, "min", interval=True),
            Column(f"acc_{lead}h", "ACC", "", "{:.3f}", group, "max", interval=True),
            Column(f"skill_{lead}h", "Skill", "vs persistence", "{:+.0%}", group, "max"),
        ]
    ours, theirs = "Training", "Paper, Table 4 (6 h)"
    return [
        *columns,
        Column("parameters", "Parameters", "", "{:,}", ours),
        Column("train_rmse", "Train RMSE", "normalised", "{:.4f}", ours),
        Column("validation_loss", "Val. loss", "normalised", "{:.4f}", ours),
        Column("frames_per_second", "Throughput", "frames/s", "{:,.0f}", ours),
        Column("peak_memory_gib", "Memory", "GiB", "{:.2f}", ours),
        Column("paper_train_rmse", "Train RMSE", "normalised", "{:.4f}", theirs),
        Column("paper_validation_loss", "Val. loss", "normalised", "{:.4f}", theirs),
        Column("paper_acc", "ACC", "", "{:.3f}", theirs),
    ]


@dataclass(frozen=True)
class Trained:
    """The training of one architecture, averaged over its seeds."""

    parameters: int
    steps: int
    grid: tuple[int, int]
    frames_per_second: float
    peak_memory_bytes: float | None
    devices: tuple[str, ...]
    train_rmse: float | None
    validation_loss: float | None


def read_trained(runs: Sequence[Path], task: Task) -> dict[tuple[str, str], Trained]:
    """(model, flavour) -> its training. Raises DataError for a record of another task or without its keys."""
    records: dict[tuple[str, str], list[dict]] = {}
    for path in runs:
        run = run_of(path)
        if run.task != task:
            raise DataError(f"{path}: a run of the task {run.task}, expected {task}")
        record = read_json(path)
        missing = [key for key in RECORD_KEYS if key not in record]
        if missing:
            raise DataError(f"{path}: lacks {', '.join(missing)}; train this run again")
        last = _last_values(read_metrics([Path(path).with_name("metrics.csv")]))
        records.setdefault((run.model, run.flavour), []).append(record | last)
    return {key: _average(found) for key, found in records.items()}


def _last_values(metrics: pd.DataFrame) -> dict[str, float | None]:
    """Train RMSE and validation loss at the last step that logged them."""
    last = metrics.sort_values("step").groupby(["split", "metric"])["value"].last()
    return {"train_rmse": last.get(("train", "rmse")), "validation_loss": last.get(("validation", "loss"))}


def _average(records: Sequence[dict]) -> Trained:
    frame = pd.DataFrame(records)
    first, mean = records[0], frame.mean(numeric_only=True)
    return Trained(
        parameters=first["parameters"],
        steps=first["steps"],
        grid=(len(first["grid"]["latitude"]), len(first["grid"]["longitude"])),
        devices=tuple(dict.fromkeys(frame["device"])),
        **{
            key: mean.get(key)
            for key in ("frames_per_second", "peak_memory_bytes", "train_rmse", "validation_loss")
        },
    )


def _level_rows(
    settings: TableSettings, task: Task, table: pd.DataFrame, trained: dict, leads: Sequence[int]
) -> list[Row]:
    """Models first, then baselines, each in the order of the scores."""
    groups = dict(list(table.groupby(["name", "flavour"], sort=False)))
    labels = with_flavours(Method(name, flavour or None) for name, flavour in groups)
    reference = groups.get(REFERENCE)
    rows = []
    for (name, flavour), scores in sorted(groups.items(), key=lambda item: item[0][1] == ""):
        label = (
            scores["label"].iloc[0] if not flavour and "sees the truth" in scores["label"].iloc[0] else None
        )
        row = {
            "method": label or labels[name, flavour or None],
            "flavour": flavour or None,
            "seeds": ", ".join(map(str, scores["seeds"].iloc[0])) or None,
            "level_hpa": int(scores["level_hpa"].iloc[0]),
            "kind": "model" if flavour else "baseline",
            "samples": int(scores["samples"].min()),
        }
        for lead in leads:
            row |= _scores_at(scores, reference, lead)
        found = trained.get((name, flavour))
        rows.append(row | _training_columns(found) | _paper_columns(settings, task, name, flavour, found))
    return rows


def _scores_at(scores: pd.DataFrame, reference: pd.DataFrame | None, lead: int) -> Row:
    found = scores[scores["lead"] == lead].set_index("metric")
    values = {}
    for metric, key in (("rmse_m", f"rmse_{lead}h_m"), ("acc", f"acc_{lead}h")):
        for column, suffix in (("value", ""), ("low", "_low"), ("high", "_high")):
            values[key + suffix] = float(found[column].get(metric, float("nan")))
    if reference is not None and reference is not scores:
        at_lead = reference[(reference["lead"] == lead) & (reference["metric"] == "rmse_m")]
        values[f"difference_{lead}h_m_high"] = float(found["high"].get("rmse_difference_m", float("nan")))
        values[f"skill_{lead}h"] = 1 - values[f"rmse_{lead}h_m"] / float(at_lead["value"].iloc[0])
    return values


def _training_columns(found: Trained | None) -> Row:
    if found is None:
        return {}
    memory = None if is_missing(found.peak_memory_bytes) else found.peak_memory_bytes / 2**30
    return {
        "parameters": found.parameters,
        "train_rmse": found.train_rmse,
        "validation_loss": found.validation_loss,
        "frames_per_second": found.frames_per_second,
        "peak_memory_gib": memory,
        "steps": found.steps,
        "device": " and ".join(found.devices),
    }


def _reasons(settings: TableSettings, task: Task, flavour: str, found: Trained | None) -> list[str]:
    """Why a model's row cannot stand beside the paper's Table 4."""
    levels = (paper.STATED_LEVEL_HPA, paper.CODE_LEVEL_HPA)
    reasons = paper.result_reasons(settings, task, t_out=1, levels_hpa=levels)
    if found is None:
        return [*reasons, *paper.flavour_reasons(flavour)]
    return [*reasons, *paper.grid_reasons(found.grid), *paper.flavour_reasons(flavour, found.steps)]


def _paper_columns(
    settings: TableSettings, task: Task, name: str, flavour: str, found: Trained | None
) -> Row:
    theirs = paper.TABLE_4.get(name)
    if theirs is None or not flavour or _reasons(settings, task, flavour, found):
        return {}
    return {
        "paper_train_rmse": theirs.train_rmse,
        "paper_validation_loss": theirs.validation_loss,
        "paper_acc": theirs.validation_acc,
    }


def _paper_notes(settings: TableSettings, task: Task, trained: dict) -> list[str]:
    """Once: why the paper's columns are empty, or what to know when they are not."""
    reasons = [
        reason
        for (_, flavour), found in trained.items()
        for reason in _reasons(settings, task, flavour, found)
    ]
    notes = [f"The paper's Table 4: {paper.not_comparable(reasons)}."] if reasons else [paper.LEVEL_NOTE]
    devices = dict.fromkeys(device for found in trained.values() for device in found.devices)
    where = [f"Throughput and memory: training on {' and '.join(devices)}."] if devices else []
    return [*where, *notes, f"The paper's throughput and memory: {paper.COST_NOTE}."]


def _findings(rows: Sequence[Row], leads: Sequence[int]) -> list[str]:
    """For each level and lead: who is best, and how many models beat persistence."""
    levels = dict.fromkeys(row["level_hpa"] for row in rows)
    return [
        _finding(
            [row for row in rows if row["level_hpa"] == level], lead, f" ({level} hPa)" * (len(levels) > 1)
        )
        for level in levels
        for lead in leads
    ]


def _finding(rows: Sequence[Row], lead: int, where: str) -> str:
    key = f"rmse_{lead}h_m"
    models = sorted((row for row in rows if row["kind"] == "model"), key=lambda row: row[key])
    baselines = sorted((row for row in rows if row["kind"] == "baseline"), key=lambda row: row[key])
    named = [f"{row['method']} ({row[key]:.1f} m)" for row in (models[:1] + baselines[:1])]
    text = f"At {lead} h{where}: "
    if not models or not baselines:
        return text + f"the lowest RMSE is that of {named[0]}."
    if models[0][key] < baselines[0][key]:
        text += f"the best model, {named[0]}, is ahead of the best baseline, {named[1]}; "
    else:
        text += f"the best baseline, {named[1]}, is ahead of every model, the best of which is {named[0]}; "
    return text + _against_persistence(models, lead)


def _against_persistence(models: Sequence[Row], lead: int) -> str:
    """Counted by the mean; `clearly` if the whole interval of the paired difference lies below zero."""
    if any(f"skill_{lead}h" not in row for row in models):
        return "persistence was not scored."
    ahead = sum(row[f"skill_{lead}h"] > 0 for row in models)
    clear = sum(row[f"difference_{lead}h_m_high"] < 0 for row in models)
    clearly = f", {clear} of them clearly (paired interval)" if ahead else ""
    return (
        f"{ahead or 'none'} of {len(models)} models {'beats' if ahead == 1 else 'beat'} persistence{clearly}."
    )


def _reading_notes(seeds: str, rows: Sequence[Row], confidence: float) -> list[str]:
    forecasts = forecasts_line([row["samples"] for row in rows])
    spread = (
        "One seed: differences between models may be smaller than those between seeds."
        if seeds.startswith("one")
        else "Values are means over seeds; intervals envelop the seeds' own, so they hold their spread too."
    )
    return [
        f"Small print under a value: its {interval_line(confidence)}, which allows for overlapping samples; "
        f"{forecasts}. Bold: the best of the column. "
        "Skill: 1 − RMSE / RMSE of persistence.",
        spread,
        "Train RMSE and validation loss are in units of the heights' standard deviation, at the last logged "
        "step, over all frames out. Throughput counts input frames.",
    ]
