# SPDX-License-Identifier: Apache-2.0
"""Intervals must cover the truth at the rate they claim, on series whose truth is known."""

import numpy as np
import pytest

from isohypse.evaluation.significance import mean_interval, rmse_difference

YEAR = 1460  # six-hourly samples


def _series(repeats: int, autocorrelation: float, seed: int, n: int = YEAR) -> np.ndarray:
    """Stationary AR(1) of mean 0 and variance 1, [sample, repeat]."""
    noise = np.random.default_rng(seed).standard_normal((n, repeats))
    noise[1:] *= np.sqrt(1 - autocorrelation**2)
    for t in range(1, n):
        noise[t] += autocorrelation * noise[t - 1]
    return noise


@pytest.mark.parametrize("confidence", [0.9, 0.95])
@pytest.mark.parametrize("autocorrelation", [0.0, 0.7, 0.95])
def test_intervals_cover_the_mean_at_their_rate(autocorrelation, confidence):
    found = mean_interval(_series(2000, autocorrelation, seed=0), confidence)
    rate = np.mean((found.low <= 0) & (found.high >= 0))
    # Three standard errors of 2,000 repeats are 0.015 and 0.020; 0.005 more for the estimate's own bias.
    assert rate == pytest.approx(confidence, abs=0.025)


def test_intervals_that_ignore_correlation_do_not_cover():
    series = _series(2000, 0.95, seed=1)
    half = 1.96 * series.std(axis=0) / np.sqrt(YEAR)
    assert np.mean(np.abs(series.mean(axis=0)) <= half) < 0.4


def test_correlated_samples_have_wider_intervals():
    widths = []
    for autocorrelation in (0.0, 0.5, 0.9):
        found = mean_interval(_series(200, autocorrelation, seed=2), 0.95)
        widths.append(np.median(found.high - found.low))
    # sqrt((1 + r) / (1 - r)): 1, 1.73, 4.36 times the width of independent samples.
    np.testing.assert_allclose(np.array(widths) / widths[0], [1, 1.73, 4.36], rtol=0.15)


def test_intervals_shift_and_scale_with_the_samples():
    series = _series(20, 0.8, seed=3)
    plain, moved = mean_interval(series, 0.95), mean_interval(5 + 3 * series, 0.95)
    for name in ("value", "low", "high"):
        np.testing.assert_allclose(getattr(moved, name), 5 + 3 * getattr(plain, name), rtol=1e-10)


def test_equal_calls_give_equal_intervals():
    series = _series(5, 0.8, seed=4)
    np.testing.assert_array_equal(mean_interval(series, 0.95).low, mean_interval(series, 0.95).low)


def test_a_constant_is_certain_and_a_single_sample_says_nothing():
    constant = mean_interval(np.full((50, 2), 3.0), 0.95)
    np.testing.assert_allclose([constant.low, constant.high], 3.0, rtol=1e-14)
    single = mean_interval(np.array([[3.0]]), 0.95)
    assert single.value == 3
    assert np.isnan(single.low).all()
    assert np.isnan(single.high).all()


def test_nan_samples_give_nan():
    series = _series(2, 0.5, seed=5)
    series[7, 0] = np.nan
    found = mean_interval(series, 0.95)
    for bound in (found.value, found.low, found.high):
        np.testing.assert_array_equal(np.isnan(bound), [True, False])


def test_the_root_keeps_the_order_of_bounds_and_is_never_nan_below_zero():
    found = mean_interval(np.array([0.0, 0.0, 0.0, 9.0, 0.0, 0.0, 0.0, 9.0]), 0.95)
    assert found.low < 0
    root = found.sqrt()
    assert root.low == 0
    assert root.low < root.value < root.high
    assert root.value == pytest.approx(1.5)


def test_paired_differences_cover_the_truth_and_are_narrower_than_unpaired_ones():
    weather = np.exp(0.3 * _series(1000, 0.9, seed=6))  # shared by both methods
    errors = 400 * weather * np.exp(0.1 * _series(1000, 0.7, seed=7))
    reference = 900 * weather * np.exp(0.1 * _series(1000, 0.7, seed=8))
    log_mean = np.exp((0.3**2 + 0.1**2) / 2)
    truth = (20 - 30) * np.sqrt(log_mean)
    found = rmse_difference(errors, reference, 0.95)
    assert np.mean((found.low <= truth) & (truth <= found.high)) == pytest.approx(0.95, abs=0.03)
    alone = mean_interval(reference, 0.95).sqrt()
    assert np.median(found.high - found.low) < 0.5 * np.median(alone.high - alone.low)


def test_a_method_does_not_differ_from_itself():
    errors = np.exp(_series(3, 0.9, seed=9))
    found = rmse_difference(errors, errors, 0.95)
    for bound in (found.value, found.low, found.high):
        np.testing.assert_array_equal(bound, 0)


def test_perfect_forecasts_have_a_difference():
    reference = np.exp(_series(3, 0.9, seed=10))
    found = rmse_difference(np.zeros_like(reference), reference, 0.95)
    np.testing.assert_allclose(found.value, -np.sqrt(reference.mean(axis=0)))
    assert np.isfinite(found.low).all()
