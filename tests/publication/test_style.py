# SPDX-License-Identifier: Apache-2.0
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

from isohypse.errors import ConfigurationError
from isohypse.models.catalogue import MODELS
from isohypse.publication import style
from isohypse.publication.curves import figure5


def luminance(colour: str) -> float:
    channels = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return float(np.dot(channels, (0.2126, 0.7152, 0.0722)))


def test_every_model_has_a_colour_and_a_marker_of_its_own():
    looks = [style.MODEL_LOOK[model] for model in MODELS]
    assert len({colour for colour, _ in looks}) == len({marker for _, marker in looks}) == len(MODELS)


def test_every_colour_is_seen_on_white():
    colours = [colour for colour, _ in (*style.MODEL_LOOK.values(), *style.BASELINE_LOOK.values())]
    assert min((1 + 0.05) / (luminance(colour) + 0.05) for colour in colours) > 2


@pytest.mark.parametrize("wanted", [[0.0, 0.1, 0.2], [0.0, 50.0, 50.0, 51.0, 200.0], [5.0], [1.0, 1.0]])
def test_spread_keeps_order_and_gap_and_mean(wanted):
    found = style.spread(np.array(wanted), gap=10)
    assert np.all(np.diff(found) >= 10 - 1e-9)
    assert found.mean() == pytest.approx(np.mean(wanted))


def test_spread_leaves_alone_what_is_apart():
    np.testing.assert_allclose(style.spread(np.array([0.0, 30.0, 90.0]), gap=10), [0, 30, 90])


def test_direct_labels_do_not_overlap():
    figure = Figure(figsize=(6, 4))
    axes = figure.add_subplot()
    axes.set(xlim=(0, 1), ylim=(0, 1))
    style.label_ends(axes, [(1, 0.5 + 0.001 * i, f"line {i}", "black") for i in range(8)])
    figure.draw_without_rendering()
    boxes = sorted((Text.get_window_extent(text) for text in axes.texts), key=lambda box: box.y0)
    assert all(below.y1 <= above.y0 + 1 for below, above in pairwise(boxes))


def test_round_ticks_lie_inside_and_are_plain():
    assert style.round_ticks(3, 120) == [5, 10, 20, 50, 100]
    assert style.round_ticks(1, 1e5) == [1, 10, 100, 1000, 10_000, 100_000]


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_the_same_inputs_give_the_same_bytes(tmp_path, figure_settings, write_scores, suffix):
    scores = write_scores()
    paths = [tmp_path / f"{name}.{suffix}" for name in ("first", "second")]
    for path in paths:
        figure5(figure_settings(), scores, path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert paths[0].stat().st_size > 10_000


def test_another_suffix_is_refused_and_leaves_nothing(tmp_path, figure_settings, write_scores):
    with pytest.raises(ConfigurationError, match=r"\.png, \.pdf, \.svg"):
        figure5(figure_settings(), write_scores(), tmp_path / "out" / "figure5.tiff")
    assert not (tmp_path / "out").exists()


def test_every_line_of_the_footer_stays_on_the_page(figure_settings):
    sheet = style.page(figure_settings(), (7, 3), "Title", ["about"], ["word " * 80])
    sheet.figure.draw_without_rendering()
    page = sheet.figure.bbox
    for text in sheet.figure.texts:
        box = text.get_window_extent()
        assert box.x1 <= page.x1
        assert box.y0 >= 0
