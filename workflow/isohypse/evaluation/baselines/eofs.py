# SPDX-License-Identifier: Apache-2.0
"""Empirical orthogonal functions (EOFs) of height anomalies: the patterns that hold most of the variance.

The state is all levels of a frame, each anomaly times the root of its cell's share of the area and
divided by its level's standard deviation, so that levels count alike and total variance is about 1
(Wilks 2011, section 12.2: area weights, unequal variances). The leading eigenvectors of the Gram matrix of a
sample of frames give the EOFs exactly, without a matrix of points by points (method of snapshots).
"""

from dataclasses import dataclass

import numpy as np
import scipy.linalg

from isohypse.errors import DataError

SAMPLE_FRAMES = 2000  # at 73 x 144 with one level: 84 MB of float32, and 32 MB for the Gram matrix


@dataclass(frozen=True, eq=False)
class Eofs:
    """scale: float32 [level, latitude, 1], what an anomaly in metres is multiplied by. patterns: float32
    [state, eof], orthonormal, by falling variance; state = level x latitude x longitude.
    """

    scale: np.ndarray
    patterns: np.ndarray

    @property
    def count(self) -> int:
        return self.patterns.shape[1]

    def project(self, anomalies: np.ndarray) -> np.ndarray:
        """Principal components, float32 [..., eof], of metres [..., level, latitude, longitude]."""
        state = (anomalies * self.scale).reshape(*anomalies.shape[:-3], -1)
        return state @ self.patterns

    def compose(self, components: np.ndarray, grid: tuple[int, ...]) -> np.ndarray:
        """Anomalies in metres [..., *grid], float32, from principal components [..., eof]."""
        state = components.astype(np.float32, copy=False) @ self.patterns.T
        return state.reshape(*components.shape[:-1], *grid) / self.scale


def fit_eofs(anomalies: np.ndarray, weights: np.ndarray, count: int) -> Eofs:
    """The leading `count` EOFs, fewer if the variance has fewer directions. Raises DataError if it has none.

    anomalies: float32 metres [frame, level, latitude, longitude]; weights: [latitude], mean 1.
    """
    scale = _scale(anomalies, weights)
    state = (anomalies * scale).reshape(len(anomalies), -1)
    count = min(count, *state.shape)
    gram = _gram(state)
    variance, vectors = scipy.linalg.eigh(gram, subset_by_index=(len(gram) - count, len(gram) - 1))
    variance, vectors = variance[::-1], vectors[:, ::-1]
    # Below this the direction is rounding error, and dividing by its size would make it large.
    real = variance > variance[0] * 1e-6
    if not real.any():
        raise DataError("ridge_var: all training frames equal the climatology; there is nothing to fit")
    patterns = state.T @ (vectors[:, real] / np.sqrt(variance[real])).astype(np.float32)
    return Eofs(scale, patterns)


def _scale(anomalies: np.ndarray, weights: np.ndarray) -> np.ndarray:
    by_latitude = np.square(anomalies).mean(axis=(0, 3), dtype=np.float64)  # [level, latitude]
    deviation = np.sqrt(by_latitude @ weights / weights.size)
    # A level without any anomaly stays without: 0 * anything.
    inverse = np.divide(1.0, deviation, out=np.ones_like(deviation), where=deviation > 0)
    share = np.sqrt(weights / (weights.size * anomalies.shape[3]))
    return (inverse[:, None] * share)[..., None].astype(np.float32)


def _gram(state: np.ndarray, columns: int = 4096) -> np.ndarray:
    """state state^T in float64, a part of the columns at a time."""
    total = np.zeros((len(state), len(state)))
    for start in range(0, state.shape[1], columns):
        part = state[:, start : start + columns].astype(np.float64)
        total += part @ part.T
    return total
