# SPDX-License-Identifier: Apache-2.0
"""From the model's state to analysed heights: whole metres on the 2.5-degree grid at the NCEP levels.

Streamfunction -> nonlinear balance -> heights of 200, 500, 800 hPa -> other levels, linear in log pressure ->
level means -> solar tides, tropical waves and a smooth analysis error -> rounding: NCEP stores whole metres.
"""

import numpy as np

from isohypse.data.levels import LEVEL_MEAN_M
from isohypse.data.quasigeostrophic.balance import NonlinearBalance
from isohypse.data.quasigeostrophic.sphere import LatitudeLongitudeSynthesis

LATITUDE_DEG = np.linspace(90.0, -90.0, 73)
LONGITUDE_DEG = np.arange(144) * 2.5

NATIVE_HPA = (200.0, 500.0, 800.0)
STRATOSPHERE_FADING = 4.0
"""Above 200 hPa anomalies of height fade with this scale in log pressure: the stratosphere is warm where the
troposphere is cold. Continued linearly, 10 hPa would vary four times as much as 200 hPa; so it is half."""
SURFACE_FADING = 0.5
"""Below 800 hPa the slope of the layer 500-800 hPa goes on, fading with this scale in log pressure."""

MODEL_MEAN_M = {21: (-366.0, -146.6, -29.4), 31: (-329.6, -131.7, -25.3)}
"""What the balanced heights of the native levels average to, unweighted over the grid, for each truncation:
their area mean is zero, but the grid has more points near the low poles. From 30 (T21) and 8 (T31) simulated
years, seed 1000, spin-up 400 days, no tides and no error; single years differ by 0.7-2.4 m (standard
deviation). They hold for the constants of `forcing.py` and `dynamics.py`; when those change,
`python -m isohypse.data.quasigeostrophic.model_mean` computes them anew."""

TROPICAL_PROFILE = np.maximum(np.cos(np.radians(LATITUDE_DEG)), 0.0) ** 3
"""How tides and tropical waves fade towards the poles, (latitude,)."""
TIDES_M = ((1, 1.0, 4.2), (2, 11.5, 5.2))
"""Migrating solar tides: cycles a day, amplitude at the equator (m), phase (rad); as cos(lat)^3. Fitted to
the mean day of ERA5's 500 hPa heights, January and February 2020, within 10 degrees of the equator."""
TROPICAL_WAVES = ((0, 5.5, 6.0, 0.0), (1, 3.8, 6.0, -72.0))
"""Tropical weather that no balanced flow has, as f vanishes: zonal wavenumber, root mean square at the
equator (m), memory (days), drift (degrees of longitude a day); as cos(lat)^3. The first is the slow rise and
fall of all the tropics, the second the five-day wave (Madden & Julian 1972, J. Atmos. Sci. 29, 1464); sizes
are what ERA5 has more than the model without them."""
NOISE_MEMORY_HOURS = 9.0
"""E-folding time of the analysis error."""


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
    return (TROPICAL_PROFILE[:, None] * wave).astype(np.float32)


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


class TropicalWaves:
    """`TROPICAL_WAVES` as first-order autoregressions: a state (wave, part) and its heights."""

    def __init__(self) -> None:
        wavenumber, size_m, memory_days, drift_deg = np.array(TROPICAL_WAVES).T
        zonal = wavenumber == 0
        # Re(c exp(i k lon)) has half the mean square of c, which for k = 0 is real.
        self.standard_deviation = np.where(zonal[:, None], [1.0, 0.0], 1.0) * size_m[:, None]
        self.memory = np.exp(-0.25 / memory_days)[:, None]
        self.turn = np.exp(-1j * np.radians(0.25 * wavenumber * drift_deg))
        self.pattern = np.exp(1j * wavenumber[:, None] * np.radians(LONGITUDE_DEG))

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """A state from the stationary distribution, (wave, part), metres."""
        return self.standard_deviation * rng.standard_normal(self.standard_deviation.shape)

    def next(self, state: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The state six hours later."""
        turned = (state[:, 0] + 1j * state[:, 1]) * self.turn
        moved = np.stack([turned.real, turned.imag], axis=1)
        return self.memory * moved + np.sqrt(1 - self.memory**2) * self.draw(rng)

    def heights(self, state: np.ndarray) -> np.ndarray:
        """(latitude, longitude), metres."""
        along = ((state[:, 0] + 1j * state[:, 1]) @ self.pattern).real
        return TROPICAL_PROFILE[:, None] * along


class HeightAnalysis:
    """Turns streamfunction and errors into one frame, (level, latitude, longitude) float32 metres."""

    def __init__(self, truncation: int, levels_hpa: tuple[int, ...], with_tides: bool):
        self.levels_hpa = levels_hpa
        self.balance = NonlinearBalance(truncation)
        self.synthesis = LatitudeLongitudeSynthesis(truncation, LATITUDE_DEG, LONGITUDE_DEG)
        self.tides = {hour: tides(hour) * with_tides for hour in (0, 6, 12, 18)}
        self.tropical_waves = TropicalWaves()
        weights = np.array([vertical_weights(level) for level in levels_hpa])
        offset = np.array([LEVEL_MEAN_M[level] for level in levels_hpa]) - weights @ MODEL_MEAN_M[truncation]
        # Columns: three native levels, what all levels share (error, tides, tropical waves), the mean.
        columns = [weights, np.ones((len(levels_hpa), 1)), offset[:, None]]
        self.combination = np.concatenate(columns, axis=1).astype(np.float32)
        self._fields = np.ones((5, len(LATITUDE_DEG), len(LONGITUDE_DEG)), np.float32)

    def __call__(self, psi: np.ndarray, error: np.ndarray, tropics: np.ndarray, hour: int) -> np.ndarray:
        """`psi` (m, part, level, n) in m2/s, `error` (m, part, n) and `tropics` (wave, part) in metres,
        `hour` UTC -> whole metres."""
        spectral = np.concatenate([self.balance(psi), error[:, :, None]], axis=2)
        fields = self._fields
        self.synthesis(spectral, out=fields[:4])
        fields[3] += self.tides[hour] + self.tropical_waves.heights(tropics).astype(np.float32)
        frame = (self.combination @ fields.reshape(5, -1)).reshape(-1, *fields.shape[1:])
        return np.rint(frame, out=frame)
