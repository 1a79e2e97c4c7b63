# SPDX-License-Identifier: Apache-2.0
"""The paper's own numbers, where each comes from, and when they may stand beside ours.

V. Sastry and V. Rao, "Comparative study of Linear Attention Architectures for Geopotential Height
Forecasting". Its text states 500 hPa; its published code selects level index 7, which is 300 hPa, and the
errors in its Fig. 5 fit 300 hPa. Reads and writes nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from isohypse.config import Task
from isohypse.publication.labels import Settings

YEARS = (1948, 2024)
STEPS = 5000
T_IN = 8
GRID = (73, 144)
STATED_LEVEL_HPA = 500
CODE_LEVEL_HPA = 300
LEVEL_NOTE = (
    "The paper states 500 hPa; its published code reads 300 hPa, and the errors in its Fig. 5 fit 300 hPa."
)


@dataclass(frozen=True)
class Heights:
    """Statistics over the grid, unweighted, metres; None where not given."""

    mean: float
    std: float
    minimum: float | None
    maximum: float | None
    origin: str


@dataclass(frozen=True)
class Shape:
    """One row of Table 2; Mamba2 has no heads of its own to state."""

    layers: int
    hidden: int
    heads: int | None
    head_dim: int


@dataclass(frozen=True)
class Results:
    """One row of Table 4: step 5,000, one frame (6 h) ahead; errors in normalised units."""

    train_rmse: float
    validation_loss: float
    validation_acc: float
    tokens_per_second: int
    tflops: float
    memory_gib: float


@dataclass(frozen=True)
class Set:
    """A value of Table 3, or of the code where the text is silent; None: neither tells."""

    value: object
    origin: str = "Table 3"


TABLE_1 = {
    500: Heights(5509.7, 343.3, 4369.0, 6063.0, "Table 1"),
    300: Heights(9111.0, 520.4, None, None, "published code"),
}
TABLE_2 = {
    "transformer": Shape(24, 1024, 16, 64),
    "gla": Shape(24, 1024, 4, 256),
    "gated_deltanet": Shape(21, 1024, 6, 256),
    "deltanet": Shape(24, 1024, 8, 128),
    "mamba2": Shape(48, 1024, None, 64),
    "kda": Shape(21, 1024, 6, 256),
}
TABLE_3 = {
    "steps": Set(STEPS),
    "batch_size": Set(256),
    "learning_rate": Set(3e-4),
    "warmup_steps": Set(1024),
    "schedule_steps": Set(22_000, "published code"),
    "final_learning_rate_fraction": Set(0.1, "published code"),
    "beta1": Set(0.9),
    "beta2": Set(0.999),
    "epsilon": Set(1e-15),
    "weight_decay": Set(0.1, "published code"),
    "clip_norm": Set(1.0),
    "precision": Set("bf16"),
    "evaluate_every": Set(20),
    "evaluate_windows": Set(256),
}
TABLE_4 = {
    "transformer": Results(4.4e-2, 6.3e-3, 0.879579, 31_980, 95.19, 4.28),
    "gla": Results(4.1e-2, 3.550e-3, 0.920441, 31_213, 93.02, 4.26),
    "gated_deltanet": Results(3.6e-2, 4.2e-3, 0.911715, 29_313, 109.32, 5.91),
    "deltanet": Results(3.8e-2, 3.559e-3, 0.920416, 31_875, 94.97, 4.31),
    "mamba2": Results(3.6e-2, 4.8e-3, 0.903341, 30_261, 109.89, 4.38),
    "kda": Results(3.7e-2, 3.8e-3, 0.920187, 26_247, 98.74, 5.92),
}
FIGURE_5_RMSE_M = {
    ("persistence", 6): 31.6,
    ("persistence", 24): 85.3,
    ("gla", 24): 59.2,
    ("transformer", 24): 66.6,
}
"""(method, lead in hours) -> metres, where the text gives a number; no point is read off the figure."""

COST_NOTE = (
    "not comparable: its tokens/s count grid values in Table 4 and language-model tokens, not frames, in "
    "Fig. 6, on each A100-40GB"
)


def data_reasons(settings: Settings) -> list[str]:
    """Why the data are not the paper's; empty if they are."""
    if settings.synthetic:
        return ["the data are synthetic"]
    if settings.source != "ncep-r1":
        return ["the data are not NCEP/NCAR Reanalysis 1"]
    if tuple(settings.years) != YEARS:
        first, last = settings.years
        return [f"the years are {first}–{last}, the paper's {YEARS[0]}–{YEARS[1]}"]
    if settings.stride != 1:
        return [f"the grid is the paper's thinned by {settings.stride}"]
    return []


def result_reasons(settings: Settings, task: Task, t_out: int, levels_hpa: Iterable[int]) -> list[str]:
    """Why results on `task` cannot stand beside a number of the paper at `t_out` and `levels_hpa`."""
    reasons = data_reasons(settings)
    if task.protocol != "paper":
        reasons.append(f"the protocol is “{task.protocol}”, not “paper”")
    allowed = tuple(levels_hpa)
    if len(task.levels_hpa) != 1 or task.levels_hpa[0] not in allowed:
        ours = " and ".join(map(str, task.levels_hpa))
        reasons.append(f"the level is {ours} hPa, the paper's {' or '.join(map(str, allowed))} hPa")
    if (task.t_in, task.t_out) != (T_IN, t_out):
        reasons.append(f"frames in and out are {task.t_in} and {task.t_out}, the paper's {T_IN} and {t_out}")
    return reasons


def grid_reasons(grid: tuple[int, int]) -> list[str]:
    """Why a grid of (latitudes, longitudes) is not the paper's."""
    ours, theirs = (" × ".join(map(str, size)) for size in (grid, GRID))
    return [] if grid == GRID else [f"the grid is {ours}, the paper's {theirs}"]


def flavour_reasons(flavour: str, steps: int | None = None) -> list[str]:
    """Why a model of `flavour` after `steps` optimizer steps is not the paper's model."""
    reasons = [] if flavour == "paper" else [f"the flavour is “{flavour}”, not “paper”"]
    if steps is not None and steps != STEPS:
        reasons.append(f"the models were trained for {steps:,} steps, the paper's for {STEPS:,}")
    return reasons


def not_comparable(reasons: Iterable[str]) -> str:
    """`not comparable: <reason>; <reason>`, each reason once."""
    return "not comparable: " + "; ".join(dict.fromkeys(reasons))
