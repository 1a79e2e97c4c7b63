# SPDX-License-Identifier: Apache-2.0
"""Which windows are scored and which frames are read."""

from itertools import pairwise

import numpy as np
import pytest

from isohypse.config.assessment import Evaluation
from isohypse.data.windows import Windows
from isohypse.evaluation.cases import BLOCK_FRAMES, anomaly_blocks, batches, choose_windows, read_frames

WINDOWS = Windows(np.arange(100, 200), 8, 4)


def test_all_windows_are_scored_unless_told_otherwise():
    for protocol in ("paper", "standard"):
        np.testing.assert_array_equal(choose_windows(WINDOWS, protocol, Evaluation()).starts, WINDOWS.starts)


def test_the_paper_takes_the_first_windows():
    chosen = choose_windows(WINDOWS, "paper", Evaluation(max_windows=30, window_step=2))
    np.testing.assert_array_equal(chosen.starts, np.arange(100, 160, 2))


@pytest.mark.parametrize("limit", [1, 7, 30, 99, 100, 1000])
def test_standard_spans_the_range_evenly_and_sees_all_hours(limit):
    chosen = choose_windows(WINDOWS, "standard", Evaluation(max_windows=limit))
    assert 1 <= len(chosen) <= limit
    steps = np.unique(np.diff(chosen.starts))
    assert len(steps) <= 1
    assert all(step % 2 == 1 for step in steps)
    if limit > 1:
        assert chosen.starts[-1] + steps[0] > WINDOWS.starts[-1]


def test_a_step_of_the_user_is_kept():
    chosen = choose_windows(WINDOWS, "standard", Evaluation(window_step=4, max_windows=80))
    np.testing.assert_array_equal(chosen.starts, np.arange(100, 200, 4))


def test_batches_hold_every_window_once():
    parts = list(batches(WINDOWS, 32))
    assert [len(part) for part in parts] == [32, 32, 32, 4]
    np.testing.assert_array_equal(np.concatenate([part.starts for part in parts]), WINDOWS.starts)


def test_frames_come_in_the_order_asked_for(cases):
    index = np.array([[5, 2, 5], [0, 399, 2]])
    np.testing.assert_array_equal(read_frames(cases.heights, index), cases.heights.values[index])


def test_anomaly_blocks_pair_each_training_frame_once(make_cases, red_noise):
    frames = 2 * BLOCK_FRAMES + 77
    anomalies = red_noise(frames + 50, np.full((1, 5, 6), 0.5), seed=0)
    cases = make_cases(anomalies, training=frames)
    blocks = list(anomaly_blocks(cases, overlap=2))
    assert len(blocks) == 3
    for before, after in pairwise(blocks):
        np.testing.assert_array_equal(before[-2:], after[:2])
    together = np.concatenate([*(block[:-2] for block in blocks[:-1]), blocks[-1]])
    np.testing.assert_allclose(together, anomalies[:frames], atol=1e-3)  # float32 of 5,500 m


def test_the_evaluation_mean_is_that_of_all_scored_truth(cases):
    truth = cases.heights.values[cases.scored.targets()]
    np.testing.assert_allclose(cases.evaluation_mean, truth.mean(axis=(0, 1), dtype=np.float64), rtol=1e-6)
