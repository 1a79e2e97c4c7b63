# SPDX-License-Identifier: Apache-2.0
"""Ridge VAR: a linear regression from the last frames to each lead time, in the space of leading EOFs.

With p(t) the principal components of the anomaly x'(t) (`eofs.py`), for each lead time

    p(t + lead) = sum_{j < J} B_{lead, j} p(t - j),        J = `ridge_var.frames`,

fitted by ridge regression on the training frames. (Penland and Sardeshmukh 1995, J. Climate 8, 1999-2024,
forecast with such linear inverse models; here each lead time has coefficients of its own.)
What the EOFs leave out of the last frame is carried on as damped persistence, point by point: with 250
EOFs of the embedded model at 37 x 72 that takes the 6 h error from 10.3 m to 6.9 m.

The penalty is `ridge_var.penalty` times the mean variance of a predictor: as if that many more frames had
been seen in which every predictor was of average size and no target moved.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.linalg

from isohypse.data.climatology import Climatology
from isohypse.errors import DataError
from isohypse.evaluation.baselines.damped_persistence import LaggedSums
from isohypse.evaluation.baselines.eofs import SAMPLE_FRAMES, Eofs, fit_eofs
from isohypse.evaluation.cases import Cases, anomaly_blocks, read_anomalies
from isohypse.evaluation.metrics import cell_weights
from isohypse.forecasting import FRAME, valid_times

LOG = logging.getLogger(__name__)
# Fewer, and the regression describes the noise of its training frames: with one year of the embedded model,
# 24 h errors are 77, 61, 44, 43 and 47 m with 1, 2, 4, 8 and 16.
FRAMES_PER_PREDICTOR = 5
BLOCK_ROWS = 4096


@dataclass(frozen=True, eq=False)
class RidgeVar:
    """coefficients: float32 [lead, frame x eof, eof], newest frame first. damping: float32 [lead, level,
    latitude, longitude] in [0, 1], of what the EOFs leave out.
    """

    t_in: int
    t_out: int
    climatology: Climatology
    eofs: Eofs
    coefficients: np.ndarray
    damping: np.ndarray
    name: str = "ridge_var"
    label: str = "Ridge VAR"

    @property
    def frames_used(self) -> int:
        return self.coefficients.shape[1] // self.eofs.count

    def forecast(self, frames: np.ndarray, init_time: np.ndarray) -> np.ndarray:
        age = np.arange(self.frames_used)
        times = init_time[:, None] - age * FRAME
        anomalies = frames[:, self.t_in - 1 - age] - self.climatology.at(times)  # newest first
        components = self.eofs.project(anomalies)  # [sample, frame, eof]
        grid = frames.shape[2:]
        residual = anomalies[:, 0] - self.eofs.compose(components[:, 0], grid)
        predicted = np.tensordot(components.reshape(len(frames), -1), self.coefficients, axes=(1, 1))
        expected = self.climatology.at(valid_times(init_time, self.t_out))
        return expected + self.eofs.compose(predicted, grid) + self.damping * residual[:, None]


def fit_ridge_var(cases: Cases, eofs: int, frames: int, ridge: float) -> RidgeVar:
    """Fit on the training frames, streamed in blocks; the principal components alone are held in memory.

    Uses fewer than `eofs` EOFs, and says so, where the training frames do not allow them, and no more
    than t_in `frames`. Raises DataError if not one EOF is allowed.
    """
    t_in, t_out = cases.scored.t_in, cases.scored.t_out
    frames = min(frames, t_in)
    available = cases.training.stop - cases.training.start
    allowed = available // (FRAMES_PER_PREDICTOR * frames)
    if allowed < 1:
        raise DataError(f"ridge_var: {available} training frames are too few for {frames} frames of one EOF")
    basis = fit_eofs(_sample(cases), cell_weights(cases.latitude), min(eofs, allowed))
    if basis.count < eofs:
        LOG.warning(
            "ridge_var: %d EOFs, not %d: %d training frames allow no more", basis.count, eofs, available
        )
    components, damping = principal_components(cases, basis)
    coefficients = _regress(components, frames, t_out, ridge)
    return RidgeVar(t_in, t_out, cases.climatology, basis, coefficients, damping)


def _sample(cases: Cases) -> np.ndarray:
    """Anomalies of at most SAMPLE_FRAMES training frames: float32 metres [frame, level, latitude, longitude].

    They are evenly spaced, by an odd number so that all hours of the day are seen.
    """
    available = cases.training.stop - cases.training.start
    spacing = -(-available // SAMPLE_FRAMES) | 1
    return read_anomalies(cases, np.arange(cases.training.start, cases.training.stop, spacing))


def principal_components(cases: Cases, basis: Eofs) -> tuple[np.ndarray, np.ndarray]:
    """Principal components of all training frames, float32 [frame, eof], and the damping of the rest."""
    t_out = cases.scored.t_out
    sums, parts = LaggedSums(t_out), []
    for block in anomaly_blocks(cases, overlap=t_out):
        parts.append(basis.project(block))
        sums.add(block - basis.compose(parts[-1], block.shape[1:]))
    kept = [part[:-t_out] for part in parts[:-1]]  # the overlap belongs to the next block
    return np.concatenate([*kept, parts[-1]]), sums.coefficients().astype(np.float32)


def _regress(components: np.ndarray, frames: int, leads: int, ridge: float) -> np.ndarray:
    """(X^T X + penalty I)^-1 X^T Y with sums in float64: float32 [lead, frame x eof, eof]."""
    squares, products = 0.0, 0.0
    for predictors, targets in _pairs(components, frames, leads):
        squares = squares + predictors.T @ predictors
        products = products + predictors.T @ targets
    count = len(components) - frames + 1 - leads
    penalty = ridge * np.trace(squares) / len(squares) / count
    regularised = squares + penalty * np.eye(len(squares))
    solved = scipy.linalg.solve(regularised, products, assume_a="pos")
    return solved.reshape(len(squares), leads, -1).swapaxes(0, 1).astype(np.float32)


def _pairs(components: np.ndarray, frames: int, leads: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Blocks of float64 predictors [time, frame x eof], newest first, and targets [time, lead x eof]."""
    for first in range(frames - 1, len(components) - leads, BLOCK_ROWS):
        now = np.arange(first, min(first + BLOCK_ROWS, len(components) - leads))
        past = components[now[:, None] - np.arange(frames)]
        future = components[now[:, None] + np.arange(1, leads + 1)]
        yield past.reshape(len(now), -1).astype(np.float64), future.reshape(len(now), -1).astype(np.float64)
