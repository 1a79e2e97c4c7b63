# SPDX-License-Identifier: Apache-2.0
"""The embedded model's trajectory: restarts bit for bit, years in a row, the climate it makes."""

from datetime import datetime
from types import SimpleNamespace

import netCDF4
import numpy as np
import pytest

from isohypse.data import ncep_format
from isohypse.data.levels import LEVEL_MEAN_M
from isohypse.data.quasigeostrophic import Trajectory, simulate, simulate_year
from isohypse.data.quasigeostrophic.dynamics import PARAMETERS
from isohypse.data.quasigeostrophic.heights import (
    LATITUDE_DEG,
    LONGITUDE_DEG,
    MODEL_MEAN_M,
)
from isohypse.errors import DataError

TRUNCATION = 21


def settings(**changes) -> SimpleNamespace:
    values = {"truncation": TRUNCATION, "seed": 0, "spin_up_days": 5, "noise_m": 3.0, "tides": True}
    return SimpleNamespace(**(values | changes))


def frames(trajectory: Trajectory, steps: int) -> np.ndarray:
    return np.stack(list(trajectory.frames(steps, (500, 200))))


def test_same_seed_same_trajectory_other_seed_another():
    start = datetime(2001, 1, 1)
    first, again, other = (frames(Trajectory(settings(seed=seed), start), 12) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 10


def test_frames_are_whole_metres_and_single_at_the_poles():
    values = frames(Trajectory(settings(), datetime(2001, 1, 1)), 4)
    assert values.dtype == np.float32
    assert values.shape == (4, 2, len(LATITUDE_DEG), len(LONGITUDE_DEG))
    np.testing.assert_array_equal(values, np.rint(values))
    assert np.ptp(values[:, :, [0, -1]], axis=-1).max() <= 1  # rounding may split a tie


def test_the_same_trajectory_gives_the_same_bytes(tmp_path):
    trajectory = Trajectory(settings(), datetime(2002, 1, 1))
    paths = [tmp_path / f"{number}.safetensors" for number in range(4)]
    for path in paths:
        trajectory.save(path)
    assert len({path.read_bytes() for path in paths}) == 1


def test_restart_continues_bit_for_bit(tmp_path):
    whole = frames(Trajectory(settings(), datetime(2001, 12, 25)), 40)
    first = Trajectory(settings(), datetime(2001, 12, 25))
    head = frames(first, 28)  # ends at 2002-01-01 00 UTC
    first.save(tmp_path / "restart.safetensors")
    second = Trajectory.restored(settings(), datetime(2002, 1, 1), tmp_path / "restart.safetensors")
    np.testing.assert_array_equal(np.concatenate([head, frames(second, 12)]), whole)


@pytest.mark.parametrize(
    ("changes", "time", "named"),
    [
        ({"seed": 1}, datetime(2002, 1, 1), "settings"),
        ({"noise_m": 2.0}, datetime(2002, 1, 1), "settings"),
        ({}, datetime(2003, 1, 1), "time"),
    ],
)
def test_restart_of_another_trajectory_is_refused(tmp_path, changes, time, named):
    path = tmp_path / "restart.safetensors"
    Trajectory(settings(), datetime(2002, 1, 1)).save(path)
    with pytest.raises(DataError, match=rf"restart.safetensors.*{named} is"):
        Trajectory.restored(settings(**changes), time, path)


@pytest.mark.parametrize("content", [None, b"not a restart"])
def test_a_file_that_is_no_restart_is_refused(tmp_path, content):
    path = tmp_path / "restart.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match="not a restart"):
        Trajectory.restored(settings(), datetime(2002, 1, 1), path)


def test_season_follows_the_calendar():
    """The forcing has its extreme at the same day of the year, a century apart."""
    for year in (1948, 2024, 2100):
        hours = (datetime(year, 1, 15) - simulate.SEASON_ORIGIN).total_seconds() / 3600
        assert np.cos(2 * np.pi * hours / simulate.YEAR_HOURS) > 0.999


def short_calendar(monkeypatch, steps: int) -> None:
    """Years of `steps` analyses, for tests of the files of several years."""
    monkeypatch.setattr(ncep_format, "steps_of_year", lambda year: steps)


def test_simulate_year_writes_data_and_restart(tmp_path, monkeypatch):
    short_calendar(monkeypatch, 8)
    restart, data = tmp_path / "restart.safetensors", tmp_path / "hgt.2001.nc"
    simulate_year(settings(), 2001, None, restart, data, (200, 500))
    with netCDF4.Dataset(data) as file:
        assert file["level"][:].tolist() == [500.0, 200.0]
        written = file["hgt"][:]
    np.testing.assert_array_equal(written, frames(Trajectory.spun_up(settings(), 2001), 8))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hgt.2001.nc", "restart.safetensors"]


def test_a_failed_year_leaves_neither_file(tmp_path, monkeypatch):
    short_calendar(monkeypatch, 8)

    def failing(self, steps, levels_hpa):
        yield np.zeros((1, 73, 144), np.float32)
        raise RuntimeError("power cut")

    monkeypatch.setattr(Trajectory, "frames", failing)
    with pytest.raises(RuntimeError, match="power cut"):
        simulate_year(settings(), 2001, None, tmp_path / "restart", tmp_path / "hgt.2001.nc", (500,))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_two_years_are_one_run(tmp_path):
    """Two calendar years, each from the restart of the one before, against one trajectory of 2920 steps."""
    restarts = [None, tmp_path / "2001.safetensors", tmp_path / "2002.safetensors"]
    written = []
    for index, year in enumerate((2001, 2002)):
        path = tmp_path / f"hgt.{year}.nc"
        simulate_year(settings(), year, restarts[index], restarts[index + 1], path, (500,))
        with netCDF4.Dataset(path) as file:
            written.append(file["hgt"][:].filled())
    whole = np.stack(list(Trajectory.spun_up(settings(), 2001).frames(2920, (500,))))
    np.testing.assert_array_equal(np.concatenate(written), whole)


def test_sixty_days_look_like_the_atmosphere():
    """500 hPa in winter after the spin-up: mean, spread and day-to-day change near those of reanalyses."""
    trajectory = Trajectory.spun_up(settings(spin_up_days=90), 2001)
    values = np.stack(list(trajectory.frames(240, (500,))))[:, 0].astype(float)
    assert values.mean() == pytest.approx(LEVEL_MEAN_M[500], abs=40)
    assert 250 < values.std() < 420
    assert 4300 < values.min() < values.max() < 6050  # a linear balance's highs exceed it
    weight = np.maximum(np.cos(np.radians(LATITUDE_DEG)), 0)
    weight /= weight.mean()
    day = np.sqrt((((values[4:] - values[:-4]) ** 2).mean((0, 2)) * weight).mean())
    assert 40 < day < 85  # reanalyses: 54 m
    tropics, middle = values[:, 34:39].std(0).mean(), values[:, 14:20].std(0).mean()
    assert 10 < tropics < 30 < 70 < middle
    change = np.sqrt(((values[4:, 12:21] - values[:-4, 12:21]) ** 2).mean((0, 1)))
    assert change.std() > 0.1 * change.mean()  # storm tracks, not a belt; ERA5: 0.22


def test_model_means_are_constants_of_each_truncation():
    assert set(MODEL_MEAN_M) == set(PARAMETERS)
