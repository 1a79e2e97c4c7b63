# SPDX-License-Identifier: Apache-2.0
"""Damped persistence: climatology plus the part of the last anomaly that can be expected to remain.

x(t + lead) = c(t + lead) + a(lead, point) (x(t) - c(t)); a is the least-squares coefficient over the
training frames, sum x'(t) x'(t + lead) / sum x'(t)^2, kept in [0, 1] (Wilks 2011, section 9.3.1: the
AR(1) forecast, fitted for each lead time by itself).
"""

from dataclasses import dataclass

import numpy as np

from isohypse.data.climatology import Climatology
from isohypse.evaluation.cases import Cases, anomaly_blocks
from isohypse.forecasting import valid_times


class LaggedSums:
    """Sums over time of x(t) x(t + lead), lead = 1 ... `leads`, and of x(t)^2, point by point in float64."""

    def __init__(self, leads: int):
        self.leads = leads
        self.products = 0.0
        self.squares = 0.0

    def add(self, block: np.ndarray) -> None:
        """block: [n + leads, ...]; its last `leads` frames are targets only."""
        block = block.astype(np.float64)
        now = block[: -self.leads]
        later = (block[lead : lead + len(now)] for lead in range(1, self.leads + 1))
        self.products = self.products + np.stack([(now * frame).sum(axis=0) for frame in later])
        self.squares = self.squares + np.square(now).sum(axis=0)

    def coefficients(self) -> np.ndarray:
        """a, float64 [lead, ...] in [0, 1]; 0 where nothing ever varies."""
        varies = np.broadcast_to(self.squares > 0, self.products.shape)
        fitted = np.divide(self.products, self.squares, out=np.zeros_like(self.products), where=varies)
        return np.clip(fitted, 0, 1)


@dataclass(frozen=True, eq=False)
class DampedPersistence:
    """coefficients: float32 [lead, level, latitude, longitude] in [0, 1]."""

    t_in: int
    t_out: int
    climatology: Climatology
    coefficients: np.ndarray
    name: str = "damped_persistence"
    label: str = "Damped persistence"

    def forecast(self, frames: np.ndarray, init_time: np.ndarray) -> np.ndarray:
        anomaly = frames[:, -1] - self.climatology.at(init_time)
        return self.climatology.at(valid_times(init_time, self.t_out)) + self.coefficients * anomaly[:, None]


def fit_damped_persistence(cases: Cases) -> DampedPersistence:
    """Fit on the training frames, streamed in blocks."""
    t_in, t_out = cases.scored.t_in, cases.scored.t_out
    sums = LaggedSums(t_out)
    for block in anomaly_blocks(cases, overlap=t_out):
        sums.add(block)
    return DampedPersistence(t_in, t_out, cases.climatology, sums.coefficients().astype(np.float32))
