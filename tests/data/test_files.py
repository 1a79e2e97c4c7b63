# SPDX-License-Identifier: Apache-2.0
import cftime
import numpy as np
import pytest
import xarray as xr

from isohypse.config.sections import Files
from isohypse.config.settings import ArchiveSettings
from isohypse.data.archive import open_archive, write_archive_year
from isohypse.data.sources.files import read_files, resolve_paths
from isohypse.errors import DataError

RNG = np.random.default_rng(0)
HEIGHTS = RNG.normal(5500, 100, (8, 1, 5, 8)).astype(np.float32)


@pytest.fixture
def good(make_dataset):
    """Two days of 2001 at 500 hPa under the contract."""
    return make_dataset(HEIGHTS)


@pytest.fixture
def bare(good):
    """The same as a user may have it: short names, no attributes but the height's units."""
    names = {"geopotential_height": "hgt", "latitude": "lat", "longitude": "lon"}
    dataset = good.drop_attrs(deep=True).rename(names)
    dataset.hgt.attrs["units"] = "m"
    return dataset


@pytest.fixture
def read(tmp_path):
    """Write a dataset to netCDF and read it back through the source."""

    def run(dataset, year=2001, levels=(500,), **files):
        dataset.to_netcdf(tmp_path / "user.nc")
        return read_files(Files(paths=(str(tmp_path / "user.nc"),), **files), year, levels)

    return run


def assert_heights(found, expected):
    np.testing.assert_array_equal(found.geopotential_height.values, expected)


def test_cf_attributes_are_enough(good, read):
    strange = good.rename(geopotential_height="a", time="b", level="c", latitude="d", longitude="e")
    assert_heights(read(strange), HEIGHTS)


def test_common_names_are_enough(bare, read):
    assert_heights(read(bare), HEIGHTS)
    era5 = bare.rename(hgt="z", time="valid_time", level="pressure_level", lat="latitude", lon="longitude")
    assert_heights(read(era5), HEIGHTS)


def test_configured_names_come_first(bare, read):
    strange = bare.rename(hgt="a", time="b", level="c", lat="d", lon="e").assign(hgt2=bare.hgt * 0)
    names = {"variable": "a", "time": "b", "level": "c", "latitude": "d", "longitude": "e"}
    assert_heights(read(strange, **names), HEIGHTS)


def test_any_order_of_axes(bare, read):
    turned = bare.transpose("lon", "lat", "level", "time").sortby("lat").sortby("lon", ascending=False)
    assert_heights(read(turned), HEIGHTS)


@pytest.mark.parametrize("units", ["m2 s-2", "m**2 s**-2", "J kg-1"])
def test_geopotential_is_divided_by_standard_gravity(bare, read, units):
    geopotential = (bare.astype(np.float64) * 9.80665).rename(hgt="phi")
    geopotential.phi.attrs["units"] = units
    np.testing.assert_allclose(read(geopotential).geopotential_height, HEIGHTS, rtol=1e-7)


@pytest.mark.parametrize(("name", "units"), [("geopotential", "m"), ("geopotential_height", "m2 s-2")])
def test_a_name_that_contradicts_its_units_is_refused(bare, read, name, units):
    bare.hgt.attrs.update(standard_name=name, units=units)
    with pytest.raises(DataError, match=f"called {name} but given in {units}; say which in files.units"):
        read(bare)
    assert_heights(read(bare, units="m"), HEIGHTS)


def test_exchanged_latitude_and_longitude_are_refused(make_dataset, read):
    globe = make_dataset(RNG.normal(5500, 100, (8, 1, 19, 36)).astype(np.float32)).drop_attrs(deep=True)
    globe.geopotential_height.attrs["units"] = "m"
    with pytest.raises(DataError, match=r"latitude goes to 350; are latitude and longitude exchanged"):
        read(globe.rename(latitude="lon", longitude="lat"))


def test_configured_units_come_first(bare, read):
    np.testing.assert_allclose(read(bare / 10, units="dam").geopotential_height, HEIGHTS, rtol=1e-6)


def test_levels_in_pascal(bare, read):
    bare = bare.assign_coords(level=("level", [50000.0], {"units": "Pa"}))
    assert_heights(read(bare), HEIGHTS)
    bare.level.attrs.clear()
    assert_heights(read(bare), HEIGHTS)


def test_one_level_without_a_dimension(bare, read):
    flat = bare.isel(level=0, drop=True)
    assert_heights(read(flat, level_hpa=500), HEIGHTS)
    with pytest.raises(DataError, match=r"hgt has no level; say which it is in files\.level_hpa"):
        read(flat)
    assert_heights(read(bare.isel(level=0)), HEIGHTS)  # a scalar coordinate says it


