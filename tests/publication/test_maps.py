# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
import xarray as xr

from isohypse.errors import DataError
from isohypse.publication import geography, maps
from isohypse.publication.labels import method_of
from isohypse.publication.maps import Scale, draw_maps, figure_maps, map_rmse, read_examples


def titles(figure) -> list[str]:
    return [axes.get_title(loc="left") for axes in figure.axes]


def words(figure) -> str:
    return "\n".join(text.get_text() for text in figure.texts)


def test_truth_prediction_and_error_of_each_model(figure_settings, write_examples):
    examples = write_examples(["gla-small/seed0", "kda-small/seed0"])
    figure = draw_maps(figure_settings(), examples, "evaluation")
    assert titles(figure)[:6] == ["Truth", "Last input − truth", "GLA", "Error", "KDA", "Error"]
    for part in (
        "Figure 4",
        "SYNTHETIC",
        "2010-03-05 18:00 UTC",
        "lead time 24 h",
        "seed 0 only",
        "“standard”",
    ):
        assert part in words(figure)


def test_figure_3_is_the_training_sample(figure_settings, write_examples):
    text = words(draw_maps(figure_settings(), write_examples(["gla-small/seed0"]), "train"))
    assert "Figure 3" in text
    assert "Last input 2006-01-03 00:00 UTC" in text


def test_only_the_lowest_seed_is_shown(write_examples):
    paths = write_examples(["gla-small/seed4", "gla-small/seed2", "persistence"])
    shown, _ = read_examples(paths, "evaluation")
    assert [(example.method.name, example.method.seed) for example in shown] == [
        ("gla", 2),
        ("persistence", None),
    ]


def test_the_last_lead_and_the_first_level_are_shown(write_examples):
    path = write_examples(["gla-small/seed0"], task="in8-out4/500+300hPa/standard")[0]
    shown, _ = read_examples([path], "evaluation")
    with xr.open_dataset(path) as dataset:
        wanted = dataset["truth"].sel(case="evaluation").isel(example=0, lead_time=-1, level=0).values
    np.testing.assert_array_equal(shown[0].truth, wanted)
    assert (shown[0].lead_hours, shown[0].level_hpa) == (24, 500)


def test_of_several_examples_the_first_is_shown(write_examples):
    path = write_examples(["gla-small/seed0"])[0]
    shown, _ = read_examples([path], "train")
    with xr.open_dataset(path) as dataset:
        assert dataset.sizes["example"] == 2
        wanted = dataset["forecast"].sel(case="train", lead_time=24, level=500).isel(example=0).values
    np.testing.assert_array_equal(shown[0].forecast, wanted)


def test_errors_are_shaded_symmetrically(figure_settings, write_examples):
    figure = draw_maps(figure_settings(), write_examples(["gla-small/seed0"]), "evaluation")
    low, high = figure.axes[1].collections[0].get_clim()
    assert low == -high
    assert figure.axes[3].collections[0].get_clim() == (low, high)


def test_isohypses_are_round_heights_that_enclose_the_truth(write_examples):
    shown, _ = read_examples(write_examples(["gla-small/seed0"]), "evaluation")
    scale = Scale.of(shown)
    assert scale.step in (60, 120)
    assert np.all(scale.isohypses % scale.step == 0)
    assert scale.isohypses[0] <= shown[0].truth.min() < shown[0].truth.max() <= scale.isohypses[-1]


def test_map_rmse_weights_by_area_but_in_the_papers_protocol():
    latitude = np.array([60.0, 0.0, -60.0])  # cells of 60 degrees: the caps reach from 30 to the poles
    error = np.array([[3.0, 3.0], [1.0, 1.0], [1.0, 1.0]])
    assert map_rmse(error, latitude, "paper") == pytest.approx(np.sqrt(11 / 3))
    assert map_rmse(error, latitude, "standard") == pytest.approx(np.sqrt((9 * 0.5 + 1 + 0.5) / 2))


def test_a_regional_grid_is_drawn_in_its_own_bounds(figure_settings, write_examples, tmp_path):
    latitude, longitude = np.arange(47.5, 34, -2.5), np.arange(-15, 6, 2.5)
    examples = write_examples(["gla-small/seed0"], latitude=latitude, longitude=longitude)
    figure = draw_maps(figure_settings(synthetic=False, source="files"), examples, "train")
    assert figure.axes[0].get_xlim() == (-16.25, 6.25)
    assert figure.axes[0].get_ylim() == (33.75, 48.75)
    figure_maps(figure_settings(), examples, "train", tmp_path / "figure3.png")
    assert (tmp_path / "figure3.png").stat().st_size > 20_000


def test_examples_of_another_sample_are_refused(figure_settings, write_examples):
    first, second = write_examples(["gla-small/seed0", "kda-small/seed0"])
    with xr.open_dataset(second) as dataset:
        other = dataset.load()
    (other.assign(truth=other["truth"] + 1)).to_netcdf(second)
    with pytest.raises(DataError, match="its truth is not that of"):
        draw_maps(figure_settings(), [first, second], "train")


def test_a_file_without_the_case_is_refused(figure_settings, write_examples):
    path = write_examples(["gla-small/seed0"])[0]
    with pytest.raises(DataError, match=r"examples\.nc: is no file of examples"):
        maps.read_example(path, method_of(path)[1], "test")


def test_wrapping_closes_a_global_grid_only():
    globe, region = np.arange(0, 360, 5.0), np.arange(0, 50, 5.0)
    longitude, field = geography.wrapped(globe, np.tile(globe, (3, 1)))
    assert longitude[-1] == 360
    np.testing.assert_array_equal(field[:, -1], field[:, 0])
    assert geography.wrapped(region, np.zeros((3, 10)))[0] is region


def test_edges_are_half_way_between_centres():
    np.testing.assert_allclose(geography.edges(np.array([0.0, 2.0, 4.0])), [-1, 1, 3, 5])


def test_coordinates_are_written_as_geographers_do():
    assert [geography.longitude_text(x) for x in (0, 90, 180, 270, 360, -15)] == [
        "0°", "90°E", "180°", "90°W", "0°", "15°W",
    ]  # fmt: skip
    assert [geography.latitude_text(x) for x in (45, 0, -45)] == ["45°N", "0°", "45°S"]


@pytest.mark.parametrize(("value", "wanted"), [(97, 100), (101, 150), (0.031, 0.04), (200, 200), (0, 1)])
def test_rounded_up(value, wanted):
    assert geography.rounded_up(value) == pytest.approx(wanted)
