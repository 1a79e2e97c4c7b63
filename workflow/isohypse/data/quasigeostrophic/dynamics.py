# SPDX-License-Identifier: Apache-2.0
"""The three-level quasi-geostrophic equations of Marshall & Molteni (1993, J. Atmos. Sci. 50, 1792).

Potential vorticity q of the levels 200, 500 and 800 hPa follows

    dq/dt = -J(psi, q) - R - E - hyperdiffusion
    q     = (laplacian + C) psi + f + [f h / H0 at 800 hPa only]
    R     = C (psi - psi*) / tau_radiation        E = laplacian psi / tau_ekman  at 800 hPa only

with C the coupling of the levels by the two Rossby radii and psi* the relaxation state (`forcing.py`).
Differences from the paper: relaxation to an analytic, seasonal psi* instead of an observed forcing, one
drag everywhere, shorter time scales. The state here is q' = q - f - f h / H0, axes (m, part, level, n).
"""

from dataclasses import dataclass

import numpy as np

from isohypse.data.quasigeostrophic.forcing import (
    CLIMATES,
    OMEGA_PER_S,
    relaxation_state,
    topographic_vorticity,
)
from isohypse.data.quasigeostrophic.sphere import EARTH_RADIUS_M, Sphere, weighted_transpose

DAY_S = 86400.0
FRAME_S = 6 * 3600.0  # the model is seen every six hours
LEVELS = 3  # 200, 500, 800 hPa


@dataclass(frozen=True)
class Parameters:
    """Constants of the dynamics; MM93 = Marshall & Molteni (1993)."""

    rossby_radius_upper_m: float = 700e3
    """Rossby radius of deformation of the layer 200-500 hPa (MM93)."""
    rossby_radius_lower_m: float = 450e3
    """Rossby radius of deformation of the layer 500-800 hPa (MM93)."""
    radiation_days: float = 10.0
    """Time scale of the relaxation of temperature. MM93: 25; shorter, for want of their forcing."""
    ekman_days: float = 0.85
    """Spin-down time of the boundary layer at 800 hPa. MM93: 3 over sea, 1.5 over land."""
    hyperdiffusion_days: float = 1.5
    """Time scale of del^8 diffusion at the smallest wave, n = T. MM93: 2."""
    steps_per_frame: int = 2
    """Runge-Kutta steps in six hours. Against steps of 15 minutes one day's forecast at 500 hPa is 0.3 m off
    (T21; T31 with three: 0.1 m), a tenth of the analysis error; one step in six hours is unstable."""


PARAMETERS = {21: Parameters(), 31: Parameters(radiation_days=12.0, steps_per_frame=3)}


def coupling_matrix(parameters: Parameters) -> np.ndarray:
    """C (3, 3), 1/m2: how the thickness of the two layers enters the potential vorticity."""
    upper = parameters.rossby_radius_upper_m**-2
    lower = parameters.rossby_radius_lower_m**-2
    return np.array([[-upper, upper, 0.0], [upper, -upper - lower, lower], [0.0, lower, -lower]])


