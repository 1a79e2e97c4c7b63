# SPDX-License-Identifier: Apache-2.0
from datetime import date

import numpy as np
import pytest

from isohypse.config.sections import Split
from isohypse.config.settings import ClimatologySettings
from isohypse.data.climatology import Climatology, compute_climatology, fit_climatology, triangular_window
from isohypse.errors import DataError

SPLIT = Split(train=(date(2001, 1, 1), date(2005, 1, 1)), validation=(date(2005, 1, 1), date(2006, 1, 1)))
YEARS = (365 * 4 + 1 + 365) * 4  # frames of 2001-2005


def settings_for(split=SPLIT, protocol="standard", window_days=61):
    chosen = {"levels_hpa": (500,), "protocol": protocol, "split": split, "window_days": window_days}
    return ClimatologySettings(version=1, **chosen)


def axis(n, first="2001-01-01"):
    return np.datetime64(first, "ns") + np.arange(n) * np.timedelta64(6, "h")


def cycle(time):
    """A seasonal cycle in the day of the year (of 366) and a diurnal one: float32 [n, 1, 3, 4]."""
    day = (time.astype("datetime64[D]") - time.astype("datetime64[Y]")).astype("timedelta64[D]").astype(int)
    hour = (time - time.astype("datetime64[D]")) / np.timedelta64(1, "h")
    value = 5500 + 100 * np.cos(2 * np.pi * day / 366) + 10 * np.cos(2 * np.pi * hour / 24)
    return (value[:, None, None, None] + np.arange(12).reshape(1, 1, 3, 4)).astype(np.float32)


def fitted(tmp_path, stores, settings):
    compute_climatology(settings, stores, tmp_path / "climatology.nc")
    return Climatology.read(tmp_path / "climatology.nc")


def test_recovers_a_cycle_exactly_without_smoothing(tmp_path, write_stores):
    time = axis(YEARS)
    found = fitted(tmp_path, write_stores(cycle(time)), settings_for(window_days=1))
    np.testing.assert_allclose(found.at(time), cycle(time), rtol=1e-7)
    assert found.label == "day of year x hour, 1-day triangular window, 2001-2004"
    assert found.levels_hpa == (500,)


def test_a_window_damps_a_harmonic_by_its_known_response(tmp_path, write_stores):
    """Smoothing cos(2 pi d / 366) multiplies its amplitude by the window's Fourier transform."""
    split = SPLIT.model_copy(update={"train": (date(2004, 1, 1), date(2005, 1, 1))})  # 366 days, each once
    time = axis(YEARS)
    found = fitted(tmp_path, write_stores(cycle(time)), settings_for(split))
    offset = np.arange(-29, 30)
    weight = 1 - np.abs(offset) / 30
    response = (weight * np.cos(2 * np.pi * offset / 366)).sum() / weight.sum()
    day = np.arange(366)
    noon = found.heights[:, 2, 0, 0, 0]
    np.testing.assert_allclose(noon, 5490 + 100 * response * np.cos(2 * np.pi * day / 366), rtol=1e-7)


def test_equal_to_weighting_every_sample_by_hand(make_dataset):
    rng = np.random.default_rng(1)
    heights = rng.normal(5500, 100, (1461 * 4, 1, 2, 4))
    array = make_dataset(heights, "2002-03-05").geopotential_height
    found = fit_climatology(array, 31)
    time, window = array.time.values, triangular_window(31)
    day = (time.astype("datetime64[D]") - time.astype("datetime64[Y]")).astype("timedelta64[D]").astype(int)
    for target, hour in ((0, 0), (59, 6), (200, 12), (365, 18)):
        weight = window[target][day] * ((time - time.astype("datetime64[D]")) == np.timedelta64(hour, "h"))
        expected = np.average(array.values[:, 0], axis=0, weights=weight)
        np.testing.assert_allclose(found.heights[target, hour // 6, 0], expected, rtol=1e-6)


@pytest.mark.parametrize("protocol", ["paper", "standard"])
@pytest.mark.parametrize("poison", [np.nan, 1e9])
def test_never_sees_validation(tmp_path, write_stores, protocol, poison):
    time = axis(YEARS)
    poisoned = cycle(time)
    poisoned[time >= np.datetime64("2005-01-01")] = poison
    clean = fitted(tmp_path, write_stores(cycle(time), name="clean"), settings_for(protocol=protocol))
    found = fitted(tmp_path, write_stores(poisoned, name="poisoned"), settings_for(protocol=protocol))
    np.testing.assert_array_equal(found.heights, clean.heights)


def test_less_than_a_year_gives_the_mean_and_says_so(tmp_path, write_stores):
    split = Split(train=(0.0, 0.5), validation=(0.5, 1.0))
    heights = np.random.default_rng(2).normal(5500, 100, (800, 1, 3, 4)).astype(np.float32)
    found = fitted(tmp_path, write_stores(heights), settings_for(split))
    assert found.label == "training mean (less than a year of data)"
    times = axis(6).reshape(2, 3)
    assert found.at(times).shape == (2, 3, 1, 3, 4)
    expected = heights[:400].mean(axis=0, dtype=np.float64)
    np.testing.assert_allclose(found.at(times)[1, 2], expected, rtol=1e-7)


def test_day_366_exists_without_a_leap_year(make_dataset):
    heights = cycle(axis(1460))
    found = fit_climatology(make_dataset(heights).geopotential_height, 1)
    np.testing.assert_array_equal(found.at(axis(4, "2004-12-31")), heights[-4:])


def test_window_is_circular_and_triangular():
    window = triangular_window(61)
    np.testing.assert_array_equal(window, window.T)
    assert window[0, 365] == window[0, 1] == pytest.approx(29 / 30)
    assert window[0, 30] == 0
    np.testing.assert_allclose(window.sum(axis=1), 30)


def test_at_refuses_other_hours(make_dataset):
    found = fit_climatology(make_dataset(cycle(axis(8))).geopotential_height, 61)
    with pytest.raises(ValueError, match="2001-01-01T03"):
        found.at(np.array(["2001-01-01T03"], dtype="datetime64[ns]"))


def test_missing_training_heights_are_an_error(tmp_path, write_stores):
    heights = cycle(axis(YEARS))
    heights[10] = np.nan
    with pytest.raises(DataError, match="missing or infinite"):
        fitted(tmp_path, write_stores(heights), settings_for())
    assert not (tmp_path / "climatology.nc").exists()


def test_reading_something_else_is_an_error(tmp_path):
    (tmp_path / "c.nc").write_text("no netCDF")
    with pytest.raises(DataError, match=r"c\.nc: not a climatology"):
        Climatology.read(tmp_path / "c.nc")
