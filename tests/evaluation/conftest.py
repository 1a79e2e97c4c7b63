# SPDX-License-Identifier: Apache-2.0
"""Small archives of known statistics, and the cases made of them."""

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

from isohypse.data.climatology import Climatology
from isohypse.data.windows import Windows
from isohypse.evaluation.cases import Cases

LATITUDE = np.array([80.0, 40.0, 0.0, -40.0, -80.0])
LONGITUDE = np.arange(0.0, 360.0, 60.0)
LEVELS_HPA = (500, 300)
SHAPE = (len(LATITUDE), len(LONGITUDE))


def _dataset(anomalies: np.ndarray, mean: float = 5500.0) -> xr.Dataset:
    """The archive's dataset of `mean` + anomalies [time, level, latitude, longitude]."""
    count, levels = anomalies.shape[:2]
    time = np.datetime64("2001-01-01T00", "ns") + np.arange(count) * np.timedelta64(6, "h")
    dims = ("time", "level", "latitude", "longitude")
    heights = (dims, (mean + anomalies).astype(np.float32))
    level = np.array(LEVELS_HPA[:levels], np.int32)
    coords = {"time": time, "level": level, "latitude": LATITUDE, "longitude": LONGITUDE}
    attrs = {"synthetic": 1, "data_sha256": "0" * 64, "source_kind": "quasigeostrophic"}
    return xr.Dataset({"geopotential_height": heights}, coords, attrs)


def _constant_climatology(levels: int, mean: float = 5500.0) -> Climatology:
    heights = np.full((1, 1, levels, *SHAPE), mean, np.float32)
    return Climatology(heights, LEVELS_HPA[:levels], LATITUDE, LONGITUDE, "constant")


def _cases(anomalies: np.ndarray, training: int, t_in: int = 3, t_out: int = 2) -> Cases:
    """The first `training` frames train; every window of the rest is scored."""
    dataset = _dataset(anomalies)
    length = t_in + t_out
    train = Windows(np.arange(training - length + 1), t_in, t_out)
    scored = Windows(np.arange(training, len(anomalies) - length + 1), t_in, t_out)
    windows = {"train": train, "validation": scored}
    return Cases(dataset, windows, scored, _constant_climatology(anomalies.shape[1]))


def _red_noise(frames: int, autocorrelation: np.ndarray, seed: int, size_m: float = 100.0) -> np.ndarray:
    """AR(1) anomalies [time, *autocorrelation.shape] of variance size_m^2, each point by itself."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((frames, *np.shape(autocorrelation))) * size_m
    noise[1:] *= np.sqrt(1 - np.square(autocorrelation))
    for t in range(1, frames):
        noise[t] += autocorrelation * noise[t - 1]
    return noise


@pytest.fixture(scope="session")
def make_dataset() -> Callable[..., xr.Dataset]:
    return _dataset


@pytest.fixture(scope="session")
def make_cases() -> Callable[..., Cases]:
    return _cases


@pytest.fixture(scope="session")
def red_noise() -> Callable[..., np.ndarray]:
    return _red_noise


@pytest.fixture
def cases() -> Cases:
    """Two levels of red noise, 300 training frames, 96 scored forecasts."""
    return _cases(_red_noise(400, np.full((2, *SHAPE), 0.9), seed=1), training=300)
