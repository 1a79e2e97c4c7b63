# SPDX-License-Identifier: Apache-2.0
"""Fig. 2, loss against optimizer step, and Fig. 5, error and correlation against lead time.

In: the runs' `metrics.csv`, a task's `scores.csv`. Out: one figure file each. Fig. 5 uses the definition
that belongs to the task's protocol; the paper's points are drawn only where they are comparable.
"""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from isohypse.config import Task
from isohypse.config.settings import FigureSettings
from isohypse.errors import DataError
from isohypse.publication import paper
from isohypse.publication.labels import (
    DEFINITIONS,
    Method,
    forecasts_line,
    interval_line,
    only_task,
    run_of,
    seeds_line,
    task_line,
    task_of,
    with_flavours,
)
from isohypse.publication.reading import read_metrics, read_scores, scores_of
from isohypse.publication.style import (
    MUTED,
    RC,
    inputs_line,
    label_ends,
    look,
    page,
    panels,
    plain_log_ticks,
    round_ticks,
    save,
)

METRICS = {"rmse_m": "RMSE (m)", "acc": "Anomaly correlation (ACC)"}
RAW_POINTS = 60
"""Beyond so many logged steps the training loss is drawn as a running mean."""


def figure2(settings: FigureSettings, metrics: Sequence[Path], destination: Path) -> None:
    """Write Fig. 2 from `.../training/<run>/metrics.csv` of one task. Raises DataError for mixed tasks."""
    save(draw_figure2(settings, metrics), destination, metrics)


def draw_figure2(settings: FigureSettings, metrics: Sequence[Path]) -> Figure:
    runs = [run_of(path) for path in metrics]
    task = only_task((run.task for run in runs), "Figure 2")
    table = read_metrics(metrics)
    losses = table[(table["metric"] == "loss") & (table["step"] > 0)]
    if losses.empty:
        raise DataError(f"{metrics[0]}: holds no row of the metric 'loss'")
    seeds = seeds_line(run.seed for run in runs)
    with mpl.rc_context(RC):
        sheet = page(
            settings, (10, 3.9), "Figure 2 · Loss during training", [f"{task_line(task)} · {seeds}"],
            [_loss_footer(losses, seeds), inputs_line(metrics)],
        )  # fmt: skip
        margins = {"left": 0.75, "right": 1.75, "top": 0.4, "bottom": 0.5, "wide": 0.35, "high": 0}
        left, right = panels(sheet, 1, 2, margins)[0]
        right.sharey(left)
        labels = with_flavours(Method(run.model, run.flavour, run.seed) for run in runs)
        _loss_panel(left, losses[losses["split"] == "train"], labels, "Training loss")
        ends = _loss_panel(right, losses[losses["split"] == "validation"], labels, "Validation loss")
        left.set_ylabel("Mean squared error (normalised)")
        right.tick_params(labelleft=False)
        label_ends(right, ends)
    return sheet.figure


def _loss_footer(losses: pd.DataFrame, seeds: str) -> str:
    several = "" if seeds.startswith("one") else " Lines: mean over seeds; bands: their range."
    width = _smoothing(losses[losses["split"] == "train"])
    smoothed = f" Training loss: running mean over {width} logged steps." if width > 1 else ""
    return (
        f"Loss over all forecast frames; heights normalised by the protocol's statistics.{smoothed}{several}"
    )


