# SPDX-License-Identifier: Apache-2.0
"""What every figure and table says about itself: data, task, protocol, seeds; and who a method is.

In: stage settings and the paths of results, which spell task, method and seed. Out: text.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from isohypse.config import Run, Task
from isohypse.config.settings import FigureSettings, TableSettings
from isohypse.errors import DataError
from isohypse.models.catalogue import label_of

Settings = FigureSettings | TableSettings

SOURCES = {
    "quasigeostrophic": "SYNTHETIC data (quasi-geostrophic model, not observations)",
    "ncep-r1": "NCEP/NCAR Reanalysis 1",
    "files": "The user's own files",
}
BASELINE_LABELS = {
    "persistence": "Persistence",
    "climatology": "Climatology",
    "damped_persistence": "Damped persistence",
    "ridge_var": "Ridge VAR",
}
DEFINITIONS = {
    "paper": "unweighted RMSE; ACC about the mean of the evaluation batch, uncentred, cos²-weighted",
    "standard": "area-weighted RMSE; ACC about the training climatology (as WeatherBench 2)",
}


@dataclass(frozen=True)
class Method:
    """A model in one flavour with one seed, or a baseline (no flavour, no seed)."""

    name: str
    flavour: str | None = None
    seed: int | None = None

    @classmethod
    def parse(cls, text: str) -> "Method":
        """`kda-small/seed0` or `persistence`."""
        architecture, _, seed = text.partition("/seed")
        name, _, flavour = architecture.partition("-")
        return cls(name, flavour or None, int(seed) if seed else None)

    @property
    def is_model(self) -> bool:
        return self.flavour is not None

    @property
    def label(self) -> str:
        return label_of(self.name) if self.is_model else BASELINE_LABELS.get(self.name, self.name)


def run_of(file: Path) -> Run:
    """The run whose folder holds `file`. Raises DataError if the path does not spell one."""
    parts = Path(file).parts[-6:-1]
    try:
        return Run.parse("/".join(parts))
    except ValueError as error:
        raise DataError(f"{file}: does not lie in the folder of a run: {error}") from None


def task_of(file: Path) -> Task:
    """The task whose folder holds `file`. Raises DataError if the path does not spell one."""
    try:
        return Task.parse("/".join(Path(file).parts[-4:-1]))
    except ValueError as error:
        raise DataError(f"{file}: does not lie in the folder of a task: {error}") from None


def method_of(file: Path) -> tuple[Task, Method]:
    """Task and method of a file in the evaluation folder of a run or of a baseline."""
    parts = Path(file).parts
    if len(parts) > 2 and parts[-2].startswith("seed"):
        run = run_of(file)
        return run.task, Method(run.model, run.flavour, run.seed)
    return task_of(Path(*parts[:-2], parts[-1])), Method(parts[-2])


def only_task(tasks: Iterable[Task], what: str) -> Task:
    """The one task of all inputs: two protocols, levels or horizons never share a figure."""
    distinct = sorted({str(task) for task in tasks})
    if len(distinct) != 1:
        raise DataError(f"{what}: needs the results of exactly one task, got {', '.join(distinct) or 'none'}")
    return Task.parse(distinct[0])


def data_line(settings: Settings) -> str:
    first, last = settings.years
    years = f"{first}" if first == last else f"{first}–{last}"
    return f"{SOURCES[settings.source]}, {'model years ' if settings.synthetic else ''}{years}"


def levels_text(levels_hpa: Iterable[int]) -> str:
    return ", ".join(map(str, levels_hpa)) + " hPa"


def task_line(task: Task) -> str:
    """Levels, input and horizon with their hours, protocol."""
    return (
        f"{levels_text(task.levels_hpa)} · {task.t_in} frames in ({6 * task.t_in} h), "
        f"{task.t_out} out (to {6 * task.t_out} h) · protocol “{task.protocol}”"
    )


def seeds_line(seeds: Iterable[int | None]) -> str:
    known = sorted({int(seed) for seed in seeds if seed is not None})
    if not known:
        return "no trained model"
    if len(known) == 1:
        return f"one seed ({known[0]})"
    return f"{len(known)} seeds ({', '.join(map(str, known))})"


def forecasts_line(samples: Iterable[int]) -> str:
    """How many forecasts are behind each number: "282 forecasts", or "282 to 300 forecasts"."""
    fewest, most = min(samples), max(samples)
    return f"{fewest:,} forecasts" if fewest == most else f"{fewest:,} to {most:,} forecasts"


def interval_line(confidence: float) -> str:
    return f"{100 * confidence:g} % confidence interval"


def with_flavours(methods: Iterable[Method]) -> dict[tuple[str, str | None], str]:
    """Label of each (name, flavour); the flavour is spelled out only if a model comes in several."""
    keys = list(dict.fromkeys((method.name, method.flavour) for method in methods))
    names = [name for name, _ in keys]
    return {
        (name, flavour): Method(name, flavour).label + (f" ({flavour})" if names.count(name) > 1 else "")
        for name, flavour in keys
    }
