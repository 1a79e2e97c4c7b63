# SPDX-License-Identifier: Apache-2.0
"""A tiny archive of travelling waves (two Zarr stores), its statistics, and settings for a run on it."""

import signal
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from safetensors.torch import load_file

from isohypse.config.experiment import Run, Task
from isohypse.config.sections import Execution, Split, Training
from isohypse.config.settings import TrainSettings
from isohypse.data.archive import open_archive
from isohypse.data.statistics import statistics_of
from isohypse.data.windows import training_frames
from isohypse.storage import write_json
from isohypse.training import trainer as trainer_module
from isohypse.training.log import read_metrics
from isohypse.training.trainer import train

SPLIT = Split(train=(0.0, 0.7), validation=(0.7, 1.0), gap_frames=8)
LEVELS_HPA = (500, 300)
TIMED = "frames_per_second"
CPU = Execution(device="cpu", checkpoint_every=5, keep_checkpoints=2, tensorboard=False)


def waves(time: np.ndarray) -> xr.Dataset:
    """Heights of about 5,500 and 9,000 m with a wave that moves east, on 7 x 12 points."""
    latitude, longitude = np.linspace(90, -90, 7), np.arange(0, 360, 30.0)
    hours = (time - np.datetime64("2001-01-01")) / np.timedelta64(1, "h")
    speed = 0.1 * (1 + 0.5 * np.sin(np.deg2rad(latitude)))  # radians an hour
    phase = np.deg2rad(2 * longitude)[None, None, :] - (hours[:, None] * speed)[:, :, None]
    wave = 120 * np.cos(np.deg2rad(latitude))[None, :, None] * np.sin(phase)
    mean = 5500 + 200 * np.cos(np.deg2rad(latitude))[None, :, None]
    heights = np.stack([mean + wave, 3500 + mean + 1.5 * wave], axis=1).astype(np.float32)
    coords = {"time": time, "level": np.array(LEVELS_HPA, np.int32)}
    coords |= {"latitude": latitude, "longitude": longitude}
    dims = ("time", "level", "latitude", "longitude")
    return xr.Dataset({"geopotential_height": (dims, heights)}, coords, {"data_sha256": str(time[0])})


@dataclass
class Study:
    """Where the archive is, and what a run on it is called."""

    folder: Path
    stores: list[Path]

    def statistics(self, task: Task) -> Path:
        path = self.folder / task.fields / "statistics.json"
        if not path.exists():
            archive = open_archive(self.stores, task.levels_hpa)
            seen = training_frames(archive["time"].values, SPLIT, task.protocol)
            found = statistics_of(archive["geopotential_height"].isel(time=seen), task.protocol)
            write_json(path, {"statistics": found.to_json_dict()})
        return path

    def settings(self, *, protocol="standard", levels_hpa=(500,), model="transformer", **training):
        task = Task(t_in=4, t_out=2, levels_hpa=levels_hpa, protocol=protocol)
        run = Run(task=task, model=model, flavour="debug", seed=3)
        values = {"steps": 12, "batch_size": 6, "learning_rate": 3e-3, "warmup_steps": 2}
        values |= {"final_learning_rate_fraction": 0.1, "beta1": 0.9, "beta2": 0.95, "epsilon": 1e-8}
        values |= {"weight_decay": 0.1, "clip_norm": 1.0, "head_bias": "mean_frame"}
        values |= {"evaluate_every": 4, "evaluate_windows": 10} | training
        return TrainSettings(version=1, run=run, split=SPLIT, training=Training(**values))


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("study")
    stores = []
    for first, last in (("2001-12-01", "2002-01-01"), ("2002-01-01", "2002-01-21")):
        path = folder / f"{first[:4]}.zarr"
        time = np.arange(first, last, np.timedelta64(6, "h"), dtype="datetime64[ns]")
        waves(time).to_zarr(path, zarr_format=3, consolidated=False)
        stores.append(path)
    return Study(folder, stores)


class Kill(BaseException):
    """Stands for a kill between two steps: nothing may catch it."""


class Folders:
    """One training's places under `root`."""

    def __init__(self, root: Path, study: Study, settings):
        self.destination, self.work = root / "run", root / "work" / "run"
        self.study, self.settings = study, settings

    def train(self, settings=None, execution=CPU) -> None:
        settings = settings or self.settings
        statistics = self.study.statistics(settings.run.task)
        train(settings, self.study.stores, statistics, self.destination, self.work, execution, threads=1)

    def train_until(self, step: int, reason: BaseException | int, monkeypatch, execution=CPU) -> None:
        """Train; before `step` raise `reason`, or send this process the signal `reason`."""

        def advance(self: trainer_module.Step, number: int) -> None:
            if number == step and isinstance(reason, BaseException):
                raise reason
            if number == step:
                signal.raise_signal(reason)
            original(self, number)

        original = trainer_module.Step.advance
        with monkeypatch.context() as patch:
            patch.setattr(trainer_module.Step, "advance", advance)
            self.train(execution=execution)

    def weights(self) -> dict[str, torch.Tensor]:
        return load_file(self.destination / "weights.safetensors")

    def rows(self) -> list:
        return [row for row in read_metrics(self.destination / "metrics.csv") if row[2] != TIMED]


@pytest.fixture
def folders(tmp_path, study):
    def make(name: str = "a", **changes) -> Folders:
        return Folders(tmp_path / name, study, study.settings(**changes))

    return make


@pytest.fixture(scope="session")
def finished(study, tmp_path_factory) -> Folders:
    """An uninterrupted training."""
    made = Folders(tmp_path_factory.mktemp("finished"), study, study.settings())
    made.train()
    return made


def assert_equal_results(found: Folders, wanted: Folders) -> None:
    ours, theirs = found.weights(), wanted.weights()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert found.rows() == wanted.rows()
