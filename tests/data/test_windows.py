# SPDX-License-Identifier: Apache-2.0
from datetime import date
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isohypse.config.sections import Split
from isohypse.data.windows import (
    Order,
    batch_order,
    evaluation_windows,
    split_windows,
    training_frames,
    training_range,
)
from isohypse.errors import DataError

THIRDS = Split(train=(0.0, 0.4), validation=(0.4, 0.7), test=(0.7, 1.0), gap_frames=12)
lengths = st.integers(1, 8)


def axis(n: int, first: str = "2001-01-01") -> np.ndarray:
    return np.datetime64(first, "ns") + np.arange(n) * np.timedelta64(6, "h")


def used_frames(windows) -> np.ndarray:
    return np.union1d(windows.inputs(), windows.targets())


@given(n=st.integers(150, 400), t_in=lengths, t_out=lengths, gap=st.integers(0, 20))
def test_standard_ranges_share_no_frame_and_keep_the_gap(n, t_in, t_out, gap):
    split = THIRDS.model_copy(update={"gap_frames": gap})
    found = split_windows(axis(n), split, "standard", t_in, t_out)
    used = [used_frames(found[name]) for name in ("train", "validation", "test")]
    for before, after in pairwise(used):
        assert after.min() - before.max() > gap


@given(n=st.integers(150, 400), t_in=lengths, t_out=lengths)
def test_standard_windows_lie_inside_their_range_and_fill_it(n, t_in, t_out):
    found = split_windows(axis(n), THIRDS, "standard", t_in, t_out)
    for name, (start, stop) in THIRDS.ranges.items():
        first, end = (int(bound * n + 1e-9) for bound in (start, stop))
        used = used_frames(found[name])
        assert used.min() == first + (12 if name != "train" else 0)
        assert used.max() == end - 1


@given(n=st.integers(50, 400), t_in=lengths, t_out=lengths)
def test_paper_splits_window_indices_so_that_neighbours_share_frames(n, t_in, t_out):
    split = Split(train=(0.0, 0.9), validation=(0.9, 1.0))
    found = split_windows(axis(n), split, "paper", t_in, t_out)
    positions = n - t_in - t_out + 1
    together = np.concatenate([found["train"].starts, found["validation"].starts])
    assert together.tolist() == list(range(positions))
    assert len(found["train"]) == int(0.9 * positions)
    shared = np.intersect1d(used_frames(found["train"]), used_frames(found["validation"]))
    assert len(shared) == t_in + t_out - 1


def test_paper_dates_are_those_of_the_first_frame():
    split = Split(train=(date(2001, 1, 1), date(2001, 2, 1)), validation=(date(2001, 2, 1), date(2001, 3, 1)))
    found = split_windows(axis(400), split, "paper", 8, 4)
    assert found["train"].starts[-1] == 31 * 4 - 1
    assert found["validation"].starts[0] == 31 * 4


def test_standard_dates_are_half_open():
    split = Split(train=(date(2001, 1, 1), date(2001, 2, 1)), validation=(date(2001, 2, 1), date(2001, 3, 1)))
    found = split_windows(axis(400), split, "standard", 8, 4)
    assert used_frames(found["train"]).max() == 31 * 4 - 1
    assert used_frames(found["validation"]).max() == (31 + 28) * 4 - 1
    assert training_range(axis(400), split) == slice(0, 124)


def test_published_number_of_windows():
    split = Split(train=(0.0, 0.9), validation=(0.9, 1.0))
    found = split_windows(axis(112_500, "1948-01-01"), split, "paper", 8, 4)
    assert (len(found["train"]), len(found["validation"])) == (101_240, 11_249)


def test_indices_of_a_window():
    found = split_windows(axis(200), THIRDS, "standard", 3, 2)["validation"]
    start = int(found.starts[5])
    assert found.inputs(5).tolist() == [start, start + 1, start + 2]
    assert found.targets(5).tolist() == [start + 3, start + 4]
    assert found.last_input[5] == start + 2
    assert found.inputs(np.array([[1, 2], [3, 4]])).shape == (2, 2, 3)
    assert found.targets(slice(2, 6)).shape == (4, 2)
    assert found.frames == slice(used_frames(found).min(), used_frames(found).max() + 1)


def test_statistics_see_everything_as_published_and_training_otherwise():
    assert training_frames(axis(100), THIRDS, "paper") == slice(0, 100)
    assert training_frames(axis(100), THIRDS, "standard") == slice(0, 40)


