# SPDX-License-Identifier: Apache-2.0
"""Computes `heights.MODEL_MEAN_M`: seed and settings fixed, three numbers a truncation out.

    python -m isohypse.data.quasigeostrophic.model_mean

To be run, and its output copied to `heights.py`, after any change of `forcing.py`, `dynamics.py` or
`balance.py`.
"""

from types import SimpleNamespace

import numpy as np

from isohypse.data.quasigeostrophic.balance import NonlinearBalance
from isohypse.data.quasigeostrophic.heights import LATITUDE_DEG, LONGITUDE_DEG
from isohypse.data.quasigeostrophic.simulate import YEAR_HOURS, Trajectory
from isohypse.data.quasigeostrophic.sphere import LatitudeLongitudeSynthesis

YEARS = {21: 30, 31: 8}
SEED = 1000
SPIN_UP_DAYS = 400


def grid_means(truncation: int, years: int) -> np.ndarray:
    """(year, native level): yearly means of the balanced heights (m), unweighted over the 2.5-degree grid."""
    settings = SimpleNamespace(
        truncation=truncation, seed=SEED, spin_up_days=SPIN_UP_DAYS, noise_m=0.0, tides=False
    )
    trajectory = Trajectory.spun_up(settings, 2001)
    balance = NonlinearBalance(truncation)
    synthesis = LatitudeLongitudeSynthesis(truncation, LATITUDE_DEG, LONGITUDE_DEG)
    frames = round(YEAR_HOURS / 6)
    means = np.zeros((years, 3))
    fields = np.empty((3, len(LATITUDE_DEG), len(LONGITUDE_DEG)), np.float32)
    for year in range(years):
        total = 0.0
        for _ in range(frames):
            total = total + balance(trajectory.model.psi(trajectory.vorticity))
            trajectory.advance()
        synthesis(total / frames, out=fields)
        means[year] = fields.mean((1, 2), dtype=np.float64)
    return means


if __name__ == "__main__":
    for truncation, years in YEARS.items():
        means = grid_means(truncation, years)
        print(truncation, means.mean(0).round(1), "m; one year's deviation", means.std(0).round(1), "m")
