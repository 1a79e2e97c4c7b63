# SPDX-License-Identifier: Apache-2.0
"""The typed experiment: all sections, the checks across them, and the grid of runs they expand to.

A *task* is what is to be forecast: input and output frames, levels, protocol. A *run* is one training:
a model in one flavour on one task with one seed. Both spell themselves as the folder they own, so every
path of a result says what it is.
"""

import re
from itertools import product
from typing import Any

from pydantic import field_validator, model_validator

from isohypse.config.assessment import Climatology, Evaluation, Publication, RidgeVar, Scaling
from isohypse.config.base import Level, NotNegative, Positive, Section
from isohypse.config.sections import (
    FIRST_ANALYSED_YEAR,
    NCEP_LEVELS_HPA,
    Archive,
    Bound,
    Execution,
    Files,
    Grid,
    NcepR1,
    ProtocolName,
    Quasigeostrophic,
    Runs,
    Source,
    Splits,
    Storage,
    Training,
)
from isohypse.models.catalogue import MODELS, flavours_of

FIELDS_PATTERN = r"\d+(?:\+\d+)*hPa/(?:paper|standard)"
TASK_PATTERN = r"in\d+-out\d+/" + FIELDS_PATTERN
RUN_PATTERN = TASK_PATTERN + r"/[a-z0-9_]+-[a-z]+/seed\d+"


class Task(Section):
    """A forecasting task. `str(task)` is its folder, e.g. `in8-out4/500hPa/standard`."""

    t_in: Positive
    t_out: Positive
    levels_hpa: tuple[Level, ...]
    protocol: ProtocolName

    @property
    def fields(self) -> str:
        """The levels and the protocol: what statistics and climatology depend on, e.g. `500hPa/standard`."""
        return f"{'+'.join(map(str, self.levels_hpa))}hPa/{self.protocol}"

    def __str__(self) -> str:
        return f"in{self.t_in}-out{self.t_out}/{self.fields}"

    @classmethod
    def parse(cls, path: str) -> "Task":
        """The inverse of `str(task)`. Raises ValueError for anything else."""
        found = re.fullmatch(r"in(\d+)-out(\d+)/(\d+(?:\+\d+)*)hPa/(paper|standard)", path)
        if found is None:
            raise ValueError(f"{path!r} is not a task such as in8-out4/500hPa/standard")
        t_in, t_out, levels, protocol = found.groups()
        return cls(t_in=t_in, t_out=t_out, levels_hpa=tuple(levels.split("+")), protocol=protocol)


class Run(Section):
    """One training. `str(run)` is its folder, e.g. `in8-out4/500hPa/standard/kda-small/seed0`."""

    task: Task
    model: str
    flavour: str
    seed: NotNegative

    def __str__(self) -> str:
        return f"{self.task}/{self.model}-{self.flavour}/seed{self.seed}"

    @classmethod
    def parse(cls, path: str) -> "Run":
        """The inverse of `str(run)`. Raises ValueError for anything else."""
        found = re.fullmatch(rf"({TASK_PATTERN})/([a-z0-9_]+)-([a-z]+)/seed(\d+)", path)
        if found is None:
            raise ValueError(f"{path!r} is not a run such as in8-out4/500hPa/standard/kda-small/seed0")
        task, model, flavour, seed = found.groups()
        return cls(task=Task.parse(task), model=model, flavour=flavour, seed=seed)


