# SPDX-License-Identifier: Apache-2.0
"""Area weights of a regular latitude-longitude grid, global or regional.

A grid point stands for the cell that reaches half way to its neighbours; cells end at the poles. The area
of a cell between the latitudes a and b is proportional to sin(b) - sin(a), exactly, which is what
WeatherBench 2 uses (Rasp et al. 2024, doi:10.1029/2023MS004019). cos(latitude) would give the poles no area
at all.
"""

import numpy as np


def cell_bounds(latitude: np.ndarray) -> np.ndarray:
    """float64 degrees [n + 1]: edges of the cells around `latitude` [n], in its order."""
    latitude = np.asarray(latitude, dtype=np.float64)
    if latitude.ndim != 1 or len(latitude) < 2:
        raise ValueError(f"expected at least two latitudes, got shape {latitude.shape}")
    middle = (latitude[:-1] + latitude[1:]) / 2
    first = latitude[0] - (middle[0] - latitude[0])
    last = latitude[-1] + (latitude[-1] - middle[-1])
    return np.clip(np.concatenate([[first], middle, [last]]), -90.0, 90.0)


def area_weights(latitude: np.ndarray) -> np.ndarray:
    """float64 [n], mean 1: relative area of the cells around `latitude` (degrees, [n], monotonic).

    `(field * weights[:, None]).mean()` is the area mean of `field` [n, longitude].
    """
    area = np.abs(np.diff(np.sin(np.radians(cell_bounds(latitude)))))
    return area / area.mean()
