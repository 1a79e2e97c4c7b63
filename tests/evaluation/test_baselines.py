# SPDX-License-Identifier: Apache-2.0
"""Baselines find the truth of data whose truth is known, and never look beyond the training frames."""

import logging

import numpy as np
import pytest

from isohypse.config.assessment import RidgeVar
from isohypse.config.settings import BASELINES
from isohypse.errors import ConfigurationError, DataError
from isohypse.evaluation.baselines import fit_baseline
from isohypse.evaluation.baselines.eofs import fit_eofs
from isohypse.evaluation.baselines.ridge_var import principal_components
from isohypse.evaluation.cases import BLOCK_FRAMES, Cases
from isohypse.evaluation.scoring import run_forecast
from isohypse.forecasting import Forecaster

GRID = (5, 6)
VAR = RidgeVar(eofs=3, frames=2, penalty=0.01)


def _rmse(forecaster: Forecaster, cases: Cases) -> np.ndarray:
    """[lead]: unweighted root-mean-square error of all scored forecasts, metres."""
    made = run_forecast(forecaster, cases, cases.scored)
    return np.sqrt(np.square(made.forecast - made.truth, dtype=np.float64).mean(axis=(0, 2, 3, 4)))


def _linear_process(frames: int, seed: int, noise_m: float) -> np.ndarray:
    """Three patterns, two of which rotate into each other: p(t + 1) = A p(t) + noise, in metres."""
    rng = np.random.default_rng(seed)
    angle = 0.6
    step = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 0.5]])
    state = np.zeros((frames, 3))
    for t in range(1, frames):
        state[t] = 0.95 * step @ state[t - 1] + noise_m * rng.standard_normal(3)
    patterns = np.linalg.qr(rng.standard_normal((30, 3)))[0].T * np.sqrt(30)  # each of mean square 1
    return (state @ patterns).reshape(frames, 1, *GRID)


def test_every_configured_baseline_is_a_forecaster_that_leaves_its_input_alone(cases):
    for name in BASELINES:
        forecaster = fit_baseline(name, cases, "standard", VAR)
        assert isinstance(forecaster, Forecaster)
        assert forecaster.name == name
        made = run_forecast(forecaster, cases, cases.scored)
        assert made.forecast.dtype == np.float32
        np.testing.assert_array_equal(made.inputs[0], cases.heights.values[cases.scored.inputs(0)])


def test_an_unknown_baseline_is_refused(cases):
    with pytest.raises(ConfigurationError, match="'oracle' is unknown; there are persistence"):
        fit_baseline("oracle", cases, "standard", VAR)


def test_persistence_of_a_constant_field_has_no_error(make_cases):
    cases = make_cases(np.full((60, 1, *GRID), 12.0), training=40)
    np.testing.assert_array_equal(_rmse(fit_baseline("persistence", cases, "standard", VAR), cases), 0)


def test_persistence_is_the_last_frame(cases):
    made = run_forecast(fit_baseline("persistence", cases, "standard", VAR), cases, cases.scored)
    for lead in range(cases.scored.t_out):
        np.testing.assert_array_equal(made.forecast[:, lead], made.inputs[:, -1])


def test_climatology_is_that_of_the_protocol(cases):
    proper = fit_baseline("climatology", cases, "standard", VAR)
    np.testing.assert_array_equal(run_forecast(proper, cases, cases.scored).forecast, 5500)
    published = fit_baseline("climatology", cases, "paper", VAR)
    made = run_forecast(published, cases, cases.scored)
    np.testing.assert_allclose(made.forecast[3, 1], made.truth.mean(axis=(0, 1)), rtol=1e-6)
    assert "sees the truth" in published.label
    assert "sees the truth" not in proper.label


def test_damped_persistence_finds_the_autocorrelation_of_each_point(make_cases, red_noise):
    autocorrelation = np.linspace(-0.5, 0.95, 30).reshape(1, *GRID)
    cases = make_cases(red_noise(6000, autocorrelation, seed=2), training=5900)
    found = fit_baseline("damped_persistence", cases, "standard", VAR).coefficients
    expected = np.stack([autocorrelation, autocorrelation**2]).clip(0)
    # A coefficient's standard error is at most 1 / sqrt(5900) = 0.013.
    np.testing.assert_allclose(found, expected, atol=0.05)
    assert found.min() >= 0
    assert found.max() <= 1


def test_damped_persistence_beats_persistence_and_climatology_on_red_noise(make_cases, red_noise):
    cases = make_cases(red_noise(3000, np.full((1, *GRID), 0.7), seed=3), training=2000)
    names = ("damped_persistence", "persistence", "climatology")
    damped, kept, mean = (_rmse(fit_baseline(name, cases, "standard", VAR), cases) for name in names)
    assert np.all(damped < kept)
    assert np.all(damped < mean)
    np.testing.assert_allclose(damped, 100 * np.sqrt([1 - 0.7**2, 1 - 0.7**4]), rtol=0.03)  # exact for AR(1)


