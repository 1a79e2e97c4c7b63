# SPDX-License-Identifier: Apache-2.0
"""Fig. 6: training throughput and peak memory against sequence length.

In: `costs.csv` of the scaling stage. Out: one figure file. The length T counts frames; the paper's Fig. 6
counts language-model tokens on other hardware, so its numbers are never drawn here.
"""

from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from isohypse.config.settings import FigureSettings
from isohypse.errors import DataError
from isohypse.publication import paper
from isohypse.publication.labels import Method, with_flavours
from isohypse.publication.reading import read_tidy
from isohypse.publication.style import (
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

COLUMNS = (
    "model",
    "flavour",
    "length",
    "batch_size",
    "grid",
    "frames_per_second",
    "peak_memory_bytes",
    "device",
)
GIB = 2**30


def figure6(settings: FigureSettings, costs: Path, destination: Path) -> None:
    """Write Fig. 6 from `costs.csv`. Raises DataError if it lacks a column of `COLUMNS`."""
    save(draw_figure6(settings, costs), destination, [costs])


def draw_figure6(settings: FigureSettings, costs: Path) -> Figure:
    table = read_tidy(costs, COLUMNS)
    table = table.assign(memory_gib=table["peak_memory_bytes"] / GIB)
    measured = table.dropna(subset=["frames_per_second", "peak_memory_bytes"])
    if measured.empty:
        raise DataError(f"{costs}: no measurement fitted into memory; choose shorter scaling.lengths")
    devices = " and ".join(dict.fromkeys(table["device"].astype(str)))
    with mpl.rc_context(RC):
        sheet = page(
            settings, (10, 4.0), "Figure 6 · Cost of training against sequence length",
            [f"{devices} · {_flavours(table)} · {_batches(table)}"], [*_footer(table), inputs_line([costs])],
            data=f"Random frames of {table['grid'].iloc[0]} points, no weather data",
        )  # fmt: skip
        margins = {"left": 0.75, "right": 1.75, "top": 0.4, "bottom": 0.5, "wide": 2.4, "high": 0}
        left, right = panels(sheet, 1, 2, margins)[0]
        _panel(left, measured, "frames_per_second", "Training throughput (frames/s)")
        _panel(right, measured, "memory_gib", "Peak memory (GiB)")
    return sheet.figure


def _flavours(table: pd.DataFrame) -> str:
    return "flavour " + ", ".join(f"“{flavour}”" for flavour in dict.fromkeys(table["flavour"]))


def _batches(table: pd.DataFrame) -> str:
    sizes = sorted(table["batch_size"].unique())
    return f"batch of {sizes[0]}" if len(sizes) == 1 else f"batches of {', '.join(map(str, sizes))}"


def _footer(table: pd.DataFrame) -> list[str]:
    ranges = " Bars: range over repeats." if "frames_per_second_min" in table else ""
    left_out = table[table["frames_per_second"].isna()]
    names = [f"{Method(row.model, row.flavour).label} at T = {row.length:,}" for row in left_out.itertuples()]
    missing = [f"Did not fit into memory: {', '.join(names)}."] if names else []
    return [
        *missing,
        f"Forward, backward and optimizer step; median over repeats.{ranges}",
        "Memory: peak of the device; on a CPU of the process, above its start.",
        f"The paper's Fig. 6: {paper.COST_NOTE}.",
    ]


def _panel(axes: Axes, table: pd.DataFrame, column: str, title: str) -> None:
    methods = [
        Method(model, flavour) for model, flavour in zip(table["model"], table["flavour"], strict=True)
    ]
    labels = with_flavours(methods)
    flavours = list(dict.fromkeys(flavour for _, flavour in labels))
    ends = []
    axes.set(xscale="log", yscale="log", xlabel="Sequence length T (frames)", title=title)
    for name, flavour in labels:
        rows = table[(table["model"] == name) & (table["flavour"] == flavour)].sort_values("length")
        style = look(name, flavour, flavours)
        axes.plot(rows["length"], rows[column], **style)
        if f"{column}_min" in rows:
            axes.vlines(
                rows["length"], rows[f"{column}_min"], rows[f"{column}_max"], color=style["color"], lw=1
            )
        ends.append((rows["length"].iloc[-1], rows[column].iloc[-1], labels[name, flavour], style["color"]))
    _ticks(axes, table, column)
    label_ends(axes, ends)


def _ticks(axes: Axes, table: pd.DataFrame, column: str) -> None:
    low, high = table[column].min(), table[column].max()
    # at least a factor of four in sight, so that noise of a percent does not look like a slope
    middle, half = (low * high) ** 0.5, max((high / low) ** 0.5 * 1.15, 2.0)
    axes.set_ylim(middle / half, middle * half)
    plain_log_ticks(axes.yaxis, round_ticks(*axes.get_ylim()))
    plain_log_ticks(axes.xaxis, sorted(table["length"].unique()))
