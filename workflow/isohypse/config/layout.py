# SPDX-License-Identifier: Apache-2.0
"""Where every file of an experiment lies. The rules spell their outputs; what they collect is listed here."""

from glob import glob
from pathlib import Path
from typing import Any

from isohypse.config.experiment import Experiment, Run
from isohypse.config.settings import BASELINES
from isohypse.errors import ConfigurationError
from isohypse.models.catalogue import flavours_of


class Layout:
    """Paths as strings, as Snakemake wants them. Methods that take `wildcards` serve as input functions."""

    def __init__(self, experiment: Experiment):
        self.experiment = experiment
        self.results = f"{experiment.storage.results}/{experiment.study}"
        self.logs = f"logs/{experiment.study}"
        self.downloads = f"{experiment.storage.data}/ncep-r1"  # shared by all studies
        self.simulation = f"{self.results}/data/source"
        self.files = self._user_files() if experiment.source.kind == "files" else []

    def _user_files(self) -> list[str]:
        found = []
        for pattern in self.experiment.files.paths:
            matches = sorted(glob(str(Path(pattern).expanduser()), recursive=True))
            if not matches:
                raise ConfigurationError(f"files.paths: {pattern!r} matches no file and no folder")
            found += matches
        return found

    def year_inputs(self, wildcards: Any) -> list[str]:
        """What one year of the archive is made from."""
        if self.experiment.source.kind != "files":
            folder = self.simulation if self.experiment.synthetic else self.downloads
            return [f"{folder}/hgt.{wildcards.year}.nc"]
        return self.files

    def restart_before(self, wildcards: Any) -> list[str]:
        """The embedded model's state at the start of a year; the first year spins up instead."""
        year = int(wildcards.year)
        first = year == self.experiment.source.first_year
        return [] if first else [f"{self.simulation}/restart.{year - 1}.safetensors"]

    @property
    def archive(self) -> list[str]:
        """One store a year, named by the file that only a whole store has.

        As a folder, Snakemake would put a time stamp into it, of which zarr warns.
        """
        years = self.experiment.source.years
        return [f"{self.results}/data/archive/{year}.zarr/zarr.json" for year in years]

    @property
    def statistics(self) -> list[str]:
        return sorted(
            {f"{self.results}/data/{task.fields}/statistics.json" for task in self.experiment.tasks}
        )

    @property
    def climatologies(self) -> list[str]:
        return sorted({f"{self.results}/data/{task.fields}/climatology.nc" for task in self.experiment.tasks})

    def statistics_of(self, path: str) -> str:
        """Statistics for a task or a run, given as its folder."""
        return f"{self.results}/data/{_fields(path)}/statistics.json"

    def climatology_of(self, path: str) -> str:
        return f"{self.results}/data/{_fields(path)}/climatology.nc"

    def trainings(self, task: str | None = None) -> list[str]:
        """Folders of the runs, of one task or of all."""
        runs = [run for run in self.experiment.run_list if task in (None, str(run.task))]
        return [f"{self.results}/training/{run}" for run in runs]

    def initial_weights(self, wildcards: Any) -> list[str]:
        """The file that a run starts from, if it starts from one."""
        path = self.experiment.initial_weights(Run.parse(wildcards.run))
        return [] if path is None else [path]

    def metrics(self, wildcards: Any) -> list[str]:
        return [f"{folder}/metrics.csv" for folder in self.trainings(wildcards.task)]

    def run_records(self, wildcards: Any) -> list[str]:
        return [f"{folder}/run.json" for folder in self.trainings(wildcards.task)]

    @property
    def all_run_records(self) -> list[str]:
        return [f"{folder}/run.json" for folder in self.trainings()]

    def scores(self, wildcards: Any) -> list[str]:
        """Per-sample scores of every baseline and run of a task."""
        return [f"{folder}/scores.nc" for folder in self._evaluations(wildcards.task)]

    def examples(self, wildcards: Any) -> list[str]:
        """Example forecasts of each architecture of a task, from its first seed."""
        seed = self.experiment.runs.seeds[0]
        folders = self._evaluations(wildcards.task)
        return [f"{folder}/examples.nc" for folder in folders if folder.endswith(f"/seed{seed}")]

    def _evaluations(self, task: str) -> list[str]:
        baselines = [f"{self.results}/evaluation/{task}/{baseline}" for baseline in BASELINES]
        runs = [run for run in self.experiment.run_list if str(run.task) == task]
        return baselines + [f"{self.results}/evaluation/{run}" for run in runs]

    @property
    def score_tables(self) -> list[str]:
        return [f"{self.results}/evaluation/{task}/scores.csv" for task in self.experiment.tasks]

    @property
    def measurements(self) -> list[str]:
        scaling = self.experiment.scaling
        models = [m for m in self.experiment.runs.models if scaling.flavour in flavours_of(m)]
        return [
            f"{self.results}/scaling/{model}/T{length}.json" for model in models for length in scaling.lengths
        ]

    @property
    def publication(self) -> list[str]:
        """Every figure and table."""
        suffix = self.experiment.publication.format
        folder = f"{self.results}/publication"
        study_wide = [f"{folder}/figure6.{suffix}", f"{folder}/table2.html", f"{folder}/table3.html"]
        tasks = self.experiment.tasks
        figures = [f"{folder}/{task}/figure{n}.{suffix}" for task in tasks for n in (2, 3, 4, 5)]
        tables = [f"{folder}/{task}/table4.html" for task in tasks]
        statistics = sorted({f"{folder}/{task.fields}/table1.html" for task in tasks})
        return study_wide + statistics + figures + tables

    def summary(self) -> str:
        """One line for the start of a workflow: what will be run."""
        e = self.experiment
        years = f"{e.source.first_year}-{e.source.last_year}"
        data = f"{e.source.kind}{' (synthetic)' if e.synthetic else ''} {years}"
        work = f"{len(e.tasks)} tasks, {len(e.run_list)} trainings"
        return f"isohypse: study {e.study}: {data}, {work} -> {self.results}"


def _fields(path: str) -> str:
    """`500hPa/standard` of `in8-out4/500hPa/standard/...`."""
    return "/".join(path.split("/")[1:3])


def project_root() -> Path:
    """The folder of config.yaml when the library runs from a clone (editable install)."""
    return Path(__file__).resolve().parents[3]
