# SPDX-License-Identifier: Apache-2.0
"""The sections of the configuration up to training: every key, its type, its bounds, its unit.

Reads and writes nothing. `config.yaml` explains each key to the user; here stands what may be in it.
Unknown keys are refused at every depth and nothing can be changed once it has been read.
"""

from datetime import date
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from isohypse.config.base import Level, NotNegative, Positive, Section, distinct

NCEP_LEVELS_HPA = (1000, 925, 850, 700, 600, 500, 400, 300, 250, 200, 150, 100, 70, 50, 30, 20, 10)
FIRST_NCEP_YEAR, LAST_NCEP_YEAR = 1948, 2026
FIRST_ANALYSED_YEAR = 1958  # before it the fields at 00/06/12/18 UTC are short forecasts

SourceKind = Literal["ncep-r1", "quasigeostrophic", "files"]
ProtocolName = Literal["paper", "standard"]


class Storage(Section):
    """Folders, relative to where Snakemake runs."""

    data: Annotated[str, Field(min_length=1)] = "data"
    results: Annotated[str, Field(min_length=1)] = "results"


class Source(Section):
    """Where heights come from and which calendar years (both included) are used."""

    kind: SourceKind
    first_year: Annotated[int, Field(ge=1678, le=2261)]
    last_year: Annotated[int, Field(ge=1678, le=2261)]

    @property
    def years(self) -> tuple[int, ...]:
        return tuple(range(self.first_year, self.last_year + 1))

    @model_validator(mode="after")
    def _years_in_order(self) -> "Source":
        if self.last_year < self.first_year:
            raise ValueError(
                f"the year range is empty: first_year {self.first_year} > last_year {self.last_year}"
            )
        if self.kind == "ncep-r1" and self.first_year < FIRST_NCEP_YEAR:
            raise ValueError(f"first_year {self.first_year}: the reanalysis starts in {FIRST_NCEP_YEAR}")
        if self.kind == "ncep-r1" and self.last_year > LAST_NCEP_YEAR:
            raise ValueError(f"last_year {self.last_year}: the reanalysis ended in {LAST_NCEP_YEAR}")
        return self


class NcepR1(Section):
    """NOAA PSL's yearly files `hgt.YYYY.nc`."""

    urls: Annotated[tuple[str, ...], Field(min_length=1)]
    attempts: Positive = 6
    timeout_seconds: Annotated[float, Field(gt=0)] = 60.0
    early_years: Literal["keep", "refuse"] = "keep"


class Quasigeostrophic(Section):
    """The embedded three-level quasi-geostrophic model."""

    truncation: Literal[21, 31] = 21
    seed: NotNegative = 0
    spin_up_days: Positive = 200
    noise_m: Annotated[float, Field(ge=0)] = 3.0
    tides: bool = True
    levels_hpa: Annotated[tuple[Level, ...], Field(min_length=1)] = NCEP_LEVELS_HPA

    @field_validator("levels_hpa")
    @classmethod
    def _levels_exist(cls, levels: tuple[int, ...]) -> tuple[int, ...]:
        for level in levels:
            if level not in NCEP_LEVELS_HPA:
                raise ValueError(
                    f"{level} hPa does not exist; there are {', '.join(map(str, NCEP_LEVELS_HPA))}"
                )
        return distinct(levels)


class Files(Section):
    """The user's own netCDF or Zarr; None for a name means: find it by its CF attributes, then by habit."""

    paths: tuple[str, ...] = ()
    variable: str | None = None
    time: str | None = None
    level: str | None = None
    latitude: str | None = None
    longitude: str | None = None
    units: Literal["m", "dam", "m2 s-2"] | None = None
    level_hpa: Level | None = None


class Archive(Section):
    """What the Zarr archive stores."""

    levels_hpa: Annotated[tuple[Level, ...], Field(min_length=1)]

    @field_validator("levels_hpa")
    @classmethod
    def _each_once(cls, levels: tuple[int, ...]) -> tuple[int, ...]:
        return distinct(levels)


class Grid(Section):
    """Horizontal grid: every `stride`-th point of the source in both directions."""

    stride: Positive = 1


Bound = date | Annotated[float, Field(ge=0, le=1)]


