# SPDX-License-Identifier: Apache-2.0
"""Scores of one forecast field against one true field: squared error, bias, anomaly correlation.

Pure functions on arrays whose last two axes are [latitude, longitude], north to south. All sums run in
float64. NaN in, NaN out: a missing value is never skipped, because a mean over fewer points is another
score.

Two definitions, never mixed in one table:

- `standard`, WeatherBench 2 (Rasp et al. 2024, arXiv:2308.15560, appendix): points weigh as the area of
  their cell; anomalies are departures from a climatology of the training period.
- `paper`: squared errors are averaged over grid points, each alike, poles as the equator; anomalies are
  departures from the mean of all scored truth, cos(latitude) multiplies both of them (weight
  cos^2 latitude), and their means are not removed.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from isohypse.data.area import area_weights
from isohypse.errors import DataError


def grid_mean(field: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The weighted mean over the grid, float64 [...].

    field: [..., latitude, longitude]. weights: [latitude], relative area of a point of that latitude,
    mean 1. Raises DataError if the weights do not belong to the field.
    """
    check_weights(weights, field.shape[-2])
    by_latitude = np.asarray(field).mean(axis=-1, dtype=np.float64)
    return by_latitude @ weights / weights.size


def mean_squared_error(forecast: np.ndarray, truth: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """sum_ij w_i (f_ij - o_ij)^2 / (I J), in m2, float64 [...]. RMSE is the root of its mean over samples."""
    return grid_mean(np.square(_difference(forecast, truth)), weights)


def bias(forecast: np.ndarray, truth: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """sum_ij w_i (f_ij - o_ij) / (I J), in m, float64 [...]: above zero, the forecast is too high."""
    return grid_mean(_difference(forecast, truth), weights)


def anomaly_correlation(
    forecast: np.ndarray, truth: np.ndarray, climatology: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """The uncentred anomaly correlation coefficient (ACC) of each field, in [-1, 1], float64 [...].

    sum w f' o' / sqrt(sum w f'^2  sum w o'^2), where f' and o' depart from `climatology`, which
    broadcasts against both: [..., latitude, longitude] in metres. A forecast that is the climatology has
    no anomaly, and so no correlation: NaN, not 0. (Wilks 2011, Statistical Methods in the Atmospheric
    Sciences, section 8.6.4, for centred against uncentred.)
    """
    f, o = _difference(forecast, climatology), _difference(truth, climatology)
    product = grid_mean(f * o, weights)
    size = np.sqrt(grid_mean(np.square(f), weights) * grid_mean(np.square(o), weights))
    return np.divide(product, size, out=np.full_like(product, np.nan), where=size != 0)


def _difference(minuend: np.ndarray, subtrahend: np.ndarray) -> np.ndarray:
    """In float64: heights are 5,500 m and a float32 of them is good to 0.0005 m only."""
    return np.subtract(minuend, subtrahend, dtype=np.float64)


def uniform_weights(latitude: np.ndarray) -> np.ndarray:
    """One for each latitude (degrees, north to south): every grid point counts alike."""
    check_latitude(latitude)
    return np.ones(len(latitude))


def squared_cosine_weights(latitude: np.ndarray) -> np.ndarray:
    """cos^2(latitude), mean 1: what it amounts to when cos(latitude) multiplies both anomalies."""
    check_latitude(latitude)
    weights = np.cos(np.radians(np.asarray(latitude, np.float64))) ** 2
    return weights / weights.mean()


def cell_weights(latitude: np.ndarray) -> np.ndarray:
    """Area of the cells of each latitude (sines of their edges), mean 1."""
    check_latitude(latitude)
    weights = np.asarray(area_weights(latitude), np.float64)
    return weights / weights.mean()


def check_latitude(latitude: np.ndarray) -> None:
    """Raise DataError unless latitudes are degrees that fall from north to south."""
    latitude = np.asarray(latitude)
    inside = np.all(np.abs(latitude) <= 90)  # False for NaN as well
    if latitude.ndim != 1 or not inside or not np.all(np.diff(latitude) < 0):
        raise DataError(
            f"latitude must fall from north to south within [-90, 90], got {_shown(latitude)}; "
            "build the archive anew"
        )


def check_weights(weights: np.ndarray, latitudes: int) -> None:
    """Raise DataError unless `weights` are `latitudes` non-negative numbers of mean 1."""
    if np.shape(weights) != (latitudes,):
        raise DataError(f"weights for {latitudes} latitudes must be that many, got shape {np.shape(weights)}")
    if not (np.min(weights) >= 0 and abs(np.mean(weights) - 1) < 1e-9):
        raise DataError(f"weights must not be negative and must have mean 1, got {_shown(weights)}")


def _shown(values: np.ndarray) -> str:
    return f"{values[0]:g} ... {values[-1]:g}" if np.ndim(values) == 1 and np.size(values) else repr(values)


@dataclass(frozen=True)
class Definition:
    """Which weights the errors and the anomalies of a set of scores carry."""

    name: str
    error_weights: Callable[[np.ndarray], np.ndarray]
    anomaly_weights: Callable[[np.ndarray], np.ndarray]


DEFINITIONS = (
    Definition("paper", uniform_weights, squared_cosine_weights),
    Definition("standard", cell_weights, cell_weights),
)
