# SPDX-License-Identifier: Apache-2.0
"""What each stage depends on, and nothing else.

A rule hands its stage one of these objects as JSON, in `params:`. It is at once the stage's whole
configuration and Snakemake's reason to rerun it, so the two cannot drift apart: a value that a stage
never sees cannot change its result, and a value that it sees cannot change unnoticed.

`version` counts changes of a stage's code that change its results. Raise it together with such a change
and every study reruns that stage and what follows; leave it when a comment or a log line changes.
"""

import functools
import hashlib
import json
from typing import ClassVar

from pydantic import SerializerFunctionWrapHandler, ValidationError, model_serializer

from isohypse.config.assessment import Evaluation, Publication, RidgeVar
from isohypse.config.base import Section
from isohypse.config.experiment import Experiment, Run, Task
from isohypse.config.sections import Files, ProtocolName, Quasigeostrophic, SourceKind, Split, Training
from isohypse.errors import ConfigurationError
from isohypse.storage import sha256

VERSIONS = {
    "download": 1,
    "simulate": 2,
    "archive": 2,
    "statistics": 1,
    "climatology": 1,
    "train": 1,
    "baseline": 1,
    "model": 1,
    "scores": 1,
    "measure": 1,
    "costs": 1,
    "figure": 2,
    "table": 2,
}


class StageSettings(Section):
    """Base: `version` is the stage's code version, `digest` identifies the settings in provenance."""

    stage: ClassVar[str]
    version: int

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces, so that equal settings are equal strings."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "StageSettings":
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            problem = error.errors()[0]
            key = ".".join(map(str, problem["loc"]))
            said = ": ".join(filter(None, (key, problem["msg"])))
            raise ConfigurationError(f"--settings of stage {cls.stage}: {said}") from None


class DownloadSettings(StageSettings):
    """Nothing: which mirror a file comes from does not change it."""

    stage = "download"


class SimulateSettings(StageSettings):
    stage = "simulate"
    first_year: int
    quasigeostrophic: Quasigeostrophic


class ArchiveSettings(StageSettings):
    stage = "archive"
    kind: SourceKind
    files: Files | None = None
    levels_hpa: tuple[int, ...]
    stride: int


class StatisticsSettings(StageSettings):
    stage = "statistics"
    levels_hpa: tuple[int, ...]
    protocol: ProtocolName
    split: Split


class ClimatologySettings(StageSettings):
    stage = "climatology"
    levels_hpa: tuple[int, ...]
    protocol: ProtocolName
    split: Split
    window_days: int


class TrainSettings(StageSettings):
    stage = "train"
    run: Run
    split: Split
    training: Training
    initial_weights: str | None = None
    """SHA-256 of the file with the backbone's first weights.

    Absent from the JSON if there is none, as is `stretch_windows` where all windows are mixed: so settings
    are those from before they could be set.
    """

    @model_serializer(mode="wrap")
    def _without_absent(self, serialize: SerializerFunctionWrapHandler) -> dict:
        values = serialize(self)
        if not self.initial_weights:
            del values["initial_weights"]
        if self.training.stretch_windows == 1:
            del values["training"]["stretch_windows"]
        return values


class BaselineSettings(StageSettings):
    stage = "baseline"
    task: Task
    split: Split
    baseline: str
    evaluation: Evaluation
    ridge_var: RidgeVar | None = None


class ModelSettings(StageSettings):
    stage = "model"
    run: Run
    split: Split
    evaluation: Evaluation


class ScoresSettings(StageSettings):
    stage = "scores"
    task: Task
    confidence: float


class MeasureSettings(StageSettings):
    stage = "measure"
    model: str
    flavour: str
    length: int
    latitudes: int
    longitudes: int
    kernel: str
    precision: str
    batch_size: int
    repeats: int


class CostsSettings(StageSettings):
    stage = "costs"


class PublicationSettings(StageSettings):
    """What a figure or table says about its data."""

    study: str
    synthetic: bool
    source: SourceKind
    years: tuple[int, int]
    stride: int = 1


