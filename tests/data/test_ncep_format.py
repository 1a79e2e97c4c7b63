# SPDX-License-Identifier: Apache-2.0
"""The files we write against the header of NOAA PSL's `hgt.YYYY.nc` (1948 on, form of 2014), line by line."""

import netCDF4
import numpy as np
import pytest
import xarray as xr

from isohypse.data import ncep_format
from isohypse.errors import ConfigurationError

YEAR = 2018
LEVELS = (1000, 500, 10)

# Name, value and type of every attribute, in the order of the files: f float32, d float64, s int16, or text.
HEADER = {
    "level": """\
units = "millibar"
long_name = "Level"
positive = "down"
GRIB_id = 100s
GRIB_name = "hPa"
axis = "Z"
actual_range = 1000.0f, 10.0f""",
    "lat": """\
units = "degrees_north"
actual_range = 90.0f, -90.0f
long_name = "Latitude"
standard_name = "latitude"
axis = "Y\"""",
    "lon": """\
units = "degrees_east"
long_name = "Longitude"
actual_range = 0.0f, 357.5f
standard_name = "longitude"
axis = "X\"""",
    "time": """\
long_name = "Time"
delta_t = "0000-00-00 06:00:00"
standard_name = "time"
axis = "T"
units = "hours since 1800-01-01 00:00:0.0"
actual_range = 1910952.0d, 1919706.0d""",
    "hgt": """\
long_name = "4xDaily Geopotential height"
units = "m"
precision = 0s
least_significant_digit = 0s
GRIB_id = 7s
GRIB_name = "HGT"
var_desc = "Geopotential height"
dataset = "NCEP Reanalysis"
level_desc = "Multiple levels"
statistic = "Individual Obs"
parent_stat = "Other"
missing_value = -9.96921e+36f
valid_range = -700.0f, 35000.0f
actual_range = -522.0f, 32306.0f""",
}
GLOBAL = ("Conventions", "platform", "title", "description", "history", "dataset_title", "References")


def printed(value) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    suffix = {"float32": "f", "float64": "d", "int16": "s"}[np.asarray(value).dtype.name]
    return ", ".join(f"{item!s}{suffix}" for item in np.atleast_1d(value))


def frames(steps: int, levels: int):
    """Whole metres that differ everywhere in time, between the extremes of the header above."""
    frame = np.tile(np.arange(73 * 144, dtype=np.float32).reshape(73, 144), (levels, 1, 1))
    for step in range(steps):
        values = frame + step
        values[0, 0, 0], values[-1, -1, -1] = -522, 32306
        yield values


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("ncep") / f"hgt.{YEAR}.nc"
    ncep_format.write_year(path, YEAR, LEVELS, frames(1460, len(LEVELS)), "a test")
    return path


@pytest.fixture(scope="module")
def header(path):
    with netCDF4.Dataset(path) as file:
        file.set_auto_mask(False)
        yield file


@pytest.mark.parametrize("name", HEADER)
def test_attributes_line_by_line(header, name):
    variable = header[name]
    lines = [f"{key} = {printed(variable.getncattr(key))}" for key in variable.ncattrs()]
    assert lines == HEADER[name].splitlines()


def test_dimensions_and_types(header):
    assert header.data_model == "NETCDF4_CLASSIC"
    assert list(header.dimensions) == ["level", "lat", "lon", "time"]
    assert header.dimensions["time"].isunlimited()
    assert list(header.variables) == ["level", "lat", "lon", "time", "hgt"]
    assert header["hgt"].dimensions == ("time", "level", "lat", "lon")
    types = {name: variable.dtype.name for name, variable in header.variables.items()}
    assert types == dict.fromkeys(("level", "lat", "lon", "hgt"), "float32") | {"time": "float64"}


def test_one_deflated_chunk_a_time_step(header):
    assert header["hgt"].chunking() == [1, len(LEVELS), 73, 144]
    assert header["hgt"].filters()["zlib"]
    assert header["hgt"].filters()["shuffle"]


def test_global_attributes_are_complete_and_honest(header):
    assert tuple(header.ncattrs()) == GLOBAL
    assert header.Conventions == "COARDS"
    for name in ("title", "description", "dataset_title"):
        assert "synthetic" in header.getncattr(name).lower()
    assert "a test" in header.history


def test_coordinates(header):
    assert header["level"][:].tolist() == list(LEVELS)
    np.testing.assert_array_equal(header["lat"][:], np.arange(90, -90.1, -2.5))
    np.testing.assert_array_equal(header["lon"][:], np.arange(0, 360, 2.5))


@pytest.mark.parametrize("name", ["level", "lat", "lon"])
def test_coordinates_have_no_fill_value(header, name):
    assert "_FillValue" not in header[name].ncattrs()


def test_xarray_reads_exact_times_and_values(path):
    with xr.open_dataset(path) as dataset:
        expected = np.arange("2018-01-01T00", "2019-01-01T00", 6, dtype="datetime64[h]")
        np.testing.assert_array_equal(dataset.time.values, expected.astype("datetime64[ns]"))
        for step, frame in enumerate(frames(3, len(LEVELS))):
            np.testing.assert_array_equal(dataset.hgt[step].values, frame)


@pytest.mark.parametrize(
    ("year", "steps"), [(1900, 1460), (1948, 1464), (2000, 1464), (2018, 1460), (2024, 1464)]
)
def test_steps_follow_the_gregorian_calendar(year, steps):
    assert ncep_format.steps_of_year(year) == steps
    times = ncep_format.times_of_year(year)
    assert times[-1] + 6 == ncep_format.times_of_year(year + 1)[0]
    assert len(times) == steps


@pytest.mark.parametrize("steps", [1459, 1461])
def test_a_wrong_number_of_frames_is_an_error(tmp_path, steps):
    frame = np.zeros((1, 73, 144), np.float32)
    with pytest.raises(ValueError, match="2018 has 1460"):
        ncep_format.write_year(tmp_path / "hgt.nc", YEAR, (500,), (frame for _ in range(steps)), "a test")


def test_levels_are_sorted_from_the_ground_up():
    assert ncep_format.checked_levels([10, 1000, 500]) == (1000, 500, 10)
    assert ncep_format.checked_levels(ncep_format.LEVELS_HPA) == ncep_format.LEVELS_HPA


@pytest.mark.parametrize("levels", [[], [500, 500], [499]])
def test_unknown_or_repeated_levels_are_an_error(levels):
    with pytest.raises(ConfigurationError, match="different levels"):
        ncep_format.checked_levels(levels)
