# SPDX-License-Identifier: Apache-2.0
import pandas as pd
import pytest

from isohypse.errors import DataError
from isohypse.publication.costs import draw_figure6, figure6


def test_axes_are_logarithmic_with_plain_numbers(figure_settings, write_costs):
    figure = draw_figure6(figure_settings(), write_costs())
    figure.draw_without_rendering()
    throughput, memory = figure.axes
    assert {axes.get_xscale() + axes.get_yscale() for axes in figure.axes} == {"loglog"}
    assert [label.get_text() for label in memory.get_xticklabels()] == ["8", "128", "1,024", "16,384"]
    assert "20,000" in [label.get_text() for label in throughput.get_yticklabels()]


def test_device_flavour_and_batch_are_named(figure_settings, write_costs):
    text = "\n".join(t.get_text() for t in draw_figure6(figure_settings(), write_costs(device="Xeon")).texts)
    assert "Xeon · flavour “small” · batch of 1" in text
    assert "no weather data" in text
    assert "not comparable" in text


def test_memory_is_in_gibibytes(figure_settings, write_costs):
    memory = draw_figure6(figure_settings(), write_costs(lengths=(1500, 3000))).axes[1]
    assert list(memory.lines[0].get_ydata()) == pytest.approx([3.2, 4.2])


def test_what_did_not_fit_is_left_out_and_said(figure_settings, write_costs, tmp_path):
    costs = write_costs()
    table = pd.read_csv(costs)
    missing = (table["model"] == "transformer") & (table["length"] == 16384)
    table.loc[missing, [c for c in table if c.startswith(("frames", "peak"))]] = None
    table.to_csv(costs, index=False)
    figure = draw_figure6(figure_settings(), costs)
    assert list(figure.axes[0].lines[0].get_xdata()) == [8, 128, 1024]
    text = "\n".join(t.get_text() for t in figure.texts)
    assert "Did not fit into memory: Transformer at T = 16,384." in text
    figure6(figure_settings(), costs, tmp_path / "figure6.png")
    assert (tmp_path / "figure6.png").stat().st_size > 20_000


def test_nothing_measured_is_an_error(figure_settings, write_costs):
    costs = write_costs()
    pd.read_csv(costs).assign(frames_per_second=None).to_csv(costs, index=False)
    with pytest.raises(DataError, match="no measurement fitted into memory"):
        draw_figure6(figure_settings(), costs)
