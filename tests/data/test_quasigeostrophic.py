# SPDX-License-Identifier: Apache-2.0
"""The embedded model: transforms and dynamics against exact results."""

from dataclasses import replace
from datetime import datetime
from types import SimpleNamespace

import numpy as np
import pytest

from isohypse.data.quasigeostrophic import Trajectory
from isohypse.data.quasigeostrophic.balance import NonlinearBalance
from isohypse.data.quasigeostrophic.dynamics import PARAMETERS, QuasigeostrophicModel
from isohypse.data.quasigeostrophic.forcing import OMEGA_PER_S
from isohypse.data.quasigeostrophic.sphere import EARTH_RADIUS_M, LatitudeLongitudeSynthesis, Sphere

TRUNCATION = 21


def settings(**changes) -> SimpleNamespace:
    values = {"truncation": TRUNCATION, "seed": 0, "spin_up_days": 5, "noise_m": 3.0, "tides": True}
    return SimpleNamespace(**(values | changes))


def sphere_mean(sphere: Sphere, grid: np.ndarray) -> np.ndarray:
    """Area mean of each field of (longitude, field, latitude)."""
    return grid.mean(0) @ sphere.gauss_weight / 2


@pytest.fixture(scope="module")
def model() -> QuasigeostrophicModel:
    """In double precision, so that exact results can be asked for."""
    return QuasigeostrophicModel(TRUNCATION, precision=np.float64)


@pytest.fixture(scope="module")
def weather() -> Trajectory:
    """A state with developed weather."""
    trajectory = Trajectory(settings(), datetime(2001, 1, 1))
    for _ in range(160):
        trajectory.advance()
    return trajectory


# Sphere


@pytest.mark.parametrize("truncation", [21, 31])
def test_legendre_functions_are_orthonormal(truncation):
    sphere = Sphere(truncation)
    for m in range(truncation + 1):
        table = sphere.legendre[m, m:]
        gram = (table * sphere.gauss_weight) @ table.T
        np.testing.assert_allclose(gram, np.eye(len(table)), atol=1e-12)


def test_analysis_undoes_synthesis(sphere, random_coefficients):
    coefficients = random_coefficients()
    np.testing.assert_allclose(sphere.analysis(sphere.synthesis(coefficients)), coefficients, atol=1e-12)


def test_synthesis_of_known_harmonics(sphere):
    """sqrt(3)/2 cos(lat) cos(lon) is the harmonic (1, 1), sqrt(3/2) sin(lat) the harmonic (0, 1)."""
    coefficients = np.zeros((TRUNCATION + 1, 2, 2, TRUNCATION + 1))
    coefficients[1, 0, 0, 1] = 0.5  # exp(i lon) and its conjugate add up to a cosine
    coefficients[0, 0, 1, 1] = 1.0
    grid = sphere.synthesis(coefficients)
    cosine = np.cos(sphere.longitude_rad)[:, None] * np.sqrt(1 - sphere.mu**2)
    np.testing.assert_allclose(grid[:, 0], np.sqrt(3) / 2 * cosine, atol=1e-13)
    np.testing.assert_allclose(
        grid[:, 1], np.broadcast_to(np.sqrt(1.5) * sphere.mu, cosine.shape), atol=1e-13
    )


def test_laplacian_two_ways(sphere, random_coefficients):
    """Eigenvalues against [f_lonlon / (1 - mu^2) + d/dmu((1 - mu^2) f_mu)] / a^2, derived on the grid."""
    coefficients = random_coefficients(fields=1, largest=TRUNCATION - 1)
    wave = np.arange(TRUNCATION + 1)[:, None, None]
    twice_zonal = -(wave**2) * coefficients[:, :, 0]
    slope = sphere.meridional_derivative(coefficients)  # (1 - mu^2) f_mu, one n more than f: still within T
    outer = sphere.meridional_derivative(sphere.analysis(slope)) / (1 - sphere.mu**2)
    zonal = sphere.synthesis(twice_zonal[:, :, None]) / (1 - sphere.mu**2)
    expected = sphere.synthesis(coefficients * sphere.laplacian)
    np.testing.assert_allclose(
        (zonal + outer) / EARTH_RADIUS_M**2, expected, atol=1e-10 * np.abs(expected).max()
    )


def test_streamfunction_of_solid_rotation(sphere):
    """u = U cos(lat) has psi = -a U sin(lat)."""
    wind = np.broadcast_to(20 * np.sqrt(1 - sphere.mu**2), (sphere.longitudes, sphere.latitudes))
    psi = sphere.synthesis(sphere.streamfunction_of_zonal_wind(wind[:, None]))[:, 0]
    np.testing.assert_allclose(psi, np.broadcast_to(-EARTH_RADIUS_M * 20 * sphere.mu, psi.shape), rtol=1e-10)