def test_ridge_var_attains_the_noise_floor_of_a_linear_process(make_cases):
    cases = make_cases(_linear_process(4000, seed=4, noise_m=10.0), training=3000)
    forecaster = fit_baseline("ridge_var", cases, "standard", VAR)
    found = _rmse(forecaster, cases)
    first = 3 * 10.0**2  # three patterns of mean square 1
    second = first + 10.0**2 * (2 * 0.95**2 + (0.95 * 0.5) ** 2)
    np.testing.assert_allclose(found, np.sqrt([first, second]), rtol=0.03)
    assert np.all(found < 0.8 * _rmse(fit_baseline("damped_persistence", cases, "standard", VAR), cases))


def test_ridge_var_carries_on_what_its_eofs_leave_out(make_cases, red_noise):
    grains = red_noise(4000, np.full((1, *GRID), 0.99), seed=5, size_m=20.0)
    cases = make_cases(_linear_process(4000, seed=5, noise_m=10.0) + grains, training=3000)
    with_rest = fit_baseline("ridge_var", cases, "standard", VAR)
    assert 0.9 < np.median(with_rest.damping[0]) <= 1
    without = type(with_rest)(**{**vars(with_rest), "damping": np.zeros_like(with_rest.damping)})
    assert _rmse(with_rest, cases)[0] < 0.9 * _rmse(without, cases)[0]


def test_principal_components_follow_each_other_across_blocks(make_cases, red_noise):
    frames = 2 * BLOCK_FRAMES + 77
    cases = make_cases(red_noise(frames + 20, np.full((1, *GRID), 0.9), seed=11), training=frames)
    anomalies = cases.heights.values[:frames] - np.float32(5500)
    basis = fit_eofs(anomalies, np.ones(5), 4)
    found, _ = principal_components(cases, basis)
    np.testing.assert_allclose(found, basis.project(anomalies), atol=1e-4)


def test_a_stronger_penalty_draws_forecasts_to_climatology(make_cases):
    cases = make_cases(_linear_process(400, seed=6, noise_m=10.0), training=300)
    sizes = []
    for ridge in (0.01, 300.0, 1e7):
        section = RidgeVar(eofs=3, frames=2, penalty=ridge)
        sizes.append(np.abs(fit_baseline("ridge_var", cases, "standard", section).coefficients).max())
    assert sizes[0] > sizes[1] > sizes[2]
    assert sizes[2] < 1e-3


def test_ridge_var_takes_fewer_eofs_and_frames_than_asked_and_says_so(make_cases, red_noise, caplog):
    cases = make_cases(red_noise(120, np.full((1, *GRID), 0.9), seed=7), training=60)
    with caplog.at_level(logging.WARNING):
        forecaster = fit_baseline("ridge_var", cases, "standard", RidgeVar(eofs=250, frames=9))
    assert forecaster.frames_used == cases.scored.t_in == 3
    assert forecaster.eofs.count == 4  # five of 60 frames for each of 3 x 4 predictors
    assert "4 EOFs, not 250: 60 training frames" in caplog.text


def test_ridge_var_refuses_data_without_anomalies_or_with_too_few_frames(make_cases, red_noise):
    with pytest.raises(DataError, match="nothing to fit"):
        fit_baseline("ridge_var", make_cases(np.zeros((60, 1, *GRID)), training=40), "standard", VAR)
    few = make_cases(red_noise(60, np.full((1, *GRID), 0.9), seed=8), training=11, t_in=8)
    with pytest.raises(DataError, match="11 training frames are too few for 8 frames of one EOF"):
        fit_baseline("ridge_var", few, "standard", RidgeVar(frames=8))


@pytest.mark.parametrize("name", ["damped_persistence", "ridge_var"])
def test_nothing_is_fitted_on_frames_beyond_training(name, make_cases, red_noise):
    anomalies = red_noise(700, np.full((2, *GRID), 0.9), seed=9)
    poisoned = anomalies.copy()
    poisoned[300:] = 1e9
    clean, dirty = (
        fit_baseline(name, make_cases(data, training=300), "standard", VAR) for data in (anomalies, poisoned)
    )
    for field in ("coefficients", "damping"):
        if hasattr(clean, field):
            np.testing.assert_array_equal(getattr(clean, field), getattr(dirty, field))
    if name == "ridge_var":
        np.testing.assert_array_equal(clean.eofs.patterns, dirty.eofs.patterns)


def test_eofs_are_orthonormal_and_find_the_variance_in_order():
    rng = np.random.default_rng(10)
    anomalies = (rng.standard_normal((200, 2, *GRID)) * np.array([50.0, 5.0])[:, None, None]).astype(
        np.float32
    )
    weights = np.array([0.5, 1.0, 2.0, 1.0, 0.5])
    basis = fit_eofs(anomalies, weights, 60)
    np.testing.assert_allclose(basis.patterns.T @ basis.patterns, np.eye(60), atol=1e-4)
    variance = np.square(basis.project(anomalies)).mean(axis=0)
    assert np.all(np.diff(variance) <= 1e-6)
    assert variance.sum() == pytest.approx(2, rel=1e-4)  # one for each level, whatever its size in metres
    np.testing.assert_allclose(basis.compose(basis.project(anomalies), (2, *GRID)), anomalies, atol=0.05)
