# SPDX-License-Identifier: Apache-2.0
"""From the model's state to analysed heights: whole metres on the 2.5-degree grid at the NCEP levels.

Streamfunction -> linear balance -> heights of 200, 500, 800 hPa -> other levels, linear in log pressure ->
level means -> solar tides and a smooth analysis error -> rounding, as NCEP stores whole metres.
"""

import numpy as np

from isohypse.data.levels import LEVEL_MEAN_M
from isohypse.data.quasigeostrophic.forcing import OMEGA_PER_S
from isohypse.data.quasigeostrophic.sphere import LatitudeLongitudeSynthesis, recurrence

GRAVITY_M_S2 = 9.80665
LATITUDE_DEG = np.linspace(90.0, -90.0, 73)
LONGITUDE_DEG = np.arange(144) * 2.5

NATIVE_HPA = (200.0, 500.0, 800.0)
STRATOSPHERE_FADING = 4.0
"""Above 200 hPa anomalies of height fade with this scale in log pressure: the stratosphere is warm where the
troposphere is cold. Continued linearly, 10 hPa would vary four times as much as 200 hPa; so it is half."""
SURFACE_FADING = 0.5
"""Below 800 hPa the slope of the layer 500-800 hPa goes on, fading with this scale in log pressure."""

MODEL_MEAN_M = {21: (-336.3, -152.5, -28.3), 31: (-315.5, -143.9, -28.6)}
"""What the balanced heights of the native levels average to, unweighted over the grid, for each truncation:
their area mean is zero, but the grid has more points near the low poles. From 30 (T21) and 8 (T31) simulated
years, seed 1000, spin-up 400 days, no tides and no error; single years differ by 1-2 m (standard deviation).
They hold for the constants of `forcing.py` and `dynamics.py`; when those change, compute these anew."""

TIDES_M = ((1, 3.0, 1.0), (2, 6.0, 5.0))
"""Migrating solar tides: cycles a day, amplitude at the equator (m), phase (rad); as cos(lat)^3."""
NOISE_MEMORY_HOURS = 9.0
"""E-folding time of the analysis error."""


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


def vertical_weights(level_hpa: float) -> np.ndarray:
    """Weights (3,) of the native levels in the height anomaly at `level_hpa`.

    Between the native levels linear in log pressure (one temperature anomaly a layer); beyond them see
    `STRATOSPHERE_FADING` and `SURFACE_FADING`.
    """
    top, middle, bottom = np.log(NATIVE_HPA)
    x = np.log(level_hpa)
    if x < top:
        return np.array([np.exp((x - top) / STRATOSPHERE_FADING), 0.0, 0.0])
    if x <= middle:
        share = (x - top) / (middle - top)
        return np.array([1 - share, share, 0.0])
    if x > bottom:
        x = bottom + SURFACE_FADING * (1 - np.exp((bottom - x) / SURFACE_FADING))
    share = (x - middle) / (bottom - middle)
    return np.array([0.0, 1 - share, share])


def tides(hour: int) -> np.ndarray:
    """Height (m) of the migrating tides at `hour` UTC, (latitude, longitude) float32."""
    local_time = 2 * np.pi * hour / 24 + np.radians(LONGITUDE_DEG)
    wave = sum(amplitude * np.cos(cycles * local_time - phase) for cycles, amplitude, phase in TIDES_M)
    profile = np.maximum(np.cos(np.radians(LATITUDE_DEG)), 0.0) ** 3
    return (profile[:, None] * wave).astype(np.float32)


class AnalysisError:
    """A smooth, red-in-time random field of given size: first-order autoregression of each wave.

    Its spectrum peaks at n = 14, the scale of errors between observations; all levels share it.
    """

    def __init__(self, truncation: int, rms_m: float):
        modes = truncation + 1
        m, n = np.meshgrid(np.arange(modes), np.arange(modes), indexing="ij")
        shape = np.where(n >= m, np.exp(-(((n - 14) / 8.0) ** 2)), 0.0)
        parts = np.stack([np.where(m == 0, np.sqrt(2.0), 1.0), np.where(m == 0, 0.0, 1.0)], axis=1)
        variance = (shape**2 * np.where(m == 0, 1.0, 2.0)).sum()  # area mean, both parts of unit variance
        self.standard_deviation = rms_m * (shape / np.sqrt(variance))[:, None] * parts
        self.rms_m = rms_m
        self.memory = np.exp(-6.0 / NOISE_MEMORY_HOURS)

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """A field from the stationary distribution, (m, part, n), metres."""
        return self.standard_deviation * rng.standard_normal(self.standard_deviation.shape)

    def next(self, state: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The field six hours later."""
        return self.memory * state + np.sqrt(1 - self.memory**2) * self.draw(rng)


class HeightAnalysis:
    """Turns streamfunction and analysis error into one frame, (level, latitude, longitude) float32 metres."""

    def __init__(self, truncation: int, levels_hpa: tuple[int, ...], with_tides: bool):
        self.levels_hpa = levels_hpa
        self.factors = balance_factors(truncation)
        self.synthesis = LatitudeLongitudeSynthesis(truncation, LATITUDE_DEG, LONGITUDE_DEG)
        self.tides = {hour: tides(hour) * with_tides for hour in (0, 6, 12, 18)}
        weights = np.array([vertical_weights(level) for level in levels_hpa])
        offset = np.array([LEVEL_MEAN_M[level] for level in levels_hpa]) - weights @ MODEL_MEAN_M[truncation]
        # Columns: three native levels, what all levels share (error and tide), the mean.
        columns = [weights, np.ones((len(levels_hpa), 1)), offset[:, None]]
        self.combination = np.concatenate(columns, axis=1).astype(np.float32)
        self._fields = np.ones((5, len(LATITUDE_DEG), len(LONGITUDE_DEG)), np.float32)

    def __call__(self, psi: np.ndarray, error: np.ndarray, hour: int) -> np.ndarray:
        """`psi` (m, part, level, n) in m2/s, `error` (m, part, n) in metres, `hour` UTC -> whole metres."""
        spectral = np.concatenate([linear_balance(psi, self.factors), error[:, :, None]], axis=2)
        fields = self._fields
        self.synthesis(spectral, out=fields[:4])
        fields[3] += self.tides[hour]
        frame = (self.combination @ fields.reshape(5, -1)).reshape(-1, *fields.shape[1:])
        return np.rint(frame, out=frame)