def _smoothing(losses: pd.DataFrame) -> int:
    return max(1, losses["step"].nunique() // RAW_POINTS)


def _loss_panel(axes: Axes, losses: pd.DataFrame, labels: dict, title: str) -> list:
    """Draw one line for each model; returns (x, y, label, colour) of the lines' ends."""
    flavours = list(dict.fromkeys(flavour for _, flavour in labels))
    smooth = _smoothing(losses) if (losses["split"] == "train").all() and not losses.empty else 1
    ends = []
    axes.set(xscale="log", yscale="log", xlabel="Optimizer step", title=title)
    for name, flavour in labels:
        chosen = losses[(losses["model"] == name) & (losses["flavour"] == flavour)]
        if chosen.empty:
            continue
        by_step = chosen.groupby("step")["value"].agg(["mean", "min", "max"])
        by_step = by_step.rolling(smooth, center=True, min_periods=1).mean()
        style = look(name, flavour, flavours) | {"marker": None, "linewidth": 1.4}
        axes.plot(by_step.index, by_step["mean"], **style)
        if chosen["seed"].nunique() > 1:
            axes.fill_between(
                by_step.index, by_step["min"], by_step["max"], color=style["color"], alpha=0.15, lw=0
            )
        ends.append((by_step.index[-1], by_step["mean"].iloc[-1], labels[name, flavour], style["color"]))
    if ends:
        # sharey: each panel widens the common limits, so both may set the same round ticks
        plain_log_ticks(axes.yaxis, round_ticks(*axes.get_ylim()))
        plain_log_ticks(axes.xaxis, _decades(losses["step"]))
    return ends


def _decades(steps: pd.Series) -> list[float]:
    low, high = max(1, steps.min()), steps.max()
    return [tick for tick in round_ticks(low, max(high, 2 * low)) if tick <= high]


def figure5(settings: FigureSettings, scores: Path, destination: Path) -> None:
    """Write Fig. 5 from `.../evaluation/<task>/scores.csv`: RMSE and ACC of all methods with intervals."""
    save(draw_figure5(settings, scores), destination, [scores])


def draw_figure5(settings: FigureSettings, scores: Path) -> Figure:
    task = task_of(scores)
    table = read_scores(scores, task.protocol)
    levels = list(dict.fromkeys(table["level_hpa"]))
    seeds = seeds_line(seed for row in table["seeds"] for seed in row)
    single = table["lead"].nunique() == 1
    title = "Figure 5 · Forecast error " + (
        f"at {table['lead'].iloc[0]} h" if single else "against lead time"
    )
    margins = {"left": 0.6, "right": 1.9, "top": 0.4, "bottom": 0.5, "wide": 2.1, "high": 0.9}
    if single:
        margins |= {"left": 2.0, "right": 0.3, "wide": 0.3}
    height = 1 + _panel_height(table, single) * len(levels) + 0.9 * (len(levels) - 1)
    with mpl.rc_context(RC):
        sheet = page(
            settings, (10, height), title, [f"{task_line(task)} · {seeds}"],
            [*_score_footer(settings, task, table, seeds), inputs_line([scores])],
        )  # fmt: skip
        for row, level in zip(panels(sheet, len(levels), 2, margins), levels, strict=True):
            for axes, metric in zip(row, METRICS, strict=True):
                chosen = scores_of(table, metric, level)
                (_dots if single else _lines)(axes, chosen, metric)
                axes.set_title(METRICS[metric] + (f", {level} hPa" if len(levels) > 1 else ""))
                if metric == "rmse_m" and not single and not _figure5_reasons(settings, task, table):
                    _paper_points(axes)
            if single:
                row[1].tick_params(labelleft=False)
    return sheet.figure


def _panel_height(table: pd.DataFrame, single: bool) -> float:
    methods = len(table[["name", "flavour"]].drop_duplicates())
    return max(1.6, 0.28 * methods) if single else 3.6


def _score_footer(settings: FigureSettings, task: Task, table: pd.DataFrame, seeds: str) -> list[str]:
    bars = f"Bars: {interval_line(settings.publication.confidence)} for overlapping samples"
    bars += "." if seeds.startswith(("one", "no")) else ", enveloping the seeds; points: mean over seeds."
    reasons = _figure5_reasons(settings, task, table)
    paper_line = paper.not_comparable(reasons) if reasons else "hollow points, where its text gives a number"
    return [
        f"Definition “{task.protocol}”: {DEFINITIONS[task.protocol]}.",
        f"{bars} {forecasts_line(table['samples'])} for each point.{_without_acc(table)}",
        f"The paper's Fig. 5: {paper_line}.",
    ]


def _without_acc(table: pd.DataFrame) -> str:
    """Of the climatology against itself there is none."""
    values = table[table["metric"] == "acc"].groupby("name", sort=False)["value"]
    names = [Method(name, None).label for name, rows in values if rows.isna().all()]
    return "".join(f" {name} has no ACC: it has no anomaly." for name in names)


def _figure5_reasons(settings: FigureSettings, task: Task, table: pd.DataFrame) -> list[str]:
    reasons = paper.result_reasons(settings, task, t_out=4, levels_hpa=(paper.CODE_LEVEL_HPA,))
    flavours = dict.fromkeys(flavour for flavour in table["flavour"] if flavour)
    return reasons + [reason for flavour in flavours for reason in paper.flavour_reasons(flavour)]


def _paper_points(axes: Axes) -> None:
    for (name, lead), value in paper.FIGURE_5_RMSE_M.items():
        colour = look(name, "paper" if name in paper.TABLE_4 else None)["color"]
        axes.plot(lead, value, marker="o", markersize=8, mfc="none", mec=colour, mew=1.4, linestyle="none")
    handle = Line2D(
        [], [], marker="o", markersize=8, mfc="none", mec=MUTED, linestyle="none", label="the paper"
    )
    axes.legend(handles=[handle], loc="lower right")


def _rows(chosen: pd.DataFrame) -> list[tuple[str, str, str, pd.DataFrame]]:
    """(name, flavour, label, rows by lead) of each method."""
    found = [
        (name, flavour, rows.sort_values("lead"))
        for (name, flavour), rows in chosen.groupby(["name", "flavour"], sort=False)
    ]
    labels = with_flavours(Method(name, flavour or None) for name, flavour, _ in found)
    return [
        (name, flavour, _label(labels[name, flavour or None], rows), rows) for name, flavour, rows in found
    ]


def _label(short: str, rows: pd.DataFrame) -> str:
    """The climatology of the paper's protocol sees the truth: its name may not hide that."""
    return short + (" (sees\nthe truth)" if "sees the truth" in str(rows["label"].iloc[0]) else "")


def _bars(rows: pd.DataFrame) -> np.ndarray:
    """Distances to the interval's ends [2, point]; an interval that was not given has no length."""
    below = (rows["value"] - rows["low"]).clip(lower=0).fillna(0)
    above = (rows["high"] - rows["value"]).clip(lower=0).fillna(0)
    return np.array([below, above])


def _lines(axes: Axes, chosen: pd.DataFrame, metric: str) -> None:
    methods = _rows(chosen)
    flavours = list(dict.fromkeys(flavour for _, flavour, _, _ in methods if flavour))
    ends = []
    for place, (name, flavour, label, rows) in enumerate(methods):
        if rows["value"].isna().all():  # the ACC of the climatology against itself is undefined
            continue
        style = look(name, flavour, flavours)
        # a small shift keeps the bars of neighbouring methods apart
        leads = rows["lead"] + 0.09 * (place - (len(methods) - 1) / 2)
        axes.errorbar(leads, rows["value"], yerr=_bars(rows), elinewidth=0.8, capsize=0, **style)
        ends.append((leads.iloc[-1], rows["value"].iloc[-1], label, style["color"]))
    axes.set(xlabel="Lead time (h)", xticks=sorted(chosen["lead"].unique()))
    axes.margins(x=0.06)
    axes.set_ylim(*_limits(chosen, metric))
    label_ends(axes, ends)


def _limits(chosen: pd.DataFrame, metric: str) -> tuple[float, float]:
    """RMSE from 0; ACC to 1, down to a little under the least value."""
    if metric == "acc":
        return min(0.0, 1.08 * chosen["low"].fillna(chosen["value"]).min()), 1.0
    return 0.0, 1.06 * chosen["high"].fillna(chosen["value"]).max()


def _dots(axes: Axes, chosen: pd.DataFrame, metric: str) -> None:
    """One lead only: a dot with its interval for each method, one below the other."""
    methods = _rows(chosen)
    for place, (name, flavour, _, rows) in enumerate(methods):
        value = rows["value"].iloc[0]
        if pd.isna(value):
            continue
        style = look(name, flavour)
        dot = {"fmt": style["marker"] or "|", "color": style["color"], "markersize": 7, "mew": 1.6}
        axes.errorbar([value], [place], xerr=_bars(rows), **dot)
        text = f"{value:.3f}" if metric == "acc" else f"{value:.1f}"
        axes.annotate(text, (value, place), (0, 7), textcoords="offset points", ha="center", fontsize=7.5)
    axes.set_yticks(range(len(methods)), [label.replace("\n", " ") for _, _, label, _ in methods])
    axes.set_ylim(len(methods) - 0.4, -0.75)
    axes.grid(axis="y", visible=False)
    low, high = _limits(chosen, metric)
    axes.set_xlim(low, high * 1.04)