def test_packed_integers_and_fill_values(bare, read, tmp_path):
    whole = bare.round()
    whole.hgt.encoding = {"dtype": "int16", "scale_factor": 1.0, "add_offset": 5000.0, "_FillValue": -32767}
    assert_heights(read(whole), HEIGHTS.round())
    whole.hgt[3, 0, 1, 1] = np.nan
    with pytest.raises(DataError, match=r"user\.nc: 1 heights are missing at 2001-01-01T18:00"):
        read(whole).compute()


@pytest.mark.parametrize("hours", [1, 2, 3])
def test_finer_times_are_thinned_and_that_is_said(make_dataset, read, hours):
    heights = RNG.normal(5500, 100, (48, 1, 3, 4)).astype(np.float32)
    dataset = make_dataset(heights)
    finer = dataset.assign_coords(time=dataset.time.values[0] + np.arange(48) * np.timedelta64(hours, "h"))
    found = read(finer)
    assert_heights(found, heights[:: 6 // hours])
    assert found.attrs["thinned_from"] == f"every {hours} h; kept 00, 06, 12 and 18 UTC"


@pytest.mark.parametrize(
    ("hours", "message"),
    [(4, "divide 6 h"), (5, "divide 6 h"), (12, "12 h apart, not 6 h"), (24, "24 h apart, not 6 h")],
)
def test_other_steps_are_refused(good, read, hours, message):
    times = good.time.values[0] + np.arange(8) * np.timedelta64(hours, "h")
    with pytest.raises(DataError, match=message):
        read(good.assign_coords(time=times))


def test_a_gap_is_refused(good, read):
    with pytest.raises(DataError, match="2001-01-01T12:00 is followed by 2001-01-02T00:00"):
        read(good.isel(time=[0, 1, 2, 4, 5]))


@pytest.mark.parametrize("calendar", ["standard", "gregorian", "proleptic_gregorian"])
def test_every_name_of_the_real_calendar(good, read, calendar):
    good.time.encoding = {"units": "hours since 1900-01-01", "calendar": calendar}
    assert_heights(read(good), HEIGHTS)


def test_years_that_nanoseconds_cannot_hold_are_refused(good, read):
    times = xr.date_range("1500-01-01", periods=8, freq="6h", use_cftime=True)
    with pytest.raises(DataError, match="time starts in 1500; only 1678 to 2261"):
        read(good.assign_coords(time=times))


def test_a_calendar_without_leap_days_is_refused(good, read):
    dataset = good.assign_coords(time=[cftime.DatetimeNoLeap(2001, 1, 1, 6 * i) for i in range(4)] * 2)
    with pytest.raises(DataError, match="calendar noleap"):
        read(dataset)


def test_two_variables_that_fit_are_named_with_the_key(bare, read):
    with pytest.raises(DataError, match=r"hgt, z could all be the heights; choose one in files\.variable"):
        read(bare.assign(z=bare.hgt * 9.8))
    assert_heights(read(bare.assign(z=bare.hgt * 9.8), variable="hgt"), HEIGHTS)


def test_two_dimensions_that_fit_are_named_with_the_key(bare, read):
    with pytest.raises(DataError, match=r"lev, level could all be the level; choose one in files\.level"):
        read(bare.expand_dims(lev=[500.0]))


BAD = {
    r"no variable of heights found in temperature; name it in files\.variable": (
        lambda d: d.rename(hgt="temperature"),
        {},
    ),
    r"files\.variable 'zz' is not there; there are hgt": (lambda d: d, {"variable": "zz"}),
    r"files\.time 'zz' is not there": (lambda d: d, {"time": "zz"}),
    r"has no latitude; name it in files\.latitude": (lambda d: d.rename(lat="rows"), {}),
    "dimension lat has no coordinate variable": (lambda d: d.drop_vars("lat"), {}),
    "dimensions that were not understood: member": (lambda d: d.expand_dims(member=2), {}),
    r"hgt has 'K'; say in files\.units": (lambda d: d.assign(hgt=d.hgt.assign_attrs(units="K")), {}),
    r"hgt has no units; say in files\.units": (lambda d: d.drop_attrs(), {}),
    r"no level \[500\] hPa; there are \[300.0\]": (lambda d: d.assign_coords(level=[300]), {}),
    r"files\.level_hpa is 300, but level has \[500.0\] hPa": (lambda d: d, {"level_hpa": 300}),
    "level is in 'K'": (lambda d: d.assign_coords(level=("level", [500], {"units": "K", "axis": "Z"})), {}),
    "not evenly spaced": (lambda d: d.assign_coords(lat=[90, 40, 0, -45, -90]), {}),
    "no frame in 2001": (lambda d: d.assign_coords(time=d.time + np.timedelta64(365, "D")), {}),
}


@pytest.mark.parametrize("message", BAD)
def test_what_is_wrong_is_said_in_one_line_that_names_the_file(bare, read, message):
    change, files = BAD[message]
    with pytest.raises(DataError, match=message) as caught:
        read(change(bare), **files)
    assert "user.nc: " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_many_files_of_times_and_levels_in_one_folder(make_dataset, tmp_path):
    heights = RNG.normal(5500, 100, (12, 2, 3, 4)).astype(np.float32)
    dataset = make_dataset(heights, "2001-12-31", levels=(850, 500))
    for i in range(3):
        for level in (850, 500):
            part = dataset.isel(time=slice(4 * i, 4 * i + 4)).sel(level=[level])
            part.to_netcdf(tmp_path / f"part{i}-{level}.nc")
    for paths in ((str(tmp_path),), (str(tmp_path / "part*.nc"),)):
        files = Files(paths=paths)
        assert_heights(read_files(files, 2001, (850, 500)), heights[:4])
        assert_heights(read_files(files, 2002, (850, 500)), heights[4:])
        with pytest.raises(DataError, match="no frame in 2003"):
            read_files(files, 2003, (850, 500))


def test_files_of_different_grids_do_not_fit(good, tmp_path):
    good.isel(time=slice(0, 4)).to_netcdf(tmp_path / "a.nc")
    good.isel(time=slice(4, 8), latitude=slice(0, 3)).to_netcdf(tmp_path / "b.nc")
    with pytest.raises(DataError, match="do not fit together"):
        read_files(Files(paths=(str(tmp_path),)), 2001, (500,))


@pytest.mark.parametrize("version", [2, 3])
def test_zarr_stores_are_read(good, tmp_path, version):
    good.to_zarr(tmp_path / "user.zarr", zarr_format=version, consolidated=False)
    for path in (tmp_path / "user.zarr", tmp_path):
        assert_heights(read_files(Files(paths=(str(path),)), 2001, (500,)), HEIGHTS)


def test_paths_that_match_nothing_are_named(tmp_path):
    with pytest.raises(
        DataError, match=r"files\.paths: '.*/\*\.nc' matches no netCDF file and no Zarr store"
    ):
        resolve_paths(Files(paths=(str(tmp_path / "*.nc"),)))
    (tmp_path / "user.nc").write_text("no netCDF")
    with pytest.raises(DataError, match=r"user\.nc: cannot be opened"):
        read_files(Files(paths=(str(tmp_path),)), 2001, (500,))


def archive(files, year, destination, levels=(500,)):
    settings = ArchiveSettings(version=1, kind="files", files=files, levels_hpa=levels, stride=1)
    write_archive_year(settings, year, [], destination)
    return open_archive([destination])


def test_a_region_is_archived(good, tmp_path):
    region = good.isel(latitude=slice(1, 4)).assign_coords(longitude=np.arange(8) * 2.5 - 10)
    region.to_netcdf(tmp_path / "user.nc")
    found = archive(Files(paths=(str(tmp_path / "user.nc"),)), 2001, tmp_path / "2001.zarr")
    assert found.longitude.values[0] == -10
    assert found.attrs["source_files"] == "user.nc"
    assert_heights(found, HEIGHTS[:, :, 1:4])


def test_a_real_era5_sample(samples, tmp_path):
    path = samples / "era5_z500_6h_20200101-20200215_5.625deg.nc"
    files = Files(paths=(str(path),), variable="hgt", level_hpa=500)
    found = archive(files, 2020, tmp_path / "2020.zarr")
    with xr.open_dataset(path) as source:
        expected = source.hgt.sortby("lat", ascending=False).values[:, None]
    assert_heights(found, expected)
    assert found.latitude.values[0] == 87.1875


def test_a_real_region_of_daily_values_is_refused(samples):
    path = samples / "ncep_r1_z500_00z_1958-2010_iberia.nc"
    with pytest.raises(DataError, match="24 h apart, not 6 h"):
        read_files(Files(paths=(str(path),), level_hpa=500), 1990, (500,))


def test_real_monthly_means_are_refused(samples):
    path = samples / "ncep_hgt500_january_means_1958-1978.nc"
    with pytest.raises(DataError, match=r"january_means_1958-1978\.nc: "):
        read_files(Files(paths=(str(path),), level_hpa=500), 1960, (500,))
