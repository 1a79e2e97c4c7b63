# SPDX-License-Identifier: Apache-2.0
"""Heights in nonlinear balance with a streamfunction: spectral psi in, spectral heights out.

The divergence equation without divergence (Charney 1955, Tellus 7, 22), with zeta = laplacian psi,

    laplacian(g z) = div(f grad psi) + div(zeta grad psi) - laplacian(|grad psi|^2 / 2)

is linear balance and two terms more. They are the curvature of the gradient wind: for the same rotation a
low is deeper and a high is flatter. Given psi it has no ellipticity condition: nothing is solved for psi.
"""

import numpy as np

from isohypse.data.quasigeostrophic.forcing import OMEGA_PER_S
from isohypse.data.quasigeostrophic.sphere import (
    EARTH_RADIUS_M,
    Sphere,
    recurrence,
    transform,
    weighted_transpose,
)

GRAVITY_M_S2 = 9.80665


def balance_factors(truncation: int) -> tuple[np.ndarray, np.ndarray]:
    """Factors (m, n), in metres per m2/s, of psi[n - 1] and psi[n + 1] in the height of wave n.

    Linear balance, laplacian(g z) = div(f grad psi), closes in spectral space because
    f = 2 Omega mu and mu P_n = eps_{n+1} P_{n+1} + eps_n P_{n-1} (Daley 1983, Tellus 35A, 17).
    """
    m, n = np.meshgrid(np.arange(truncation + 1), np.arange(truncation + 1), indexing="ij")
    divisor = np.maximum(n, 1)
    below = np.where(n > m, (n - 1) * (n + 1) / (divisor * (n + 1)) * recurrence(n, m), 0.0)
    above = np.where((n >= m) & (n > 0), n * (n + 2) / (divisor * (n + 1)) * recurrence(n + 1, m), 0.0)
    scale = 2 * OMEGA_PER_S / GRAVITY_M_S2
    return scale * below, scale * above


def linear_balance(psi: np.ndarray, factors: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Height (m) of the streamfunction (m2/s), both (m, part, level, n); its global mean is zero."""
    below, above = factors
    height = np.zeros_like(psi)
    height[..., 1:] = below[:, None, None, 1:] * psi[..., :-1]
    height[..., :-1] += above[:, None, None, :-1] * psi[..., 1:]
    return height


class NonlinearBalance:
    """Height (m) of the streamfunction (m2/s), both (m, part, level, n); its global mean is zero.

    Products are formed on the Gaussian grid, in `precision`: single is within 0.01 m of double.
    """

    def __init__(self, truncation: int, precision: type[np.floating] = np.float32):
        sphere = Sphere(truncation)
        self.precision = precision
        self.factors = balance_factors(truncation)
        self.laplacian = sphere.laplacian
        self.wave = np.arange(truncation + 1)[:, None, None]
        square_metric = 1 / (EARTH_RADIUS_M**2 * (1 - sphere.mu**2))
        weight = sphere.gauss_weight * square_metric
        self.half_metric = (0.5 * square_metric).astype(precision)
        tables = {
            "legendre": sphere.legendre,
            "legendre_slope": sphere.legendre_slope,
            "fourier": sphere.fourier,
            "fourier_slope": sphere.fourier_slope,
            "fourier_analysis": sphere.fourier_analysis,
            "analysis": weighted_transpose(sphere.legendre, sphere.gauss_weight),
            "zonal_analysis": weighted_transpose(sphere.legendre, weight),
            # Integrated by parts: the flux itself is never differentiated.
            "meridional_analysis": weighted_transpose(sphere.legendre_slope, -weight),
        }
        self._tables = {name: table.astype(precision) for name, table in tables.items()}

    def __call__(self, psi: np.ndarray) -> np.ndarray:
        tables = self._tables
        rotation = transform(
            (psi * self.laplacian).astype(self.precision), tables["legendre"], tables["fourier"]
        )
        field = psi.astype(self.precision)
        zonal = transform(field, tables["legendre"], tables["fourier_slope"])
        meridional = transform(field, tables["legendre_slope"], tables["fourier"])
        energy = self._analysis((zonal**2 + meridional**2) * self.half_metric, "analysis")
        along = self._analysis(rotation * zonal, "zonal_analysis")
        flux = self._analysis(rotation * meridional, "meridional_analysis")
        flux[:, 0] -= self.wave * along[:, 1]  # d/dlon is i m
        flux[:, 1] += self.wave * along[:, 0]
        height = linear_balance(psi, self.factors)
        height[..., 1:] += (flux[..., 1:] / self.laplacian[1:] - energy[..., 1:]) / GRAVITY_M_S2
        return height

    def _analysis(self, grid: np.ndarray, table: str) -> np.ndarray:
        """Values (longitude, level, latitude) -> (m, part, level, n) with the given Legendre table."""
        modes, (points, levels, latitudes) = len(self.wave), grid.shape
        waves = self._tables["fourier_analysis"] @ grid.reshape(points, -1)
        product = waves.reshape(modes, 2 * levels, latitudes) @ self._tables[table]
        return product.reshape(modes, 2, levels, modes).astype(np.float64)
