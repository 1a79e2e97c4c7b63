# SPDX-License-Identifier: Apache-2.0
"""Scores against numbers worked out by hand, and the symmetries that they must have."""

import numpy as np
import pytest

from isohypse.errors import DataError
from isohypse.evaluation import metrics

LATITUDE = np.array([60.0, 0.0, -60.0])
CLIMATOLOGY = np.float32(5500)


def _fields(seed: int, *shape: int) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal((*shape, len(LATITUDE), 4))
    return (CLIMATOLOGY + 100 * noise).astype(np.float32)


def test_the_mean_of_a_constant_is_the_constant_under_every_weight():
    for weights in (metrics.uniform_weights, metrics.squared_cosine_weights, metrics.cell_weights):
        mean = metrics.grid_mean(np.full((2, 3, 4), 7.5), weights(LATITUDE))
        np.testing.assert_allclose(mean, 7.5, rtol=1e-14)


def test_squared_error_and_bias_by_hand():
    truth = np.full((3, 2), 5500.0)
    forecast = truth + np.array([[3.0, 3.0], [0.0, 6.0], [-3.0, -3.0]])
    uniform = metrics.uniform_weights(LATITUDE)
    assert metrics.mean_squared_error(forecast, truth, uniform) == pytest.approx(12.0)  # (9+9+0+36+9+9)/6
    assert metrics.bias(forecast, truth, uniform) == pytest.approx(1.0)
    # Cells reach from 90 to 30, 30 to -30, -30 to -90: shares 1/4, 1/2, 1/4 of the sphere.
    cells = metrics.cell_weights(LATITUDE)
    assert metrics.mean_squared_error(forecast, truth, cells) == pytest.approx(9 / 4 + 18 / 2 + 9 / 4)
    assert metrics.bias(forecast, truth, cells) == pytest.approx(1.5)


def test_anomaly_correlation_by_hand():
    truth = 5500 + np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 0.0]])
    forecast = 5500 + np.array([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
    # Weights 1/4, 1, 1/4 before they are scaled: f'o' = 1/4, f'^2 = o'^2 = 1/4 + 4.
    weights = metrics.squared_cosine_weights(LATITUDE)
    found = metrics.anomaly_correlation(forecast, truth, CLIMATOLOGY, weights)
    assert found == pytest.approx(0.25 / 4.25)


def test_a_forecast_correlates_with_itself_and_against_its_mirror():
    truth, weights = _fields(0, 5), metrics.cell_weights(LATITUDE)
    mirror = 2 * CLIMATOLOGY - truth
    correlation = metrics.anomaly_correlation
    np.testing.assert_allclose(correlation(truth, truth, CLIMATOLOGY, weights), 1, rtol=1e-12)
    np.testing.assert_allclose(correlation(mirror, truth, CLIMATOLOGY, weights), -1, rtol=1e-6)


def test_anomaly_correlation_ignores_the_size_of_anomalies_and_is_symmetric():
    forecast, truth, weights = _fields(1, 5), _fields(2, 5), metrics.cell_weights(LATITUDE)
    found = metrics.anomaly_correlation(forecast, truth, CLIMATOLOGY, weights)
    stretched = CLIMATOLOGY + 0.5 * (forecast.astype(np.float64) - CLIMATOLOGY)
    np.testing.assert_allclose(metrics.anomaly_correlation(stretched, truth, CLIMATOLOGY, weights), found)
    np.testing.assert_allclose(metrics.anomaly_correlation(truth, forecast, CLIMATOLOGY, weights), found)
    assert np.all(np.abs(found) < 1)


def test_errors_do_not_depend_on_a_shift_of_longitude_or_of_both_heights():
    forecast, truth, weights = _fields(3, 5), _fields(4, 5), metrics.cell_weights(LATITUDE)
    found = metrics.mean_squared_error(forecast, truth, weights)
    rolled = metrics.mean_squared_error(np.roll(forecast, 1, -1), np.roll(truth, 1, -1), weights)
    raised = metrics.mean_squared_error(forecast + np.float64(10), truth + np.float64(10), weights)
    np.testing.assert_allclose(rolled, found, rtol=1e-12)
    np.testing.assert_allclose(raised, found, rtol=1e-9)


def test_mean_squared_error_is_squared_bias_plus_variance_of_the_error():
    forecast, truth, weights = _fields(5, 5), _fields(6, 5), metrics.cell_weights(LATITUDE)
    bias = metrics.bias(forecast, truth, weights)
    spread = metrics.mean_squared_error(forecast - bias[:, None, None], truth, weights)
    np.testing.assert_allclose(
        metrics.mean_squared_error(forecast, truth, weights), bias**2 + spread, rtol=1e-9
    )


def test_the_climatology_has_no_correlation():
    truth = _fields(7, 5)
    forecast = np.full_like(truth, CLIMATOLOGY)
    found = metrics.anomaly_correlation(forecast, truth, CLIMATOLOGY, metrics.cell_weights(LATITUDE))
    assert np.isnan(found).all()


def test_nan_is_never_skipped():
    forecast, truth = _fields(8, 2), _fields(9, 2)
    forecast[0, 1, 1] = np.nan
    weights = metrics.cell_weights(LATITUDE)
    for found in (
        metrics.mean_squared_error(forecast, truth, weights),
        metrics.bias(forecast, truth, weights),
        metrics.anomaly_correlation(forecast, truth, CLIMATOLOGY, weights),
    ):
        assert np.isnan(found[0])
        assert np.isfinite(found[1])


def test_sums_are_exact_where_float32_would_not_be():
    truth = np.full((1000, 1000), 5500.0, np.float32)
    forecast = truth + np.float32(0.001)
    error = np.float64(forecast[0, 0]) - 5500
    found = metrics.mean_squared_error(forecast, truth, np.ones(1000))
    assert found == pytest.approx(error**2, rel=1e-12)


@pytest.mark.parametrize("latitude", [[-60, 0, 60], [60, 0, 0], [120, 0, -60], [60, np.nan, -60]])
def test_latitudes_out_of_order_or_range_are_refused(latitude):
    for weights in (metrics.uniform_weights, metrics.squared_cosine_weights, metrics.cell_weights):
        with pytest.raises(DataError, match="latitude must fall from north to south"):
            weights(np.array(latitude, float))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.ones(4), "weights for 3 latitudes"),
        (np.ones((3, 4)), "weights for 3 latitudes"),
        (np.array([0.5, 0.5, 0.5]), "mean 1"),
        (np.array([-1.0, 3.0, 1.0]), "must not be negative"),
        (np.array([np.nan, 1.0, 1.0]), "must not be negative"),
    ],
)
def test_weights_that_do_not_fit_are_refused(weights, message):
    with pytest.raises(DataError, match=message):
        metrics.grid_mean(np.zeros((3, 4)), weights)