class Experiment(Section):
    """The whole configuration. `study` names the folder of its results."""

    study: str
    storage: Storage
    source: Source
    ncep_r1: NcepR1
    quasigeostrophic: Quasigeostrophic
    files: Files
    archive: Archive
    grid: Grid
    splits: Splits
    runs: Runs
    training: Training
    execution: Execution
    climatology: Climatology
    ridge_var: RidgeVar
    evaluation: Evaluation
    scaling: Scaling
    publication: Publication

    @property
    def tasks(self) -> list[Task]:
        grid = product(self.runs.t_in, self.runs.t_out, self.runs.levels_hpa, self.runs.protocols)
        return [
            Task(t_in=t_in, t_out=t_out, levels_hpa=levels, protocol=protocol)
            for t_in, t_out, levels, protocol in grid
        ]

    @property
    def architectures(self) -> list[tuple[str, str]]:
        """(model, flavour) of every run; a flavour that a model does not come in is left out for it."""
        pairs = product(self.runs.models, self.runs.flavours)
        return [(model, flavour) for model, flavour in pairs if flavour in flavours_of(model)]

    @property
    def run_list(self) -> list[Run]:
        grid = product(self.tasks, self.architectures, self.runs.seeds)
        return [
            Run(task=task, model=model, flavour=flavour, seed=seed) for task, (model, flavour), seed in grid
        ]

    def initial_weights(self, run: Run) -> str | None:
        """The file that `run` takes its backbone's first weights from; None: drawn from its seed."""
        return self.runs.initial_weights.get(f"{run.model}-{run.flavour}")

    @property
    def synthetic(self) -> bool:
        return self.source.kind == "quasigeostrophic"

    @property
    def source_levels_hpa(self) -> tuple[int, ...]:
        """Levels that the source offers, hPa. Only the user's own files can tell theirs later."""
        return self.quasigeostrophic.levels_hpa if self.synthetic else NCEP_LEVELS_HPA

    @field_validator("study")
    @classmethod
    def _study_is_a_folder_name(cls, study: str) -> str:
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", study):
            raise ValueError(f"{study!r} is no folder name: lower-case letters, digits, '-' and '_'")
        return study

    @model_validator(mode="after")
    def _models_exist(self) -> "Experiment":
        for model in self.runs.models:
            if model not in MODELS:
                raise ValueError(f"runs.models: {model!r} is unknown; there are {_listed(MODELS)}")
            if not set(self.runs.flavours) & set(flavours_of(model)):
                wanted, have = _listed(self.runs.flavours), _listed(flavours_of(model))
                raise ValueError(f"runs.flavours: {model} comes as {have}; {wanted} is none of these")
        return self

    @model_validator(mode="after")
    def _initial_weights_are_of_runs(self) -> "Experiment":
        known = [f"{model}-{flavour}" for model, flavour in self.architectures]
        for name in self.runs.initial_weights:
            if name not in known:
                raise ValueError(f"runs.initial_weights: {name!r} is not trained here; {_listed(known)} are")
        return self

    @model_validator(mode="after")
    def _levels_exist(self) -> "Experiment":
        stored = self.archive.levels_hpa
        for level in stored if self.source.kind != "files" else ():
            if level not in self.source_levels_hpa:
                have = _listed(self.source_levels_hpa)
                raise ValueError(f"archive.levels_hpa: the source has no {level} hPa; there are {have}")
        for level in {level for levels in self.runs.levels_hpa for level in levels}:
            if level not in stored:
                raise ValueError(
                    f"runs.levels_hpa: {level} hPa is not archived; name it in archive.levels_hpa, too, "
                    f"which has {_listed(stored)}"
                )
        return self

    @model_validator(mode="after")
    def _early_years_are_wanted(self) -> "Experiment":
        early = self.source.kind == "ncep-r1" and self.source.first_year < FIRST_ANALYSED_YEAR
        if early and self.ncep_r1.early_years == "refuse":
            raise ValueError(
                f"ncep_r1.early_years: refuse, but source.first_year is {self.source.first_year}; the fields "
                f"before {FIRST_ANALYSED_YEAR} are short forecasts; start later or set keep"
            )
        return self

    @model_validator(mode="after")
    def _gap_separates(self) -> "Experiment":
        needed = max(self.runs.t_in) + max(self.runs.t_out)
        gap = self.splits.standard.gap_frames
        if "standard" in self.runs.protocols and gap < needed:
            raise ValueError(
                f"splits.standard.gap_frames: {gap} frames do not separate the splits; at least {needed} "
                "(t_in + t_out) are needed"
            )
        return self

    @model_validator(mode="after")
    def _splits_lie_in_the_period(self) -> "Experiment":
        for protocol in self.runs.protocols:
            for name, bounds in self.splits.of(protocol).ranges.items():
                for bound in bounds:
                    self._check_bound(f"splits.{protocol}.{name}", bound)
        return self

    def _check_bound(self, key: str, bound: Bound) -> None:
        if isinstance(bound, float):
            return
        first, last = self.source.first_year, self.source.last_year
        if not (first <= bound.year <= last or (bound.year == last + 1 and bound.timetuple().tm_yday == 1)):
            raise ValueError(f"{key}: {bound} lies outside the source's years {first} to {last}")

    @model_validator(mode="after")
    def _grid_divides(self) -> "Experiment":
        if self.source.kind != "files" and 72 % self.grid.stride:
            raise ValueError(
                f"grid.stride: {self.grid.stride} does not divide the 2.5 degree grid; "
                f"use one of {_listed(s for s in range(1, 13) if 72 % s == 0)}"
            )
        return self

    @model_validator(mode="after")
    def _scaling_flavour_exists(self) -> "Experiment":
        known = {flavour for model in self.runs.models for flavour in flavours_of(model)}
        if self.scaling.flavour not in known:
            raise ValueError(
                f"scaling.flavour: {self.scaling.flavour!r} is unknown; there are {_listed(sorted(known))}"
            )
        return self

    @model_validator(mode="after")
    def _files_are_named(self) -> "Experiment":
        if self.source.kind == "files" and not self.files.paths:
            raise ValueError("files.paths: the source `files` needs at least one path")
        return self


def _listed(values: Any) -> str:
    return ", ".join(map(str, values))
