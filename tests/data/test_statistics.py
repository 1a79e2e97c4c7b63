# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from isohypse.config.sections import Split
from isohypse.config.settings import StatisticsSettings
from isohypse.data.area import area_weights, cell_bounds
from isohypse.data.statistics import Statistics, compute_statistics, statistics_of
from isohypse.errors import DataError

HALVES = Split(train=(0.0, 0.5), validation=(0.5, 1.0))


def settings_for(protocol, levels=(850, 500)):
    return StatisticsSettings(version=1, levels_hpa=levels, protocol=protocol, split=HALVES)


@pytest.fixture
def heights():
    rng = np.random.default_rng(0)
    level = np.array([1457.0, 5574.0])[:, None, None]
    return (level + rng.normal(0, 300, (3000, 2, 7, 8))).astype(np.float32)


@pytest.mark.parametrize("protocol", ["paper", "standard"])
def test_equal_to_numpy_over_the_frames_of_the_protocol(protocol, heights, write_stores, tmp_path):
    stores = write_stores(heights, levels=(850, 500))
    compute_statistics(settings_for(protocol), stores, tmp_path / "statistics.json")
    found = Statistics.read(tmp_path / "statistics.json")
    seen = heights[: 3000 if protocol == "paper" else 1500].astype(np.float64)
    assert found.levels_hpa == (850, 500)
    assert (found.frames, found.protocol) == (len(seen), protocol)
    assert found.period[0] == "2001-01-01T00:00:00"
    np.testing.assert_allclose(found.mean, seen.mean(axis=(0, 2, 3)), rtol=1e-14)
    np.testing.assert_allclose(found.std, seen.std(axis=(0, 2, 3)), rtol=1e-13)
    np.testing.assert_array_equal(found.minimum, seen.min(axis=(0, 2, 3)))
    np.testing.assert_array_equal(found.maximum, seen.max(axis=(0, 2, 3)))


def test_area_statistics_equal_weighted_numpy(heights, make_dataset):
    found = statistics_of(make_dataset(heights, levels=(850, 500)).geopotential_height, "paper")
    weights = np.broadcast_to(area_weights(np.linspace(90, -90, 7))[:, None], (7, 8))
    for i, level in enumerate(np.moveaxis(heights.astype(np.float64), 1, 0)):
        mean = np.average(level, weights=np.broadcast_to(weights, level.shape))
        variance = np.average((level - mean) ** 2, weights=np.broadcast_to(weights, level.shape))
        assert found.area_mean[i] == pytest.approx(mean, rel=1e-13)
        assert found.area_std[i] == pytest.approx(np.sqrt(variance), rel=1e-12)


def test_independent_of_chunks(heights, make_dataset):
    array = make_dataset(heights, levels=(850, 500)).geopotential_height
    whole = statistics_of(array, "paper")
    cut = statistics_of(array.chunk(time=7, level=1, latitude=3, longitude=5), "paper")
    np.testing.assert_allclose(cut.std, whole.std, rtol=1e-13)
    np.testing.assert_allclose(cut.mean, whole.mean, rtol=1e-14)


def test_small_spread_on_a_large_mean_survives(make_dataset):
    """The sum of squares minus the squared sum would lose every digit here."""
    values = np.where(np.arange(4000) % 2, 32768.0, 32768.00390625)[:, None, None, None] * np.ones(
        (1, 1, 2, 4)
    )
    found = statistics_of(make_dataset(values).geopotential_height.chunk(time=9), "paper")
    assert found.std[0] == pytest.approx(0.00390625 / 2, rel=1e-12)


def test_standard_statistics_do_not_see_the_other_frames(heights, write_stores, tmp_path):
    poisoned = heights.copy()
    poisoned[1500:] = 1e9
    found = []
    for name, values in (("clean", heights), ("poisoned", poisoned)):
        stores = write_stores(values, levels=(850, 500), name=name)
        compute_statistics(settings_for("standard"), stores, tmp_path / f"{name}.json")
        found.append(Statistics.read(tmp_path / f"{name}.json"))
    assert found[0] == found[1]


def test_a_subset_of_levels(heights, write_stores, tmp_path):
    stores = write_stores(heights, levels=(850, 500))
    compute_statistics(settings_for("paper", (500,)), stores, tmp_path / "s.json")
    assert Statistics.read(tmp_path / "s.json").mean == pytest.approx([heights[:, 1].mean(dtype=float)])


def test_a_lost_chunk_is_an_error(heights, write_stores, tmp_path):
    stores = write_stores(heights, levels=(850, 500))
    (stores[0] / "geopotential_height" / "c" / "3" / "1" / "0" / "0").unlink()
    with pytest.raises(DataError, match="missing or infinite"):
        compute_statistics(settings_for("paper"), stores, tmp_path / "s.json")
    assert not (tmp_path / "s.json").exists()


def test_reading_something_else_is_an_error(tmp_path):
    (tmp_path / "s.json").write_text("{}")
    with pytest.raises(DataError, match=r"s\.json: not a statistics file"):
        Statistics.read(tmp_path / "s.json")


def test_area_weights_are_exact_cell_areas():
    latitude = np.linspace(90, -90, 73)
    weights = area_weights(latitude)
    assert weights.mean() == pytest.approx(1)
    np.testing.assert_allclose(weights, weights[::-1], rtol=1e-12)
    assert weights[0] / weights.sum() == pytest.approx((1 - np.sin(np.radians(88.75))) / 2)
    # The area mean of sin(latitude)^2 over the sphere is 1/3; cells of 2.5 degrees come close.
    assert (weights * np.sin(np.radians(latitude)) ** 2).mean() == pytest.approx(1 / 3, abs=4e-4)


def test_cells_of_grids_without_poles_and_of_regions():
    np.testing.assert_allclose(cell_bounds([45.0, -45.0]), [90, 0, -90])
    np.testing.assert_allclose(cell_bounds([30.0, 40.0, 50.0]), [25, 35, 45, 55])
    with pytest.raises(ValueError, match="at least two latitudes"):
        cell_bounds([30.0])
