# SPDX-License-Identifier: Apache-2.0
"""The embedded model's heights: balance, levels, tides, tropical waves and errors against exact results."""

from datetime import datetime
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

from isohypse.data import ncep_format
from isohypse.data.levels import LEVEL_MEAN_M
from isohypse.data.quasigeostrophic import Trajectory
from isohypse.data.quasigeostrophic.balance import (
    GRAVITY_M_S2,
    NonlinearBalance,
    balance_factors,
    linear_balance,
)
from isohypse.data.quasigeostrophic.forcing import OMEGA_PER_S
from isohypse.data.quasigeostrophic.heights import (
    LATITUDE_DEG,
    LONGITUDE_DEG,
    TROPICAL_WAVES,
    AnalysisError,
    TropicalWaves,
    tides,
    vertical_weights,
)
from isohypse.data.quasigeostrophic.sphere import EARTH_RADIUS_M, Sphere

TRUNCATION = 21


@pytest.fixture(scope="module")
def weather() -> Trajectory:
    """A state with developed weather."""
    trajectory = Trajectory(
        SimpleNamespace(truncation=TRUNCATION, seed=0, spin_up_days=5, noise_m=3.0, tides=True),
        datetime(2001, 1, 1),
    )
    for _ in range(160):
        trajectory.advance()
    return trajectory


def test_linear_balance_of_solid_rotation(sphere):
    """psi = -a U sin(lat) balances g z = -Omega a U (sin(lat)^2 - 1/3): lap(g z) = div(f grad psi)."""
    speed = 15.0
    psi = np.zeros((TRUNCATION + 1, 2, 1, TRUNCATION + 1))
    psi[0, 0, 0, 1] = -EARTH_RADIUS_M * speed * np.sqrt(2 / 3)
    height = sphere.synthesis(linear_balance(psi, balance_factors(TRUNCATION)))[0, 0]
    expected = -OMEGA_PER_S * EARTH_RADIUS_M * speed * (sphere.mu**2 - 1 / 3) / GRAVITY_M_S2
    np.testing.assert_allclose(height, expected, rtol=1e-10)


def test_linear_balance_satisfies_its_equation(sphere, random_coefficients):
    """lap(g z) = f lap(psi) + grad f . grad psi, the right side by derivatives on the grid."""
    psi = random_coefficients(fields=1, largest=TRUNCATION - 1)
    height = linear_balance(psi, balance_factors(TRUNCATION))
    left = GRAVITY_M_S2 * sphere.synthesis(height * sphere.laplacian)
    slope = (
        sphere.meridional_derivative(psi) / EARTH_RADIUS_M**2
    )  # grad f . grad psi = 2 Omega (1 - mu^2) psi_mu
    right = 2 * OMEGA_PER_S * (sphere.mu * sphere.synthesis(psi * sphere.laplacian) + slope)
    np.testing.assert_allclose(left, right, atol=1e-10 * np.abs(right).max())


def test_nonlinear_balance_of_solid_rotation(sphere):
    """u = U cos(lat) balances g z = -(Omega a U + U^2 / 2) (sin(lat)^2 - 1/3), by f u + u^2 tan(lat) / a."""
    speed = 40.0
    psi = np.zeros((TRUNCATION + 1, 2, 1, TRUNCATION + 1))
    psi[0, 0, 0, 1] = -EARTH_RADIUS_M * speed * np.sqrt(2 / 3)
    height = sphere.synthesis(NonlinearBalance(TRUNCATION, np.float64)(psi))[0, 0]
    factor = OMEGA_PER_S * EARTH_RADIUS_M * speed + speed**2 / 2
    np.testing.assert_allclose(height, -factor * (sphere.mu**2 - 1 / 3) / GRAVITY_M_S2, rtol=1e-10)


def test_nonlinear_balance_turns_with_the_sphere():
    """What it adds knows no f: solid rotation about an axis in the equator's plane has -U^2/2 (s^2 - 1/3)."""
    sphere, speed = Sphere(TRUNCATION), 40.0
    psi = np.zeros((TRUNCATION + 1, 2, 1, TRUNCATION + 1))
    psi[1, 0, 0, 1] = -0.5 * EARTH_RADIUS_M * speed * 2 / np.sqrt(3)  # -a U s, s = cos(lat) cos(lon)
    total = NonlinearBalance(TRUNCATION, np.float64)(psi) - linear_balance(psi, balance_factors(TRUNCATION))
    distance = np.sqrt(1 - sphere.mu**2) * np.cos(sphere.longitude_rad)[:, None]
    expected = -(speed**2) / 2 * (distance**2 - 1 / 3) / GRAVITY_M_S2
    np.testing.assert_allclose(sphere.synthesis(total)[:, 0], expected, atol=1e-9)