class FigureSettings(PublicationSettings):
    stage = "figure"
    publication: Publication


class TableSettings(PublicationSettings):
    stage = "table"
    confidence: float


BASELINES = ("persistence", "climatology", "damped_persistence", "ridge_var")


class StageBook:
    """The settings of every job of one experiment, as the JSON strings that the rules pass on."""

    def __init__(self, experiment: Experiment):
        self.experiment = experiment

    def download(self) -> str:
        return self._json(DownloadSettings)

    def simulate(self) -> str:
        e = self.experiment
        return self._json(
            SimulateSettings, first_year=e.source.first_year, quasigeostrophic=e.quasigeostrophic
        )

    def archive(self) -> str:
        e = self.experiment
        files = e.files if e.source.kind == "files" else None
        levels, stride = e.archive.levels_hpa, e.grid.stride
        return self._json(ArchiveSettings, kind=e.source.kind, files=files, levels_hpa=levels, stride=stride)

    def statistics(self, fields: str) -> str:
        return self._json(StatisticsSettings, **self._fields(fields))

    def climatology(self, fields: str) -> str:
        window = self.experiment.climatology.window_days
        return self._json(ClimatologySettings, **self._fields(fields), window_days=window)

    def train(self, run: str) -> str:
        seen = self._run(run)
        seen["split"] = seen["split"].only("train", "validation")
        path = self.experiment.initial_weights(seen["run"])
        if path is not None:
            seen["initial_weights"] = _digest(path)
        return self._json(TrainSettings, **seen, training=self.experiment.training)

    def baseline(self, task: str, baseline: str) -> str:
        e = self.experiment
        fitted = {"ridge_var": e.ridge_var} if baseline == "ridge_var" else {}
        return self._json(
            BaselineSettings, **self._task(task), baseline=baseline, evaluation=e.evaluation, **fitted
        )

    def model(self, run: str) -> str:
        return self._json(ModelSettings, **self._run(run), evaluation=self.experiment.evaluation)

    def scores(self, task: str) -> str:
        return self._json(
            ScoresSettings, task=Task.parse(task), confidence=self.experiment.publication.confidence
        )

    def measure(self, model: str, length: str) -> str:
        e = self.experiment
        return self._json(
            MeasureSettings,
            model=model,
            flavour=e.scaling.flavour,
            length=length,
            latitudes=72 // e.grid.stride + 1,
            longitudes=144 // e.grid.stride,
            kernel=e.training.kernel,
            precision=e.training.precision,
            batch_size=e.scaling.batch_size,
            repeats=e.scaling.repeats,
        )

    def costs(self) -> str:
        return self._json(CostsSettings)

    def figure(self) -> str:
        return self._json(FigureSettings, **self._label(), publication=self.experiment.publication)

    def table(self) -> str:
        confidence = self.experiment.publication.confidence
        return self._json(TableSettings, **self._label(), confidence=confidence)

    def _json(self, settings: type[StageSettings], /, **values: object) -> str:
        return settings(version=VERSIONS[settings.stage], **values).to_json()

    def _fields(self, path: str) -> dict:
        levels, protocol = path.split("hPa/")
        split = self.experiment.splits.of(protocol).only("train")
        return {"levels_hpa": levels.split("+"), "protocol": protocol, "split": split}

    def _task(self, path: str) -> dict:
        task = Task.parse(path)
        return {"task": task, "split": self.experiment.splits.of(task.protocol)}

    def _run(self, path: str) -> dict:
        run = Run.parse(path)
        return {"run": run, "split": self.experiment.splits.of(run.task.protocol)}

    def _label(self) -> dict:
        e = self.experiment
        years = (e.source.first_year, e.source.last_year)
        label = {"study": e.study, "synthetic": e.synthetic, "source": e.source.kind}
        return label | {"years": years, "stride": e.grid.stride}


@functools.cache  # asked for each run and seed
def _digest(path: str) -> str:
    try:
        return sha256(path)
    except OSError as error:
        raise ConfigurationError(f"runs.initial_weights: {path}: {error.strerror}") from None
