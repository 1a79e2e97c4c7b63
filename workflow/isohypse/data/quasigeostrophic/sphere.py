# SPDX-License-Identifier: Apache-2.0
"""Spherical harmonics by matrix products: coefficients to a grid, a grid to coefficients.

A field is  f(lon, mu) = sum_m sum_n c[m, n] P[m, n](mu) exp(i m lon),  mu = sin(latitude), in triangular
truncation T, with P orthonormal on [-1, 1] and without the Condon-Shortley phase. Coefficients are stored
as real numbers with the axes

    (m, part, field, n)    m, n = 0..T;  part 0 is the real, 1 the imaginary part;  zero where n < m

because both halves of a transform are then plain products without a transposition: Legendre sums are one
batched product over m, Fourier sums one product over (m, part). At T21 that beats an FFT by far.
"""

import numpy as np

EARTH_RADIUS_M = 6.371e6


class Sphere:
    """Tables and transforms of one truncation T on its Gaussian grid, (longitude, field, latitude).

    The grid has at least 3T + 1 longitudes and half as many latitudes, so that products of two fields
    are free of aliasing (Orszag 1970, J. Atmos. Sci. 27, 890).
    """

    def __init__(self, truncation: int):
        self.truncation = truncation
        self.latitudes = 2 * -(-(3 * truncation + 1) // 4)
        self.longitudes = 2 * self.latitudes
        self.mu, self.gauss_weight = np.polynomial.legendre.leggauss(self.latitudes)
        self.longitude_rad = 2 * np.pi * np.arange(self.longitudes) / self.longitudes
        self.latitude_deg = np.degrees(np.arcsin(self.mu))
        legendre, slope = legendre_tables(truncation, self.mu)
        self.legendre = legendre  # P, (m, n, latitude)
        self.legendre_slope = slope  # (1 - mu^2) dP/dmu, (m, n, latitude)
        self.fourier = fourier_table(truncation, self.longitude_rad)  # (longitude, 2 (T+1))
        self.fourier_slope = fourier_slope_table(truncation, self.longitude_rad)
        parts = np.where(np.arange(2 * (truncation + 1)) < 2, 1.0, 0.5)[:, None]  # undo the factor 2 of m > 0
        self.fourier_analysis = np.ascontiguousarray(self.fourier.T * parts / self.longitudes)
        self.legendre_analysis = weighted_transpose(legendre, self.gauss_weight)
        n = np.arange(truncation + 1.0)
        self.laplacian = -n * (n + 1) / EARTH_RADIUS_M**2  # eigenvalue of each n, 1/m2

    def synthesis(self, coefficients: np.ndarray) -> np.ndarray:
        """(m, part, field, n) -> values on the Gaussian grid, (longitude, field, latitude)."""
        return transform(coefficients, self.legendre, self.fourier)

    def zonal_derivative(self, coefficients: np.ndarray) -> np.ndarray:
        """(m, part, field, n) -> df/dlon on the grid, (longitude, field, latitude)."""
        return transform(coefficients, self.legendre, self.fourier_slope)

    def meridional_derivative(self, coefficients: np.ndarray) -> np.ndarray:
        """(m, part, field, n) -> (1 - mu^2) df/dmu on the grid, (longitude, field, latitude)."""
        return transform(coefficients, self.legendre_slope, self.fourier)

    def analysis(self, grid: np.ndarray, legendre: np.ndarray | None = None) -> np.ndarray:
        """Values (longitude, field, latitude) -> coefficients; exact for fields within the truncation."""
        table = self.legendre_analysis if legendre is None else legendre
        waves = self.fourier_analysis @ grid.reshape(self.longitudes, -1)
        modes, fields = self.truncation + 1, grid.shape[1]
        product = waves.reshape(modes, 2 * fields, self.latitudes) @ table
        return product.reshape(modes, 2, fields, modes)

    def streamfunction_of_zonal_wind(self, wind: np.ndarray) -> np.ndarray:
        """Zonal wind (longitude, field, latitude), m/s -> streamfunction, m2/s, of its rotational part.

        The vorticity -d(u cos(lat))/dmu / a is integrated by parts, so that u is never differentiated.
        """
        weight = self.gauss_weight / np.sqrt(1 - self.mu**2) / EARTH_RADIUS_M
        vorticity = self.analysis(wind, weighted_transpose(self.legendre_slope, weight))
        vorticity[..., 0] = 0.0
        vorticity[..., 1:] /= self.laplacian[1:]
        return vorticity


class LatitudeLongitudeSynthesis:
    """Synthesis onto a regular grid in single precision, (field, latitude, longitude)."""

    def __init__(self, truncation: int, latitude_deg: np.ndarray, longitude_deg: np.ndarray):
        legendre, _ = legendre_tables(truncation, np.sin(np.radians(latitude_deg)))
        self.legendre = legendre.astype(np.float32)
        fourier = fourier_table(truncation, np.radians(longitude_deg)).T
        self.fourier = np.ascontiguousarray(fourier, dtype=np.float32)

    def __call__(self, coefficients: np.ndarray, out: np.ndarray) -> None:
        """Write the values of (m, part, field, n) to `out`, (field, latitude, longitude) float32."""
        modes, _, fields, _ = coefficients.shape
        rows = coefficients.astype(np.float32).reshape(modes, 2 * fields, modes) @ self.legendre
        waves = rows.reshape(2 * modes, -1)
        np.matmul(waves.T, self.fourier, out=out.reshape(-1, out.shape[-1]))


def transform(coefficients: np.ndarray, legendre: np.ndarray, fourier: np.ndarray) -> np.ndarray:
    """Coefficients (m, part, field, n) -> (longitude, field, latitude) with the given pair of tables."""
    modes, _, fields, _ = coefficients.shape
    waves = coefficients.reshape(modes, 2 * fields, modes) @ legendre
    return (fourier @ waves.reshape(2 * modes, -1)).reshape(-1, fields, legendre.shape[-1])


def weighted_transpose(table: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(m, n, latitude) with a weight for each latitude -> (m, latitude, n)."""
    return np.ascontiguousarray((table * weight).transpose(0, 2, 1))


def fourier_table(truncation: int, longitude_rad: np.ndarray) -> np.ndarray:
    """(longitude, (m, part)): the cosines and minus sines that sum a real field; m > 0 stands for -m too."""
    angle = longitude_rad[:, None] * np.arange(truncation + 1)
    twice = np.where(np.arange(truncation + 1) > 0, 2.0, 1.0)
    table = np.stack([twice * np.cos(angle), -twice * np.sin(angle)], axis=-1)
    return table.reshape(len(longitude_rad), -1)


def fourier_slope_table(truncation: int, longitude_rad: np.ndarray) -> np.ndarray:
    """`fourier_table` differentiated with respect to longitude (radians)."""
    m = np.arange(truncation + 1)
    angle = longitude_rad[:, None] * m
    table = np.stack([-2.0 * m * np.sin(angle), -2.0 * m * np.cos(angle)], axis=-1)
    return table.reshape(len(longitude_rad), -1)


def recurrence(n: np.ndarray | int, m: np.ndarray | int) -> np.ndarray:
    """epsilon[m, n] = sqrt((n^2 - m^2) / (4 n^2 - 1)), with mu P_n = eps_{n+1} P_{n+1} + eps_n P_{n-1}."""
    return np.sqrt(np.maximum(n * n - m * m, 0.0) / np.abs(4.0 * n * n - 1.0))


def legendre_tables(truncation: int, mu: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """P and (1 - mu^2) dP/dmu at `mu`, each (m, n, latitude); zero where n < m."""
    modes = truncation + 1
    table = np.zeros((modes, modes + 1, len(mu)))  # one n more than the truncation: the slope needs it
    sectoral = np.full_like(mu, np.sqrt(0.5))
    for m in range(modes):
        if m > 0:
            sectoral = sectoral * np.sqrt(1 - mu**2) * np.sqrt((2 * m + 1) / (2 * m))
        table[m, m] = sectoral
        for n in range(m + 1, modes + 1):
            below = recurrence(n - 1, m) * table[m, n - 2] if n - 2 >= m else 0.0
            table[m, n] = (mu * table[m, n - 1] - below) / recurrence(n, m)
    slope = np.zeros((modes, modes, len(mu)))
    for m in range(modes):
        for n in range(m, modes):
            below = (n + 1) * recurrence(n, m) * table[m, n - 1] if n > m else 0.0
            slope[m, n] = below - n * recurrence(n + 1, m) * table[m, n + 1]
    return np.ascontiguousarray(table[:, :modes]), slope