def test_nonlinear_balance_deepens_lows_and_flattens_highs(weather, sphere):
    """The gradient wind: skewness falls, and the highest high of the extratropics comes down."""
    psi = weather.model.psi(weather.vorticity)
    single = NonlinearBalance(TRUNCATION)(psi)
    np.testing.assert_allclose(single, NonlinearBalance(TRUNCATION, np.float64)(psi), atol=1e-3)
    nonlinear, linear = (
        sphere.synthesis(height)[:, 1]
        for height in (single, linear_balance(psi, balance_factors(TRUNCATION)))
    )
    assert nonlinear.max() < linear.max() - 20
    assert nonlinear.min() < linear.min()


def test_vertical_weights_are_exact_at_the_native_levels_and_linear_between():
    for index, native in enumerate((200.0, 500.0, 800.0)):
        np.testing.assert_allclose(vertical_weights(native), np.eye(3)[index], atol=1e-12)
    np.testing.assert_allclose(vertical_weights(np.sqrt(200 * 500)), [0.5, 0.5, 0], atol=1e-12)


def test_vertical_weights_are_continuous_and_fade_beyond_the_native_levels():
    for native in (200.0, 800.0):
        below, above = vertical_weights(native * 0.9999), vertical_weights(native * 1.0001)
        np.testing.assert_allclose(below, above, atol=1e-3)
    upper = [vertical_weights(level)[0] for level in (200, 100, 50, 10)]
    assert upper == sorted(upper, reverse=True)
    assert 0.3 < upper[-1] < 0.6
    linear = np.log(1000 / 500) / np.log(800 / 500)
    ground = vertical_weights(1000)
    assert ground.sum() == pytest.approx(1.0)
    assert 1 < ground[2] < linear


def test_level_means_ascend_as_temperatures_of_the_atmosphere():
    """The hypsometric equation turns every layer's thickness into 210 to 290 K."""
    levels = np.array(ncep_format.LEVELS_HPA, float)
    thickness = np.diff([LEVEL_MEAN_M[level] for level in ncep_format.LEVELS_HPA])
    temperature = thickness * GRAVITY_M_S2 / (287.05 * np.log(levels[:-1] / levels[1:]))
    assert ((temperature > 210) & (temperature < 290)).all()


def test_tides_follow_the_sun():
    """Six hours later the same wave stands 90 degrees further west; none at the poles."""
    np.testing.assert_allclose(tides(6), np.roll(tides(0), -36, axis=1), atol=1e-5)
    assert np.abs(tides(0)[[0, -1]]).max() == 0
    assert 10 < np.abs(tides(0)).max() < 13  # ERA5: 11.1 m twice a day and 0.6 m once


def test_tropical_waves_have_the_stated_size_memory_and_drift():
    waves, rng = TropicalWaves(), np.random.default_rng(0)
    states = [waves.draw(rng)]
    for _ in range(20_000):
        states.append(waves.next(states[-1], rng))
    states = np.array(states)
    equator = np.abs(LATITUDE_DEG).argmin()
    fields = np.stack([waves.heights(state)[equator] for state in states[::40]])
    expected = np.sqrt(sum(size**2 for _, size, _, _ in TROPICAL_WAVES))
    assert np.sqrt((fields**2).mean()) == pytest.approx(expected, rel=0.1)
    amplitudes = states[..., 0] + 1j * states[..., 1]
    for index, (wavenumber, _, memory_days, drift) in enumerate(TROPICAL_WAVES):
        before, after = amplitudes[:-4, index], amplitudes[4:, index]
        lagged = (after * before.conj()).mean() / (np.abs(before) ** 2).mean()
        assert np.abs(lagged) == pytest.approx(np.exp(-1 / memory_days), abs=0.03)
        # A crest at longitude 0 is, a day later, at `drift`: there exp(i k lon) is real again.
        crest = lagged * np.exp(1j * np.radians(wavenumber * drift))
        assert np.angle(crest) == pytest.approx(0, abs=0.05)
    assert waves.heights(states[0]).shape == (len(LATITUDE_DEG), len(LONGITUDE_DEG))


def test_analysis_error_has_the_stated_size_and_memory(rms_on_sphere):
    error, rng = AnalysisError(TRUNCATION, 3.0), np.random.default_rng(0)
    states = [error.draw(rng)]
    for _ in range(400):
        states.append(error.next(states[-1], rng))
    assert np.sqrt(np.mean([rms_on_sphere(state) ** 2 for state in states])) == pytest.approx(3.0, rel=0.03)
    change = np.mean([rms_on_sphere(b - a) ** 2 for a, b in pairwise(states)])
    assert 1 - change / (2 * 3.0**2) == pytest.approx(np.exp(-6 / 9), abs=0.03)
