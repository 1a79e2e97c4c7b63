# SPDX-License-Identifier: Apache-2.0
import warnings

import numpy as np
import pytest
import xarray as xr

from isohypse.config.settings import ArchiveSettings
from isohypse.data.archive import open_archive, write_archive_year
from isohypse.errors import DataError

LEVELS = (500, 300)


def settings_for(**changes):
    return ArchiveSettings(**({"version": 1, "kind": "ncep-r1", "levels_hpa": LEVELS, "stride": 1} | changes))


@pytest.fixture(scope="module")
def two_years(tmp_path_factory, write_ncep):
    """Heights of 2025 and of the short 2026, and their stores."""
    folder = tmp_path_factory.mktemp("years")
    heights, stores = [], []
    for year, steps in ((2025, 1460), (2026, 7)):
        path = folder / f"hgt.{year}.nc"
        heights.append(write_ncep(path, year, steps, LEVELS))
        stores.append(folder / f"{year}.zarr")
        write_archive_year(settings_for(), year, [path], stores[-1])
    return np.concatenate(heights), stores


def test_bit_for_bit_as_the_source_has_it(two_years):
    heights, stores = two_years
    found = open_archive(stores)
    assert found.geopotential_height.values.tobytes() == heights.tobytes()
    assert found.geopotential_height.dims == ("time", "level", "latitude", "longitude")
    assert len(found.time) == 1467


def test_order_of_the_stores_does_not_matter(two_years):
    _, stores = two_years
    xr.testing.assert_identical(open_archive(stores), open_archive(stores[::-1]))


def test_levels_are_selected_by_value_and_stay_descending(two_years):
    heights, stores = two_years
    found = open_archive(stores, (300,))
    np.testing.assert_array_equal(found.geopotential_height[:5, 0], heights[:5, 1])
    assert open_archive(stores, (300, 500)).level.values.tolist() == [500, 300]
    with pytest.raises(DataError, match=r"no level \[850\] hPa in the archive, which has \[500, 300\]"):
        open_archive(stores, (850,))


def test_plain_xarray_reads_it_without_a_warning(two_years):
    heights, stores = two_years
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with xr.open_mfdataset(stores, engine="zarr") as found:
            np.testing.assert_array_equal(found.geopotential_height[-9:], heights[-9:])
            assert found.geopotential_height.attrs["standard_name"] == "geopotential_height"
            assert found.latitude.attrs["units"] == "degrees_north"
            assert found.level.attrs == {
                "standard_name": "air_pressure",
                "units": "hPa",
                "axis": "Z",
                "positive": "down",
            }


def test_stores_carry_their_provenance(two_years):
    _, stores = two_years
    attrs = [xr.open_zarr(store, consolidated=False).attrs for store in stores]
    assert attrs[0]["settings_digest"] == settings_for().digest
    assert attrs[0]["source_files"] == "hgt.2025.nc"
    assert attrs[0]["source_title"] == "4x daily NMC reanalysis"
    assert attrs[0]["synthetic"] == 0
    assert len(attrs[0]["data_sha256"]) == 64
    assert attrs[0]["data_sha256"] != attrs[1]["data_sha256"]


def test_the_same_input_gives_the_same_bytes(two_years, tmp_path):
    _, stores = two_years
    source = stores[1].parent / "hgt.2026.nc"
    write_archive_year(settings_for(), 2026, [source], tmp_path / "2026.zarr")
    files = [path.relative_to(stores[1]) for path in stores[1].rglob("*") if path.is_file()]
    # One shard, chunks of four coordinates and of the moments, descriptions of all these and of two groups.
    assert len(files) == 1 + 4 + 1 + 6 + 2
    for file in files:
        assert (tmp_path / "2026.zarr" / file).read_bytes() == (stores[1] / file).read_bytes(), file


def test_a_chunk_is_61_frames_of_a_level_and_a_shard_122_of_all(two_years):
    _, stores = two_years
    data = xr.open_zarr(stores[0], consolidated=False).geopotential_height
    assert data.encoding["chunks"] == (61, 1, 73, 144)
    assert data.encoding["shards"] == (122, 2, 73, 144)
    assert (
        len(list((stores[0] / "geopotential_height" / "c").rglob("*"))) == 12 * 4
    )  # a file under three folders


