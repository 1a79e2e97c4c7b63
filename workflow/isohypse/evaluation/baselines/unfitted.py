# SPDX-License-Identifier: Apache-2.0
"""Baselines with nothing to fit: the weather stays as it is, or is as it always is at this time of year.

Frames in, frames out, as `forecasting.Forecaster` says: float32 metres [sample, time, level, latitude,
longitude].
"""

from dataclasses import dataclass

import numpy as np

from isohypse.data.climatology import Climatology
from isohypse.forecasting import valid_times


@dataclass(frozen=True, eq=False)
class Persistence:
    """The last frame, for all lead times."""

    t_in: int
    t_out: int
    name: str = "persistence"
    label: str = "Persistence"

    def forecast(self, frames: np.ndarray, init_time: np.ndarray) -> np.ndarray:
        return np.repeat(frames[:, -1:], self.t_out, axis=1)


@dataclass(frozen=True, eq=False)
class ClimatologyForecast:
    """The training climatology of the valid time."""

    t_in: int
    t_out: int
    climatology: Climatology
    name: str = "climatology"
    label: str = "Climatology"

    def forecast(self, frames: np.ndarray, init_time: np.ndarray) -> np.ndarray:
        return self.climatology.at(valid_times(init_time, self.t_out))


@dataclass(frozen=True, eq=False)
class EvaluationMean:
    """The paper's climatology: `mean` [level, latitude, longitude] of the very truth that it is scored on."""

    t_in: int
    t_out: int
    mean: np.ndarray
    name: str = "climatology"
    label: str = "climatology (evaluation mean, sees the truth)"

    def forecast(self, frames: np.ndarray, init_time: np.ndarray) -> np.ndarray:
        return np.broadcast_to(self.mean, (len(frames), self.t_out, *self.mean.shape))
