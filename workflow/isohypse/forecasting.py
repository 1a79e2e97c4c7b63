# SPDX-License-Identifier: Apache-2.0
"""The contract between models, baselines and evaluation: frames in, frames out.

Evaluation knows only this. A network, a linear regression and persistence are the same to it.
"""

from typing import Protocol, runtime_checkable

import numpy as np

FRAME_HOURS = 6
FRAME = np.timedelta64(FRAME_HOURS, "h")


@runtime_checkable
class Forecaster(Protocol):
    """Forecasts `t_out` frames of geopotential height, six hours apart, from the `t_in` before them.

    `name` is how results call it, e.g. `persistence` or `kda-small/seed0`; `label` is how figures do.
    """

    name: str
    label: str
    t_in: int
    t_out: int

    def forecast(self, frames: np.ndarray, init_time: np.ndarray) -> np.ndarray:
        """Forecast from `frames`.

        frames: float32 metres [sample, t_in, level, latitude, longitude], oldest first, north to south.
        init_time: datetime64[ns] [sample], valid time of the last input frame.
        Returns float32 metres [sample, t_out, level, latitude, longitude]; frame i is valid at
        init_time + (i + 1) * 6 h.
        """
        ...


def valid_times(init_time: np.ndarray, t_out: int) -> np.ndarray:
    """datetime64[ns] [sample, t_out]: when the forecast frames are valid."""
    steps = np.arange(1, t_out + 1) * FRAME
    return init_time[:, None] + steps[None, :]


def lead_time_hours(t_out: int) -> np.ndarray:
    """int [t_out]: 6, 12, ... hours."""
    return np.arange(1, t_out + 1) * FRAME_HOURS