class QuasigeostrophicModel:
    """Advances q' in time. Buffers are reused: one model serves one trajectory, not several threads.

    Linear operators couple levels, never wave numbers: as matrices over (level, n) they are mostly
    zeros, but one product over all (m, part) is still faster than any loop over n.
    """

    def __init__(
        self,
        truncation: int,
        parameters: Parameters | None = None,
        precision: type[np.floating] = np.float32,  # of the transforms in the Jacobian; the state is float64
    ):
        self.precision = precision
        self.parameters = parameters or PARAMETERS[truncation]
        self.sphere = Sphere(truncation)
        self.modes = truncation + 1
        coupling = coupling_matrix(self.parameters)
        n = np.arange(self.modes)
        vorticity = self.sphere.laplacian[:, None, None] * np.eye(LEVELS)
        inverse = np.zeros((self.modes, LEVELS, LEVELS))
        inverse[1:] = np.linalg.inv((coupling + vorticity)[1:])  # a constant psi (n = 0) has no effect
        dissipation = np.broadcast_to(coupling, vorticity.shape) / (self.parameters.radiation_days * DAY_S)
        dissipation = dissipation + np.diag([0, 0, 1]) * vorticity / (self.parameters.ekman_days * DAY_S)
        self.vorticity_of_psi = _across_levels(coupling + vorticity)
        self.psi_of_vorticity = _across_levels(inverse)
        self.dissipation = _across_levels(-dissipation @ inverse)
        self.step_s = FRAME_S / self.parameters.steps_per_frame
        steps = self.step_s / (self.parameters.hyperdiffusion_days * DAY_S)
        self.hyperdiffusion = np.exp(-steps * (n * (n + 1) / (truncation * (truncation + 1))) ** 4)
        self._set_forcing(truncation, coupling)
        self._prepare_advection()

    def _set_forcing(self, truncation: int, coupling: np.ndarray) -> None:
        sphere, climate = self.sphere, CLIMATES[truncation]
        # What q has beyond q'; the first three fields are psi, which has nothing to add.
        self.background = np.zeros((self.modes, 2, 2 * LEVELS, self.modes), self.precision)
        self.background[0, 0, LEVELS:, 1] = 2 * OMEGA_PER_S * np.sqrt(2 / 3)  # f: mu = sqrt(2/3) P[0, 1]
        self.background[:, :, -1] += topographic_vorticity(sphere, climate).astype(self.precision)
        self.psi_mean, self.psi_season = relaxation_state(sphere, climate)
        rate = coupling / (self.parameters.radiation_days * DAY_S)
        self.forcing_mean, self.forcing_season = rate @ self.psi_mean, rate @ self.psi_season

    def _prepare_advection(self) -> None:
        """Tables and buffers of the Jacobian in its precision."""
        sphere, modes = self.sphere, self.modes
        both = np.concatenate([self.psi_of_vorticity, np.eye(LEVELS * modes)], axis=1)
        # The metric of the Jacobian and its sign in the tendency are part of the analysis.
        metric = -sphere.gauss_weight / (EARTH_RADIUS_M**2 * (1 - sphere.mu**2))
        tables = {
            "legendre": sphere.legendre,
            "legendre_slope": sphere.legendre_slope,
            "fourier": sphere.fourier,
            "fourier_slope": sphere.fourier_slope,
            "fourier_analysis": sphere.fourier_analysis,
            "analysis": weighted_transpose(sphere.legendre, metric),
        }
        self._tables = {name: _without_tiny(table).astype(self.precision) for name, table in tables.items()}
        self._tables["both"] = both.astype(self.precision)
        self._fields = np.empty((modes, 2, 2 * LEVELS, modes), self.precision)
        self._waves = np.empty((modes, 4 * LEVELS, sphere.latitudes), self.precision)
        grid = (2, sphere.longitudes, 2 * LEVELS, sphere.latitudes)
        self._zonal, self._meridional = np.empty(grid, self.precision)
        half = (2, sphere.longitudes, LEVELS, sphere.latitudes)
        self._jacobian, self._product = np.empty(half, self.precision)
        self._jacobian_waves = np.empty((2 * modes, LEVELS * sphere.latitudes), self.precision)

    def psi(self, vorticity: np.ndarray) -> np.ndarray:
        """Streamfunction (m2/s) of q' (1/s), both (m, part, level, n)."""
        return self._apply(self.psi_of_vorticity, vorticity)

    def potential_vorticity(self, psi: np.ndarray) -> np.ndarray:
        """q' (1/s) of the streamfunction (m2/s), both (m, part, level, n)."""
        return self._apply(self.vorticity_of_psi, psi)

    def _apply(self, operator: np.ndarray, field: np.ndarray) -> np.ndarray:
        return (field.reshape(2 * self.modes, -1) @ operator).reshape(field.shape)

    def forcing(self, season: float) -> np.ndarray:
        """Tendency (1/s2) by the relaxation state; `season` is +1 in northern midwinter, -1 in midsummer."""
        return self.forcing_mean + season * self.forcing_season

    def advection(self, vorticity: np.ndarray) -> np.ndarray:
        """-J(psi, q), 1/s2: what remains without forcing and dissipation; exact but for truncation."""
        fields, tables, modes, points = self._fields, self._tables, self.modes, self.sphere.longitudes
        rows = vorticity.astype(self.precision).reshape(2 * modes, -1)
        np.matmul(rows, tables["both"], out=fields.reshape(2 * modes, -1))
        fields += self.background  # psi of three levels, then q of three levels
        coefficients, waves = fields.reshape(modes, -1, modes), self._waves.reshape(2 * modes, -1)
        np.matmul(coefficients, tables["legendre"], out=self._waves)
        np.matmul(tables["fourier_slope"], waves, out=self._zonal.reshape(points, -1))
        np.matmul(coefficients, tables["legendre_slope"], out=self._waves)
        np.matmul(tables["fourier"], waves, out=self._meridional.reshape(points, -1))
        np.multiply(self._zonal[:, :LEVELS], self._meridional[:, LEVELS:], out=self._jacobian)
        np.multiply(self._meridional[:, :LEVELS], self._zonal[:, LEVELS:], out=self._product)
        self._jacobian -= self._product
        np.matmul(tables["fourier_analysis"], self._jacobian.reshape(points, -1), out=self._jacobian_waves)
        tendency = self._jacobian_waves.reshape(modes, 2 * LEVELS, -1) @ tables["analysis"]
        return tendency.reshape(vorticity.shape)

    def tendency(self, vorticity: np.ndarray, forcing: np.ndarray) -> np.ndarray:
        """dq'/dt (1/s2) without hyperdiffusion, which each step applies exactly."""
        total = forcing + self.advection(vorticity)
        total += self._apply(self.dissipation, vorticity)
        return total

    def step(self, vorticity: np.ndarray, forcing: np.ndarray) -> np.ndarray:
        """One classical fourth-order Runge-Kutta step of `step_s` seconds."""
        dt = self.step_s
        first = self.tendency(vorticity, forcing)
        second = self.tendency(vorticity + (0.5 * dt) * first, forcing)
        third = self.tendency(vorticity + (0.5 * dt) * second, forcing)
        fourth = self.tendency(vorticity + dt * third, forcing)
        second += third
        second *= 2.0
        second += first
        second += fourth
        return (vorticity + (dt / 6) * second) * self.hyperdiffusion

    def advance(self, vorticity: np.ndarray, season: float) -> np.ndarray:
        """The state six hours later; the season stands still meanwhile."""
        forcing = self.forcing(season)
        for _ in range(self.parameters.steps_per_frame):
            vorticity = self.step(vorticity, forcing)
        return vorticity

    def initial_state(self, rng: np.random.Generator) -> np.ndarray:
        """q' of a weakened relaxation state with random large waves (n < 12) that break its symmetry."""
        noise = 2e5 * rng.standard_normal((self.modes, 2, LEVELS, self.modes))  # m2/s
        m, n = np.meshgrid(np.arange(self.modes), np.arange(self.modes), indexing="ij")
        noise *= ((n >= m) & (n < 12) & (n > 0))[:, None, None]
        noise[0, 1] = 0.0
        return self.potential_vorticity(0.7 * self.psi_mean + noise)


def _without_tiny(table: np.ndarray) -> np.ndarray:
    """Harmonics of large m vanish towards the poles: below 1e-12 they only cause slow subnormal numbers."""
    return np.where(np.abs(table) < 1e-12 * np.abs(table).max(), 0.0, table)


def _across_levels(operator: np.ndarray) -> np.ndarray:
    """(n, to, from) level matrices -> one matrix ((from, n), (to, n)) for row vectors over (level, n)."""
    modes, levels, _ = operator.shape
    matrix = np.zeros((levels, modes, levels, modes))
    n = np.arange(modes)
    matrix[:, n, :, n] = operator.transpose(0, 2, 1)
    return matrix.reshape(levels * modes, levels * modes)
