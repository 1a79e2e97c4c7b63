# SPDX-License-Identifier: Apache-2.0
"""Fig. 3 and 4: maps of truth, prediction and error for a training and an evaluation sample.

In: `examples.nc` of several methods on one task. Out: one figure file. The contours are isohypses; the
error maps are shaded symmetrically about zero, over the isohypses of the truth. First level, last lead
time, lowest seed of each architecture.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from isohypse.config import Task
from isohypse.config.assessment import Publication
from isohypse.config.settings import FigureSettings
from isohypse.data.area import area_weights
from isohypse.errors import DataError
from isohypse.publication.geography import MapFrame, map_frame, rounded_up
from isohypse.publication.labels import Method, method_of, only_task, task_line, with_flavours
from isohypse.publication.style import MUTED, RC, Page, inputs_line, page, save

CASES = {"train": ("Figure 3", "a training sample"), "evaluation": ("Figure 4", "an evaluation sample")}
VARIABLES = ("forecast", "truth", "last_input")
ISOHYPSE_STEPS_M = (60, 120, 240, 480)
MAP_WIDTH, GAP, ROW_TITLE, LEFT, RIGHT = 3.0, 0.12, 0.3, 0.5, 0.15


@dataclass(frozen=True)
class Example:
    """One forecast beside its truth, [latitude, longitude] in metres, and when."""

    method: Method
    forecast: np.ndarray
    truth: np.ndarray
    last_input: np.ndarray
    latitude: np.ndarray
    longitude: np.ndarray
    init_time: np.datetime64
    lead_hours: int
    level_hpa: int

    @property
    def error(self) -> np.ndarray:
        return self.forecast - self.truth


def figure_maps(settings: FigureSettings, examples: Sequence[Path], case: str, destination: Path) -> None:
    """Write the maps of `case`: `train` is Fig. 3, `evaluation` Fig. 4.

    examples: `.../evaluation/<task>/<method>/examples.nc`. Raises DataError for mixed tasks or samples,
    UnavailableError for a projection that needs cartopy.
    """
    save(draw_maps(settings, examples, case), destination, examples)


def draw_maps(settings: FigureSettings, examples: Sequence[Path], case: str) -> Figure:
    frame = map_frame(settings)
    shown, task = read_examples(examples, case)
    with mpl.rc_context({**RC, "axes.grid": False}):
        return _compose(settings, frame, shown, task, case, inputs_line(examples))


def read_examples(paths: Sequence[Path], case: str) -> tuple[list[Example], Task]:
    """One example for each architecture or baseline (its lowest seed), all of the same sample."""
    by_method = {}
    for path in paths:
        task, method = method_of(path)
        by_method[method] = (path, task)
    task = only_task((task for _, task in by_method.values()), CASES[case][0])
    lowest = {}
    for method in sorted(by_method, key=lambda method: method.seed or 0):
        lowest.setdefault((method.name, method.flavour), method)
    chosen = [method for method in by_method if lowest[method.name, method.flavour] is method]
    read = [read_example(by_method[method][0], method, case) for method in chosen]
    for example, method in zip(read, chosen, strict=True):
        if example.truth.shape != read[0].truth.shape or not np.array_equal(example.truth, read[0].truth):
            raise DataError(f"{by_method[method][0]}: its truth is not that of {by_method[chosen[0]][0]}")
    return read, task


def read_example(path: Path, method: Method, case: str) -> Example:
    """The first example of `case`, at the first level and the last lead time."""
    try:
        with xr.open_dataset(path, decode_timedelta=False) as dataset:
            found = dataset.load()
        found = found.sel(case=case)
        for dimension in set(found.dims) - {"lead_time", "level", "latitude", "longitude"}:
            found = found.isel({dimension: 0})
        found = found.isel(level=0, lead_time=-1)
        heights = [found[name].values for name in VARIABLES]
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"{path}: is no file of examples with the case {case!r}: {error}") from None
    return Example(
        method,
        *heights,
        latitude=found["latitude"].values,
        longitude=found["longitude"].values,
        init_time=found["init_time"].values,
        lead_hours=int(found["lead_time"]),
        level_hpa=int(found["level"]),
    )


@dataclass(frozen=True)
class Scale:
    """Shading and contour levels shared by all maps of a figure, metres."""

    height: tuple[float, float]
    error: float
    isohypses: np.ndarray

    @classmethod
    def of(cls, shown: Sequence[Example]) -> "Scale":
        truth = shown[0].truth
        low, high = float(truth.min()), float(truth.max())
        step = next((s for s in ISOHYPSE_STEPS_M if (high - low) / s <= 12), ISOHYPSE_STEPS_M[-1])
        isohypses = np.arange(np.floor(low / step), np.ceil(high / step) + 1) * step
        errors = [np.abs(example.error) for example in shown]
        errors.append(np.abs(shown[0].last_input - truth))
        largest = max(float(np.quantile(error, 0.995)) for error in errors)
        return cls((isohypses[0], isohypses[-1]), rounded_up(largest), isohypses)

    @property
    def step(self) -> int:
        return int(self.isohypses[1] - self.isohypses[0])


def _compose(
    settings: FigureSettings, frame: MapFrame, shown: list[Example], task: Task, case: str, inputs: str
) -> Figure:
    """Two maps a method, prediction and error; more than three methods stand in two blocks."""
    first, scale = shown[0], Scale.of(shown)
    blocks = 2 if len(shown) > 3 else 1
    layout = Layout(1 + -(-len(shown) // blocks), 2 * blocks, MAP_WIDTH * frame.aspect(first))
    number, sample = CASES[case]
    sheet = page(
        settings, layout.size, f"{number} · Forecasts of {sample}", [task_line(task), _times(first)],
        [_footer(shown, task), inputs],
    )  # fmt: skip
    draw = Drawing(sheet, layout, frame, settings.publication, scale, task)
    heights = draw.heights(0, 0, first.truth, first, "Truth")
    errors = draw.errors(0, 1, first.last_input - first.truth, first, "Last input − truth")
    labels = with_flavours(example.method for example in shown)
    for index, example in enumerate(shown):
        row, column = 1 + index // blocks, 2 * (index % blocks)
        draw.heights(
            row, column, example.forecast, example, labels[example.method.name, example.method.flavour]
        )
        draw.errors(row, column + 1, example.error, example, "Error")
    draw.edges()
    draw.colour_bars(heights, errors, first.level_hpa)
    return sheet.figure


@dataclass(frozen=True)
class Layout:
    """A grid of maps; inches. With four columns the colour bars stand beside the truth, else at the end."""

    rows: int
    columns: int
    map_height: float

    @property
    def beside(self) -> bool:
        return self.columns == 4

    @property
    def size(self) -> tuple[float, float]:
        width = LEFT + self.columns * MAP_WIDTH + (self.columns - 1) * GAP + RIGHT
        below = 0.3 if self.beside else 0.85
        return width, self.rows * (self.map_height + ROW_TITLE) + below

    def box(self, row: int, column: int) -> tuple[float, float, float, float]:
        """left, top, width, height of a map within the body."""
        top = row * (self.map_height + ROW_TITLE) + ROW_TITLE
        return LEFT + column * (MAP_WIDTH + GAP), top, MAP_WIDTH, self.map_height

    def bar(self, place: int) -> tuple[float, float, float, float]:
        """left, top, width, height of colour bar 0 or 1."""
        if self.beside:
            left, top, width, height = self.box(0, 2 + place)
            return left + 0.1, top + 0.45 * height, width - 0.2, 0.12
        return LEFT + place * (MAP_WIDTH + GAP), self.size[1] - 0.33, MAP_WIDTH, 0.12


@dataclass
class Drawing:
    """Puts maps on a sheet, all with one scale."""

    sheet: Page
    layout: Layout
    frame: MapFrame
    publication: Publication
    scale: Scale
    task: Task
    placed: dict[tuple[int, int], Axes] = field(default_factory=dict)

    def axes(self, row: int, column: int) -> Axes:
        box = self.sheet.place(*self.layout.box(row, column))
        axes = self.sheet.figure.add_axes(box, label=f"map {row},{column}", **self.frame.axes_options)
        self.placed[row, column] = axes
        return axes

    def heights(self, row: int, column: int, values: np.ndarray, at: Example, title: str) -> Any:
        axes, (low, high) = self.axes(row, column), self.scale.height
        shading = self.frame.shade(
            axes, at, values, cmap=self.publication.height_colormap, vmin=low, vmax=high
        )
        lines = {"levels": self.scale.isohypses, "colors": "white", "linewidths": 0.6, "alpha": 0.9}
        self.frame.contour(axes, at, values, **lines)
        axes.set_title(title, fontsize=9, pad=3)
        return shading

    def errors(self, row: int, column: int, values: np.ndarray, at: Example, title: str) -> Any:
        axes, limit = self.axes(row, column), self.scale.error
        shading = self.frame.shade(
            axes, at, values, cmap=self.publication.error_colormap, vmin=-limit, vmax=limit
        )
        lines = {"levels": self.scale.isohypses, "colors": "#555555", "linewidths": 0.4, "alpha": 0.7}
        self.frame.contour(axes, at, at.truth, **lines)
        axes.set_title(title, fontsize=9, pad=3)
        rmse = f"RMSE {map_rmse(values, at.latitude, self.task.protocol):.1f} m"
        axes.set_title(rmse, fontsize=8, loc="right", fontweight="normal", color=MUTED, pad=3)
        return shading

    def edges(self) -> None:
        """Coordinates are written at the left and at the lowest map of each column only."""
        for (row, column), axes in self.placed.items():
            self.frame.finish(axes, left=column == 0, bottom=(row + 1, column) not in self.placed)

    def colour_bars(self, heights: Any, errors: Any, level_hpa: int) -> None:
        isohypses, limit = self.scale.isohypses, self.scale.error
        every = f"Height of {level_hpa} hPa (m), isohypses every {self.scale.step} m"
        self._bar(0, heights, every, isohypses[:: -(-len(isohypses) // 6)])
        self._bar(1, errors, "Prediction − truth (m)", np.linspace(-limit, limit, 5))

    def _bar(self, place: int, shading: Any, title: str, ticks: np.ndarray) -> None:
        axes = self.sheet.figure.add_axes(self.sheet.place(*self.layout.bar(place)), label=f"bar {place}")
        bar = self.sheet.figure.colorbar(
            shading, cax=axes, orientation="horizontal", extend="both", ticks=ticks
        )
        bar.outline.set_linewidth(0.5)
        axes.set_title(title, fontsize=8, fontweight="normal", pad=3)
        axes.tick_params(labelsize=7.5, length=2.5)


def map_rmse(error: np.ndarray, latitude: np.ndarray, protocol: str) -> float:
    """Root mean square of a map [latitude, longitude]; area weights but in the paper's protocol."""
    weights = np.ones_like(latitude) if protocol == "paper" else area_weights(latitude)
    return float(np.sqrt(np.average((error.astype(float) ** 2).mean(axis=1), weights=weights)))


def _times(first: Example) -> str:
    valid = first.init_time + np.timedelta64(first.lead_hours, "h")
    return f"Last input {_minute(first.init_time)}, valid {_minute(valid)} · lead time {first.lead_hours} h"


def _minute(time: np.datetime64) -> str:
    return str(np.datetime64(time, "m")).replace("T", " ") + " UTC"


def _footer(shown: Sequence[Example], task: Task) -> str:
    seeds = sorted({example.method.seed for example in shown if example.method.seed is not None})
    chosen = f"seed {', '.join(map(str, seeds))} only (the lowest)" if seeds else "no trained model"
    weighting = "unweighted" if task.protocol == "paper" else "area-weighted"
    return (
        f"One sample, {chosen}; RMSE of the single map, {weighting}. “Last input − truth” is the error of "
        "persistence. Grey lines on errors: isohypses of the truth."
    )