def test_regular_grid_agrees_with_the_gaussian_grid(sphere, random_coefficients):
    """The same harmonics evaluated in single precision at the Gaussian points."""
    coefficients = random_coefficients()
    regular = LatitudeLongitudeSynthesis(TRUNCATION, sphere.latitude_deg, np.degrees(sphere.longitude_rad))
    out = np.empty((3, sphere.latitudes, sphere.longitudes), np.float32)
    regular(coefficients, out)
    expected = sphere.synthesis(coefficients).transpose(1, 2, 0)
    np.testing.assert_allclose(out, expected, atol=2e-6 * np.abs(expected).max())


# Dynamics


def test_potential_vorticity_inverts(model, random_coefficients):
    psi = random_coefficients()
    psi[..., 0] = 0.0  # a constant streamfunction is no motion
    np.testing.assert_allclose(model.psi(model.potential_vorticity(psi)), psi, atol=1e-11)


def test_advection_vanishes_for_a_function_of_psi(model, monkeypatch, random_coefficients):
    """J(psi, q) = 0 where q is proportional to psi: one barotropic wave number, without f and mountains."""
    monkeypatch.setattr(model, "background", np.zeros_like(model.background))
    psi = random_coefficients(fields=1) * (np.arange(TRUNCATION + 1) == 6) * 1e7
    vorticity = model.potential_vorticity(np.repeat(psi, 3, axis=2))
    scale = np.abs(vorticity).max() ** 2
    assert np.abs(model.advection(vorticity)).max() < 1e-12 * scale


def test_advection_conserves_enstrophy_and_energy(model, weather):
    """The mean of q J and of psi J vanishes over the sphere, as products of two fields are not aliased."""
    vorticity, sphere = weather.vorticity, model.sphere
    advection = model.advection(vorticity)
    full = vorticity + model.background[:, :, 3:]
    for field in (full, model.psi(vorticity)):
        values, rate = sphere.synthesis(field), sphere.synthesis(advection)
        size = np.sqrt(sphere_mean(sphere, values**2) * sphere_mean(sphere, rate**2))
        assert np.abs(sphere_mean(sphere, values * rate) / size).max() < 1e-10


def test_rossby_haurwitz_wave_moves_at_its_speed(model, monkeypatch):
    """A barotropic harmonic n drifts west by 2 Omega / (n (n + 1)) radians a second (Haurwitz 1940)."""
    background = np.zeros_like(model.background)  # rotation alone, no mountains
    background[0, 0, 3:, 1] = 2 * OMEGA_PER_S * np.sqrt(2 / 3)
    monkeypatch.setattr(model, "background", background)
    m, n = 4, 5
    psi = np.zeros((TRUNCATION + 1, 2, 3, TRUNCATION + 1))
    psi[m, 0, :, n] = 1e7
    tendency = model.psi(model.advection(model.potential_vorticity(psi)))
    speed = 2 * OMEGA_PER_S / (n * (n + 1))  # c(t) = c exp(i m speed t)
    expected = np.zeros_like(psi)
    expected[m, 1, :, n] = m * speed * 1e7
    np.testing.assert_allclose(tendency, expected, atol=1e-9 * np.abs(expected).max())


def test_relaxation_state_is_at_rest_thermally(model):
    """At psi* the relaxation is balanced: what remains of the linear tendency is drag alone."""
    vorticity = model.potential_vorticity(model.psi_mean)
    linear = model._apply(model.dissipation, vorticity) + model.forcing(0.0)
    lowest = model.psi_mean[:, :, 2] * model.sphere.laplacian
    drag = -lowest / (model.parameters.ekman_days * 86400)
    np.testing.assert_allclose(linear[:, :, 2], drag, atol=1e-6 * np.abs(drag).max())
    assert np.abs(linear[:, :, :2]).max() < 1e-6 * np.abs(drag).max()


@pytest.mark.parametrize("truncation", [21, 31])
def test_halving_the_step_changes_a_day_by_less_than_the_analysis_noise(truncation, rms_on_sphere):
    trajectory = Trajectory(settings(truncation=truncation), datetime(2001, 1, 1))
    for _ in range(100):
        trajectory.advance()
    heights = []
    for factor in (1, 2):
        parameters = PARAMETERS[truncation]
        steps = factor * parameters.steps_per_frame
        model = QuasigeostrophicModel(truncation, replace(parameters, steps_per_frame=steps))
        vorticity = trajectory.vorticity
        for _ in range(4):
            vorticity = model.advance(vorticity, 1.0)
        heights.append(NonlinearBalance(truncation)(model.psi(vorticity))[:, :, 1])
    assert 0 < rms_on_sphere(heights[1] - heights[0]) < 0.3 * trajectory.analysis_error.rms_m


def test_single_precision_of_the_jacobian_is_far_below_the_analysis_noise(model, weather, rms_on_sphere):
    """Two days from the same state, the transforms in single and in double precision: 500 hPa heights."""
    heights = []
    for each in (model, QuasigeostrophicModel(TRUNCATION)):
        vorticity = weather.vorticity
        for _ in range(8):
            vorticity = each.advance(vorticity, 1.0)
        heights.append(NonlinearBalance(TRUNCATION, np.float64)(each.psi(vorticity))[:, :, 1])
    assert 0 < rms_on_sphere(heights[1] - heights[0]) < 0.01