def test_test_is_evaluated_where_there_is_one():
    found = split_windows(axis(200), THIRDS, "standard", 3, 2)
    assert evaluation_windows(found) is found["test"]
    del found["test"]
    assert evaluation_windows(found) is found["validation"]


@pytest.mark.parametrize("protocol", ["paper", "standard"])
def test_an_empty_range_is_named(protocol):
    split = Split(train=(date(2001, 1, 1), date(2001, 2, 1)), validation=(date(2011, 1, 1), date(2012, 1, 1)))
    with pytest.raises(DataError, match=r"validation range \[2011-01-01, 2012-01-01\).*2001-01-01T00"):
        split_windows(axis(400), split, protocol, 8, 4)
    with pytest.raises(DataError, match="train range"):
        split_windows(axis(5), split, protocol, 8, 4)


@given(n=st.integers(1, 60), batch=st.integers(1, 70), seed=st.integers(0, 99))
@settings(max_examples=50)
def test_batches_laid_end_to_end_are_permutations(n, batch, seed):
    steps = -(-3 * n // batch)
    order = np.concatenate([batch_order(n, batch, seed, step) for step in range(steps)])[: 3 * n]
    for epoch in order.reshape(3, n):
        assert np.sort(epoch).tolist() == list(range(n))


def test_batch_order_does_not_depend_on_history():
    forward = [batch_order(100, 32, 7, step) for step in range(20)]
    backward = [batch_order(100, 32, 7, step) for step in reversed(range(20))][::-1]
    np.testing.assert_array_equal(forward, backward)
    assert (batch_order(100, 32, 8, 0) != forward[0]).any()
    assert (forward[0] != forward[4]).any()


def test_a_batch_may_be_changed_without_changing_the_next_call():
    batch_order(50, 50, 1, 0)[:] = 0
    assert np.sort(batch_order(50, 50, 1, 0)).tolist() == list(range(50))


def order_of(n: int, batch: int, stretch: int, part: slice = slice(None)) -> Order:
    return Order(50 + np.arange(n), batch, 3, stretch, part)


def test_without_stretches_all_windows_are_mixed():
    for step in range(9):
        np.testing.assert_array_equal(order_of(100, 32, 1)(step), 50 + batch_order(100, 32, 3, step))


@given(n=st.integers(1, 60), batch=st.integers(1, 20), stretch=st.integers(1, 12))
@settings(max_examples=50)
def test_an_epoch_of_stretches_draws_every_window_and_repeats_less_than_a_stretch(n, batch, stretch):
    stretch = min(n, stretch)
    order, stretches = order_of(n, batch, stretch), -(-n // stretch)
    drawn = np.stack([order(step) for step in range(stretches * stretch)])  # [step, place]: `batch` epochs
    by_place = drawn.reshape(stretches, stretch, batch).swapaxes(1, 2).reshape(-1, stretch)  # [stretch, turn]
    for epoch in by_place.reshape(batch, stretches * stretch):
        found, times = np.unique(epoch, return_counts=True)
        assert found.tolist() == list(range(50, 50 + n))
        assert (times - 1).sum() == stretches * stretch - n < stretch


def test_a_chapter_takes_each_window_of_its_stretches_in_random_order():
    order = order_of(1000, 16, 28)
    for chapter in (0, 3):
        drawn = (
            np.stack([order(28 * chapter + turn) for turn in range(28)]).T - order.stretches(chapter)[:, None]
        )
        assert (np.sort(drawn, axis=1) == np.arange(28)).all()
        assert len(np.unique(drawn, axis=0)) == 16
    assert len(np.unique(order.stretches(0))) == 16


def test_processes_draw_disjoint_parts_of_the_same_batch():
    whole = order_of(500, 12, 7)
    for step in (0, 5, 6, 7, 90):
        parts = [order_of(500, 12, 7, slice(first, first + 4))(step) for first in (0, 4, 8)]
        np.testing.assert_array_equal(np.concatenate(parts), whole(step))


def test_an_order_does_not_depend_on_history():
    forward = [order_of(300, 16, 5)(step) for step in range(40)]
    order = order_of(300, 16, 5)
    np.testing.assert_array_equal(forward, [order(step) for step in reversed(range(40))][::-1])


def test_a_stretch_longer_than_the_training_range_is_refused():
    with pytest.raises(DataError, match="28 is more than the 20"):
        order_of(20, 4, 28)
