# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import xarray as xr

from isohypse.data.contract import check_contract, contracted, every_nth, is_global, shard_frames, time_blocks
from isohypse.errors import DataError

RNG = np.random.default_rng(0)


@pytest.fixture
def good(make_dataset):
    return make_dataset(RNG.normal(5500, 100, (6, 2, 5, 8)), levels=(850, 500))


def bare(dataset: xr.Dataset) -> xr.DataArray:
    return dataset.geopotential_height.drop_attrs()


def test_a_good_dataset_passes(good):
    check_contract(good, "here")


BROKEN = {
    "no variable": lambda d: d.rename(geopotential_height="hgt"),
    "float64": lambda d: d.astype(np.float64),
    r"float32 \('level'": lambda d: d.transpose("level", "time", "latitude", "longitude"),
    "descending": lambda d: d.sortby("level"),
    "not int32": lambda d: d.assign_coords(level=d.level.astype(np.float64)),
    "latitude -90 to 90": lambda d: d.sortby("latitude"),
    "longitude 315 to 0": lambda d: d.sortby("longitude", ascending=False),
    "not evenly spaced": lambda d: d.isel(longitude=[0, 1, 3, 4]),
    "2001-01-01T06:00 is followed by 2001-01-01T18:00": lambda d: d.isel(time=[0, 1, 3, 4, 5]),
    "24 h apart.*daily means": lambda d: d.assign_coords(
        time=d.time.values[0] + np.arange(6) * np.timedelta64(1, "D")
    ),
    "at 00, 06, 12 and 18 UTC": lambda d: d.assign_coords(time=d.time + np.timedelta64(3, "h")),
    "is empty": lambda d: d.isel(time=slice(0, 0)),
}


@pytest.mark.parametrize("message", BROKEN)
def test_what_breaks_the_contract_is_named_in_one_line(good, message):
    with pytest.raises(DataError, match=message) as caught:
        check_contract(BROKEN[message](good), "here")
    assert str(caught.value).startswith("here: ")
    assert "\n" not in str(caught.value)


def test_any_order_of_axes_and_coordinates_is_put_right(good):
    turned = bare(good).transpose("longitude", "time", "latitude", "level")
    turned = turned.sortby("latitude").sortby("level")
    turned = turned.assign_coords(longitude=(turned.longitude + 180) % 360 - 180).sortby("longitude")
    xr.testing.assert_identical(contracted(turned, (500, 850), "here").compute(), good)


def test_levels_are_selected_by_value(good):
    found = contracted(bare(good), (500,), "here")
    np.testing.assert_array_equal(found.geopotential_height[:, 0], good.geopotential_height[:, 1])
    with pytest.raises(DataError, match=r"here: no level \[300\] hPa; there are \[850.0, 500.0\]"):
        contracted(bare(good), (500, 300), "here")


def test_a_region_across_greenwich_stays_in_one_piece(good):
    region = bare(good).isel(longitude=slice(0, 4)).assign_coords(longitude=[-10.0, 0.0, 10.0, 20.0])
    found = contracted(region, (500,), "here")
    assert found.longitude.values.tolist() == [-10, 0, 10, 20]
    assert not is_global(found.longitude.values)
    assert is_global(good.longitude.values)


def test_a_cyclic_point_is_refused(good):
    array = bare(good).assign_coords(longitude=np.linspace(0, 360, 8))
    with pytest.raises(DataError, match="occurs twice"):
        contracted(array, (500,), "here")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -9.96921e36])
def test_holes_are_found_when_values_are_read(good, bad):
    array = bare(good)
    array[4, 1, 2, 3] = bad
    found = contracted(array, (500,), "here")
    with pytest.raises(DataError, match="here: 1 heights are missing at 2001-01-02T00:00"):
        found.compute()
    contracted(array, (850,), "here").compute()  # a level that is not used may have holes


def test_geopotential_is_not_taken_for_height(good):
    with pytest.raises(DataError, match="are impossible; check the units"):
        contracted(bare(good) * 98, (500,), "here").compute()


def test_float32_values_are_kept_bit_for_bit(good):
    found = contracted(bare(good), (850, 500), "here").compute()
    assert found.geopotential_height.values.tobytes() == good.geopotential_height.values.tobytes()


def test_stride_keeps_both_poles(make_dataset):
    dataset = make_dataset(RNG.normal(5500, 100, (2, 1, 73, 144)))
    for stride in (1, 2, 3, 4, 6, 8, 12):
        found = every_nth(dataset, stride, "here")
        assert found.latitude.values[[0, -1]].tolist() == [90, -90]
        assert is_global(found.longitude.values)
        check_contract(found, "here")
    with pytest.raises(DataError, match=r"grid\.stride 5 misses the south pole"):
        every_nth(dataset, 5, "here")
    with pytest.raises(DataError, match=r"grid\.stride 2 does not divide the 9 longitudes"):
        every_nth(make_dataset(np.zeros((2, 1, 5, 9))), 2, "here")


def test_time_blocks_lay_out_the_whole_axis(make_dataset):
    array = make_dataset(RNG.normal(5500, 100, (300, 1, 3, 4))).geopotential_height
    blocks = list(time_blocks(array, shards=1))
    assert [frames.start for frames, _ in blocks] == [0, 122, 244]
    np.testing.assert_array_equal(np.concatenate([values for _, values in blocks]), array.values)


def test_chunks_of_a_year_and_of_a_fine_grid():
    assert shard_frames(73, 144) == 122
    assert shard_frames(721, 1440) == 2
    assert shard_frames(7201, 14400) == 2