def test_reading_ahead_changes_nothing(two_years, tmp_path):
    _, stores = two_years
    source = stores[0].parent / "hgt.2025.nc"
    write_archive_year(settings_for(), 2025, [source], tmp_path / "2025.zarr", threads=2)
    xr.testing.assert_identical(open_archive([tmp_path / "2025.zarr"]), open_archive(stores[:1]))


def test_stride_takes_grid_points_of_the_source(two_years, tmp_path):
    heights, stores = two_years
    source = stores[1].parent / "hgt.2026.nc"
    write_archive_year(settings_for(stride=4), 2026, [source], tmp_path / "2026.zarr")
    found = open_archive([tmp_path / "2026.zarr"])
    np.testing.assert_array_equal(found.geopotential_height, heights[1460:, :, ::4, ::4])
    with pytest.raises(DataError, match="latitude differs from"):
        open_archive([stores[0], tmp_path / "2026.zarr"])


def test_years_must_follow_each_other(two_years, tmp_path, write_ncep):
    _, stores = two_years
    write_ncep(tmp_path / "hgt.2023.nc", 2023, 1460, LEVELS)
    write_archive_year(settings_for(), 2023, [tmp_path / "hgt.2023.nc"], tmp_path / "2023.zarr")
    message = r"2025\.zarr: starts at 2025-01-01T00:00, but .*2023\.zarr ends at 2023-12-31T18"
    with pytest.raises(DataError, match=message):
        open_archive([*stores, tmp_path / "2023.zarr"])
    with pytest.raises(DataError, match=r"starts at 2026-01-01T00:00, but"):
        open_archive([stores[1], stores[1]])


@pytest.mark.parametrize("bad", [np.nan, 1e9])
def test_bad_input_leaves_nothing_behind(tmp_path, write_ncep, bad):
    heights = np.full((8, 2, 73, 144), 5500, dtype=np.float32)
    heights[7, 1, 3, 4] = bad
    write_ncep(tmp_path / "hgt.2026.nc", levels=LEVELS, heights=heights)
    with pytest.raises(DataError, match=r"hgt\.2026\.nc: "):
        write_archive_year(
            settings_for(), 2026, [tmp_path / "hgt.2026.nc"], tmp_path / "archive" / "2026.zarr"
        )
    assert list((tmp_path / "archive").iterdir()) == []


def test_a_damaged_block_is_a_data_error(tmp_path, write_ncep):
    path = tmp_path / "hgt.2026.nc"
    write_ncep(path, levels=LEVELS)
    _damage_deflated_copy(path)
    with pytest.raises(DataError, match=r"hgt\.2026\.nc: cannot be read to its end"):
        write_archive_year(settings_for(), 2026, [path], tmp_path / "archive" / "2026.zarr")
    assert list((tmp_path / "archive").iterdir()) == []


def _damage_deflated_copy(path) -> None:
    with xr.open_dataset(path, mask_and_scale=False) as source:
        loaded = source.load()
    noise = np.random.default_rng(0).integers(0, 99, loaded.hgt.shape).astype(np.float32)
    (loaded + noise).assign_coords(loaded.coords).to_netcdf(path, encoding={"hgt": {"zlib": True}})
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2000] = bytes(2000)
    path.write_bytes(content)


def test_the_embedded_model_is_marked_synthetic(two_years, tmp_path):
    _, stores = two_years
    source = stores[1].parent / "hgt.2026.nc"
    write_archive_year(settings_for(kind="quasigeostrophic"), 2026, [source], tmp_path / "2026.zarr")
    assert open_archive([tmp_path / "2026.zarr"]).attrs["synthetic"] == 1


def test_no_store_and_no_zarr(tmp_path):
    with pytest.raises(DataError, match="the year range is empty"):
        open_archive([])
    with pytest.raises(DataError, match=r"1999\.zarr: not a Zarr store"):
        open_archive([tmp_path / "1999.zarr"])
    with pytest.raises(DataError, match="year 1999: expected one file"):
        write_archive_year(settings_for(), 1999, [], tmp_path / "1999.zarr")
