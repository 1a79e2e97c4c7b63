# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pandas as pd
import pytest

from isohypse.errors import DataError
from isohypse.publication.curves import draw_figure2, draw_figure5, figure2
from isohypse.publication.style import MODEL_LOOK


def words(figure) -> str:
    texts = [text.get_text() for text in figure.texts]
    for axes in figure.axes:
        texts += [axes.get_title(loc="left"), axes.get_title(), *(text.get_text() for text in axes.texts)]
        texts += [label.get_text() for label in axes.get_yticklabels()]
    return "\n".join(texts)


def points(axes, colour: str) -> list[float]:
    """Heights of the line of `colour`."""
    return next(list(line.get_ydata()) for line in axes.lines if line.get_color() == colour)


def test_figure2_says_what_it_shows(figure_settings, write_runs):
    text = words(draw_figure2(figure_settings(), write_runs(steps=100)))
    for part in (
        "SYNTHETIC",
        "2001–2010",
        "500 hPa",
        "8 frames in (48 h)",
        "“standard”",
        "one seed (0)",
        "KDA",
    ):
        assert part in text


def test_figure2_names_real_data_and_all_seeds(figure_settings, write_runs, paper_data):
    runs = write_runs(steps=60, seeds=(3, 7), models=("gla",))
    text = words(draw_figure2(figure_settings(**paper_data), runs))
    assert "NCEP/NCAR Reanalysis 1, 1948–2024" in text
    assert "2 seeds (3, 7)" in text
    assert "SYNTHETIC" not in text


def test_figure2_draws_the_mean_over_seeds(figure_settings, write_runs):
    runs = write_runs(steps=60, seeds=(0, 1), models=("gla",))
    tables = [pd.read_csv(path) for path in runs]
    wanted = np.mean([t.query("split == 'validation'")["value"].to_numpy() for t in tables], axis=0)
    axes = draw_figure2(figure_settings(), runs).axes[1]
    np.testing.assert_allclose(points(axes, MODEL_LOOK["gla"][0]), wanted)


def test_figure2_refuses_two_protocols(figure_settings, write_runs):
    runs = write_runs(steps=20, models=("gla",)) + write_runs(
        "in8-out4/500hPa/paper", steps=20, models=("gla",)
    )
    with pytest.raises(DataError, match="exactly one task"):
        draw_figure2(figure_settings(), runs)


def test_figure2_names_a_file_that_is_no_run(figure_settings, tmp_path):
    with pytest.raises(DataError, match=r"metrics\.csv: does not lie in the folder of a run"):
        figure2(figure_settings(), [tmp_path / "metrics.csv"], tmp_path / "figure2.png")
    assert not (tmp_path / "figure2.png").exists()


def test_figure5_draws_the_scores_of_the_protocol_definition(figure_settings, write_scores):
    scores = write_scores()
    table = pd.read_csv(scores)
    table.loc[table["definition"] == "paper", "value"] = 1e6
    table.to_csv(scores, index=False)
    rmse, acc = draw_figure5(figure_settings(), scores).axes
    assert points(rmse, MODEL_LOOK["kda"][0]) == [28.6, 29.0, 31.2, 34.6]
    assert rmse.get_title(loc="left") == "RMSE (m)"
    assert acc.get_ylim()[1] == 1


def test_figure5_shows_the_mean_of_seeds_and_the_envelope_of_their_intervals(figure_settings, write_scores):
    axes = draw_figure5(figure_settings(), write_scores(seeds=(0, 1))).axes[0]
    assert points(axes, MODEL_LOOK["kda"][0]) == pytest.approx([29.0, 29.4, 31.6, 35.0])
    bars = next(
        c for c in axes.collections if np.allclose(c.get_color()[0], (0.8, 0.4745, 0.6549, 1), atol=1e-3)
    )
    np.testing.assert_allclose(bars.get_segments()[0][:, 1], [28.6 * 0.95, 29.4 * 1.05])


def test_figure5_labels_every_method(figure_settings, write_scores):
    text = words(draw_figure5(figure_settings(), write_scores()))
    for name in ("Persistence", "Climatology", "Damped persistence", "Ridge VAR", "Transformer", "Mamba2"):
        assert name in text
    assert "area-weighted" in text


def test_figure5_keeps_the_papers_points_out_and_says_why(figure_settings, write_scores):
    figure = draw_figure5(figure_settings(), write_scores("in8-out4/300hPa/paper", flavour="paper"))
    assert "not comparable: the data are synthetic." in words(figure)
    assert figure.axes[0].get_legend() is None


def test_figure5_shows_the_papers_points_where_comparable(figure_settings, write_scores, paper_data):
    scores = write_scores("in8-out4/300hPa/paper", flavour="paper")
    figure = draw_figure5(figure_settings(**paper_data), scores)
    hollow = [line for line in figure.axes[0].lines if line.get_markerfacecolor() == "none"]
    assert {(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in hollow} == {
        (6, 31.6), (24, 85.3), (24, 59.2), (24, 66.6),
    }  # fmt: skip
    assert "sees\nthe truth" in words(figure)


def test_figure5_at_500_hpa_is_not_the_papers(figure_settings, write_scores, paper_data):
    scores = write_scores("in8-out4/500hPa/paper", flavour="paper")
    text = words(draw_figure5(figure_settings(**paper_data), scores))
    assert "not comparable: the level is 500 hPa, the paper's 300 hPa." in text


def test_figure5_with_one_lead_is_a_chart_of_dots(figure_settings, write_scores):
    figure = draw_figure5(figure_settings(), write_scores("in8-out1/500hPa/standard", leads=1))
    text = words(figure)
    assert "Forecast error at 6 h" in text
    assert "21.2" in text


def test_figure5_has_a_row_for_each_level(figure_settings, write_scores):
    figure = draw_figure5(figure_settings(), write_scores("in8-out4/500+300hPa/standard"))
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles[0::2] == ["RMSE (m), 500 hPa", "RMSE (m), 300 hPa"]


def test_figure5_says_what_its_bars_are(figure_settings, write_scores):
    """Level of the intervals, and how many forecasts are behind the points."""
    scores = write_scores()
    text = words(draw_figure5(figure_settings({"confidence": 0.9}), scores))
    assert "Bars: 90 % confidence interval for overlapping samples" in text
    table = pd.read_csv(scores)
    fewest = int(table["samples"].min())
    assert f"{fewest} forecasts for each point." in text
    table.loc[table["method"] == "persistence", "samples"] += 1000
    table.to_csv(scores, index=False)
    text = words(draw_figure5(figure_settings(), scores))
    assert f"{fewest} to {fewest + 1000:,} forecasts for each point." in text
    assert "has no ACC" not in text


def test_an_undefined_acc_is_left_out_and_told_of(figure_settings, write_scores):
    scores = write_scores()
    table = pd.read_csv(scores)
    undefined = (table["method"] == "climatology") & (table["metric"] == "acc")
    table.loc[undefined, ["value", "low", "high"]] = np.nan
    table.to_csv(scores, index=False)
    figure = draw_figure5(figure_settings(), scores)
    labels = [text.get_text() for text in figure.axes[1].texts]
    assert "Persistence" in labels
    assert "Climatology" not in labels
    assert "Climatology has no ACC" in words(figure)


def test_a_table_without_its_columns_is_refused_by_name(figure_settings, write_scores):
    scores = write_scores()
    pd.read_csv(scores).drop(columns=["low", "value"]).to_csv(scores, index=False)
    with pytest.raises(DataError, match=r"scores.csv: lacks the columns value, low"):
        draw_figure5(figure_settings(), scores)
