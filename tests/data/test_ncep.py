# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from isohypse.config.sections import NCEP_LEVELS_HPA
from isohypse.data.sources.ncep import read_ncep_year, verify_ncep_file
from isohypse.errors import DataError

TWO = (500, 300)


@pytest.mark.parametrize("packed", [False, True], ids=["float32", "packed"])
def test_both_generations_are_read_bit_for_bit(tmp_path, write_ncep, packed):
    heights = write_ncep(tmp_path / "hgt.1948.nc", 1948, 1464, TWO, packed=packed)
    found = read_ncep_year(tmp_path / "hgt.1948.nc", (300, 500), 1948)
    assert found.level.values.tolist() == [500, 300]
    assert found.time.values[[0, -1]].astype("M8[h]").astype(str).tolist() == [
        "1948-01-01T00",
        "1948-12-31T18",
    ]
    assert found.geopotential_height.values.tobytes() == heights.tobytes()


def test_levels_are_selected_by_value_not_by_place(tmp_path, write_ncep):
    heights = write_ncep(tmp_path / "a.nc")
    write_ncep(tmp_path / "b.nc", heights=heights[:, ::-1], levels=NCEP_LEVELS_HPA[::-1])
    for name in ("a.nc", "b.nc"):
        found = read_ncep_year(tmp_path / name, (500,)).geopotential_height
        np.testing.assert_array_equal(found[:, 0], heights[:, 5])


@pytest.mark.parametrize("dims", [("time", "level", "lon", "lat"), ("lat", "time", "lon", "level")])
def test_axes_in_another_order_are_put_right_by_name(tmp_path, write_ncep, dims):
    heights = write_ncep(tmp_path / "hgt.2026.nc", dims=dims)
    found = read_ncep_year(tmp_path / "hgt.2026.nc", NCEP_LEVELS_HPA)
    np.testing.assert_array_equal(found.geopotential_height, heights)


def test_latitudes_from_south_to_north_are_turned(tmp_path, write_ncep):
    heights = write_ncep(tmp_path / "hgt.2026.nc", latitude=np.linspace(-90, 90, 73))
    found = read_ncep_year(tmp_path / "hgt.2026.nc", NCEP_LEVELS_HPA)
    np.testing.assert_array_equal(found.geopotential_height, heights[:, :, ::-1])


def test_a_complete_file_is_verified(tmp_path, write_ncep):
    write_ncep(tmp_path / "hgt.2026.nc")
    verify_ncep_file(tmp_path / "hgt.2026.nc", 2026)


def heights_with(value, steps=8, levels=2):
    heights = np.full((steps, levels, 73, 144), 5500, dtype=np.float32)
    heights[5, 0, 10, 20] = value
    return heights


SHORT = {"levels": TWO, "heights": heights_with(5500)}
BAD = {
    "no variable hgt; there are air": {"variable": "air", **SHORT},
    r"no level \[300\] hPa; there are \[1000.0, 500.0\]": {"levels": (1000, 500)},
    "2026-01-01T18:00 is followed by 2026-01-02T06:00": {"hours": np.delete(np.arange(9), 4) * 6.0, **SHORT},
    r"24 h apart, not 6 h \(a file of daily means": {"hours": np.arange(8) * 24.0, **SHORT},
    "starts at 2026-01-03T00:00, expected 2026-01-01T00:00": {"hours": np.arange(8) * 6.0 + 48, **SHORT},
    "8 time steps, expected 1460 for 2025": {"year": 2025, **SHORT},
    "305 time steps, expected 1460 for 2026": {"steps": 305, "levels": TWO},
    "no time steps": {"levels": TWO, "heights": heights_with(0)[:0]},
    "latitude is 90 to -90 .144 points., expected 90 to -90 .73.": {
        "levels": TWO,
        "heights": np.zeros((8, 2, 144, 73), np.float32),
        "latitude": np.linspace(90, -90, 144),
        "longitude": np.arange(73) * 360 / 73,
    },
    "latitude is 88 to -88": {"latitude": np.linspace(88, -88, 73), **SHORT},
    "latitude goes to 180; are latitude and longitude exchanged": {
        "levels": TWO,
        "heights": np.zeros((8, 2, 144, 73), np.float32),
        "latitude": np.arange(180, -180, -2.5),
        "longitude": np.linspace(90, -90, 73),
    },
    "1 heights are missing at 2026-01-02T06:00": {"levels": TWO, "heights": heights_with(np.nan)},
    "1 heights are missing at 2026-01-02T06:00 ": {"levels": TWO, "heights": heights_with(-9.96921e36)},
    "1 heights are missing at 2026-01-02T06:00  ": {
        "levels": TWO,
        "heights": heights_with(-9.96921e36),
        "packed": True,
    },
    "are impossible; check the units": {"levels": TWO, "heights": heights_with(5500) * 98},
}


@pytest.mark.parametrize("message", BAD)
def test_what_is_wrong_is_said_in_one_line_that_names_the_file(tmp_path, write_ncep, message):
    path = tmp_path / "hgt.file.nc"
    write_ncep(path, **BAD[message])
    with pytest.raises(DataError, match=message.strip()) as caught:
        read_ncep_year(path, TWO).compute()
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("packed", [False, True], ids=["netCDF-4", "netCDF-3"])
@pytest.mark.parametrize("kept", [0.999, 0.5, 0.001])
def test_a_truncated_file_is_refused(tmp_path, write_ncep, packed, kept):
    path = tmp_path / "hgt.2026.nc"
    write_ncep(path, packed=packed)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(DataError, match=r"hgt\.2026\.nc: .*fetch it again"):
        verify_ncep_file(path, 2026)


def test_missing_levels_are_found_by_verification(tmp_path, write_ncep):
    write_ncep(tmp_path / "hgt.2026.nc", levels=TWO)
    with pytest.raises(DataError, match=r"no level \[1000, 925"):
        verify_ncep_file(tmp_path / "hgt.2026.nc", 2026)


def test_another_year_under_the_name_is_refused(tmp_path, write_ncep):
    write_ncep(tmp_path / "hgt.2026.nc", levels=TWO)
    with pytest.raises(DataError, match="starts at 2026-01-01T00:00, expected 2018-01-01T00:00"):
        read_ncep_year(tmp_path / "hgt.2026.nc", TWO, 2018)


def test_no_file(tmp_path):
    with pytest.raises(DataError, match=r"hgt\.1990\.nc: no such file"):
        read_ncep_year(tmp_path / "hgt.1990.nc", TWO, 1990)