class Split(Section):
    """Half-open ranges of valid time: dates, or fractions of the whole period."""

    train: tuple[Bound, Bound]
    validation: tuple[Bound, Bound] | None = None
    test: tuple[Bound, Bound] | None = None
    gap_frames: NotNegative = 0

    @property
    def ranges(self) -> dict[str, tuple[Bound, Bound]]:
        named = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: bounds for name, bounds in named.items() if bounds is not None}

    def only(self, *names: str) -> "Split":
        """What a stage sees that looks at some of the ranges: moving another one changes nothing for it."""
        hidden = {name: None for name in ("validation", "test") if name not in names}
        return self.model_copy(update=hidden | ({} if "validation" in names else {"gap_frames": 0}))

    @model_validator(mode="after")
    def _disjoint_and_in_order(self) -> "Split":
        if len({isinstance(bound, date) for bounds in self.ranges.values() for bound in bounds}) > 1:
            raise ValueError("dates and fractions are mixed: use one kind for all ranges")
        for name, (start, stop) in self.ranges.items():
            if start >= stop:
                raise ValueError(f"{name} is empty: [{start}, {stop})")
        ordered = list(self.ranges.items())
        for (before, (_, stop)), (after, (start, _)) in pairwise(ordered):
            if start < stop:
                raise ValueError(f"{before} and {after} overlap: {after} starts at {start}, before {stop}")
        return self


class Splits(Section):
    """One split for each protocol."""

    paper: Split
    standard: Split

    @field_validator("paper", "standard")
    @classmethod
    def _validated(cls, split: Split) -> Split:
        if split.validation is None:
            raise ValueError("validation is missing: trainings are evaluated on it")
        return split

    def of(self, protocol: ProtocolName) -> Split:
        return self.paper if protocol == "paper" else self.standard


class Runs(Section):
    """The grid of trainings: one run for each combination."""

    models: Annotated[tuple[str, ...], Field(min_length=1)]
    flavours: Annotated[tuple[str, ...], Field(min_length=1)]
    protocols: Annotated[tuple[ProtocolName, ...], Field(min_length=1)]
    t_in: Annotated[tuple[Positive, ...], Field(min_length=1)]
    t_out: Annotated[tuple[Positive, ...], Field(min_length=1)]
    levels_hpa: Annotated[tuple[tuple[Level, ...], ...], Field(min_length=1)]
    seeds: Annotated[tuple[NotNegative, ...], Field(min_length=1)]
    initial_weights: dict[str, str]
    """`kda-paper` -> a safetensors file that `isohypse export` or flash-linear-attention has written."""

    @field_validator("models", "flavours", "protocols", "t_in", "t_out", "levels_hpa", "seeds")
    @classmethod
    def _each_once(cls, values: tuple) -> tuple:
        return distinct(values)

    @field_validator("levels_hpa")
    @classmethod
    def _levels_named(cls, combinations: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
        for levels in combinations:
            if not levels:
                raise ValueError("a run needs at least one level")
            distinct(levels)
        distinct(tuple(tuple(sorted(levels)) for levels in combinations))
        return combinations


class Training(Section):
    """What changes the trained weights (Table 3 of the paper)."""

    steps: Positive
    batch_size: Positive
    learning_rate: Annotated[float, Field(gt=0)]
    warmup_steps: NotNegative
    schedule_steps: Positive | None = None
    final_learning_rate_fraction: Annotated[float, Field(ge=0, le=1)]
    beta1: Annotated[float, Field(ge=0, lt=1)]
    beta2: Annotated[float, Field(ge=0, lt=1)]
    epsilon: Annotated[float, Field(gt=0)]
    weight_decay: Annotated[float, Field(ge=0)]
    clip_norm: Annotated[float, Field(gt=0)]
    head_bias: Literal["zero", "mean_frame"]
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    kernel: Literal["auto", "recurrent", "closed", "chunkwise"] = "auto"
    not_finite: Literal["stop", "skip"] = "stop"
    stretch_windows: Positive = 1
    """How many consecutive windows each place of a batch draws, a window a step, before it goes elsewhere."""
    evaluate_every: Positive = 20
    evaluate_windows: Positive = 256

    @model_validator(mode="after")
    def _schedule_fits(self) -> "Training":
        horizon = self.schedule_steps or self.steps
        if self.warmup_steps >= horizon:
            raise ValueError(f"warmup_steps {self.warmup_steps} is not below the schedule's {horizon} steps")
        return self


class Execution(Section):
    """How a stage runs. Nothing here changes a result, so that changing it reruns nothing."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    step: Literal["auto", "eager"] = "auto"
    """auto: on a GPU compiled and as one CUDA graph, which rounds otherwise than operator by operator."""
    nodes: Positive = 1
    gpus_per_node: Positive = 1
    parallel: Literal["replicate", "fsdp", "hsdp"] = "replicate"
    tensor_parallel: Positive = 1
    micro_batch: Positive | None = None
    activation_checkpointing: bool = False
    checkpoint_every: Positive = 500
    keep_checkpoints: Positive = 2
    walltime_margin_seconds: NotNegative = 120
    tensorboard: bool = True

    @property
    def processes(self) -> int:
        return self.nodes * self.gpus_per_node
