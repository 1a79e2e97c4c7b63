# SPDX-License-Identifier: Apache-2.0
"""How high the NCEP levels lie on average: by it a field is known for that of its level.

Reads and writes nothing.
"""

import numpy as np

LEVEL_MEAN_M = {
    # Unweighted means over grid and time of the NCEP/NCAR Reanalysis 1, 1948-2024.
    850: 1410.4,
    700: 2948.9,
    600: 4140.6,
    500: 5509.7,
    400: 7128.5,
    300: 9111.0,
    250: 10317.4,
    200: 11761.3,
    # Hypsometric continuation: below 850 hPa with the lapse rate of the two layers above it (276 K and
    # 278 K), above 200 hPa with 216.65 K to 50 hPa and +1 K/km above that, as in the standard atmosphere.
    1000: 90.0,
    925: 727.0,
    150: 13585.0,
    100: 16156.0,
    70: 18418.0,
    50: 20552.0,
    30: 23816.0,
    20: 26442.0,
    10: 31017.0,
}
"""Mean height of each level, metres; the same for every year, so that years are consistent."""


def mean_bounds_m(levels_hpa: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Between which heights (m) the global mean of a frame at each of `levels_hpa` must lie, float64.

    The bounds are half way to the neighbouring levels, 320 m from the mean at 925 hPa and more elsewhere; a
    frame's mean over the grid moves with the seasons by far less.
    """
    heights = np.array([LEVEL_MEAN_M[level] for level in sorted(LEVEL_MEAN_M, reverse=True)], dtype=float)
    middle = (heights[1:] + heights[:-1]) / 2
    low = np.concatenate([[2 * heights[0] - middle[0]], middle])
    high = np.concatenate([middle, [2 * heights[-1] - middle[-1]]])
    places = np.searchsorted(-np.array(sorted(LEVEL_MEAN_M, reverse=True)), -np.asarray(levels_hpa))
    return low[places], high[places]
