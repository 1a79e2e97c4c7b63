# SPDX-License-Identifier: Apache-2.0
"""What drives the model: mountains and the state to which temperature relaxes, both analytic.

The relaxation state psi* has a zonal jet in each hemisphere, stronger in winter, moving with the sun,
with maxima over the western oceans, and a planetary wave of cold continents in the northern winter. Only
the two thicknesses matter; psi* of 500 hPa is zero. The numbers were tuned so that the heights have the
mean, spread and day-to-day change of reanalyses.
"""

from dataclasses import dataclass, replace

import numpy as np

from isohypse.data.quasigeostrophic.sphere import EARTH_RADIUS_M, Sphere

OMEGA_PER_S = 7.292e-5  # rotation of the Earth
OROGRAPHIC_SCALE_HEIGHT_M = 9000.0  # H0 (Marshall & Molteni 1993)

MOUNTAINS = (
    # latitude, longitude, half-width in latitude, in longitude (degrees), height (m)
    (34, 88, 9, 22, 4200),  # Tibet
    (45, 250, 14, 12, 2100),  # Rocky Mountains
    (73, 320, 9, 14, 2200),  # Greenland
    (-30, 290, 16, 6, 2600),  # Andes
    (-86, 90, 14, 400, 2600),  # Antarctica
    (50, 100, 8, 18, 1300),  # Mongolia
    (5, 38, 12, 10, 1100),  # East Africa
    (64, 200, 6, 14, 900),  # Alaska
)


@dataclass(frozen=True)
class Climate:
    """Shape of the relaxation state; winds in m/s, latitudes in degrees."""

    shear_upper: float = 26.0
    """Wind at 200 hPa less that at 500 hPa, in the core of a jet."""
    shear_lower: float = 22.0
    """Wind at 500 hPa less that at 800 hPa."""
    strength_north: float = 0.85
    """Factor on both shears of the northern jet."""
    strength_south: float = 1.2
    latitude_north: float = 42.0
    latitude_south: float = -44.0
    width_north: float = 17.5
    """Half-width of a jet (e-folding)."""
    width_south: float = 17.5
    polar_night: float = 0.0
    """Shear at 68 degrees north in midwinter, relative to a jet's core; none in midsummer."""
    season_north: float = 0.15
    """Relative change of the northern shear from its mean to winter."""
    season_south: float = 0.18
    swing: float = 5.0
    """Seasonal shift of both jets."""
    planetary_waves: tuple[tuple[int, float, float], ...] = ((2, 45.0, 100.0),)
    """Cold continents in northern winter: zonal wavenumber, size as a wind, longitude where it is cold."""
    antarctic_wave: tuple[float, float] = (0.0, 0.0)
    """Antarctica lies off the pole: size and cold longitude of a southern wave one, the same all year."""
    ocean_jets: float = 0.8
    """Relative strengthening of the jets over the western oceans in winter."""
    ocean_centres: tuple[float, ...] = (145.0, 290.0)
    """Longitudes of the strongest northern jet."""
    mountains: float = 1.3
    """Factor on the height of the mountains."""


CLIMATES = {
    21: Climate(),
    31: replace(
        Climate(),
        shear_upper=24.0,
        shear_lower=21.5,
        strength_north=0.87,
        strength_south=1.27,
        width_north=17.0,
        width_south=17.0,
    ),
}


def topographic_vorticity(sphere: Sphere, climate: Climate) -> np.ndarray:
    """f h / H0 (1/s), (m, part, n), smoothed so that the truncation does not ring."""
    height = np.zeros((sphere.longitudes, sphere.latitudes))
    for latitude, longitude, half_latitude, half_longitude, metres in MOUNTAINS:
        east = _degrees_from(longitude, sphere)
        height += (
            metres * _bump(sphere.latitude_deg, latitude, half_latitude) * _bump(east, 0, half_longitude)
        )
    vorticity = 2 * OMEGA_PER_S * sphere.mu * height * climate.mountains / OROGRAPHIC_SCALE_HEIGHT_M
    smoothing = np.exp(-1.5 * (np.arange(sphere.truncation + 1) / sphere.truncation) ** 4)
    return (sphere.analysis(vorticity[:, None]) * smoothing)[:, :, 0]


def relaxation_state(sphere: Sphere, climate: Climate) -> tuple[np.ndarray, np.ndarray]:
    """Annual mean of psi* and half its difference winter - summer (north), m2/s, (m, part, level, n)."""
    winter, summer = _thermal_state(sphere, climate, 1.0), _thermal_state(sphere, climate, -1.0)
    return 0.5 * (winter + summer), 0.5 * (winter - summer)


def _thermal_state(sphere: Sphere, climate: Climate, season: float) -> np.ndarray:
    wind = _jets(sphere, climate, season)[:, None]
    jet = sphere.streamfunction_of_zonal_wind(wind)[:, :, 0]
    wave = _land_sea_contrast(sphere, climate, season)
    psi = np.zeros((jet.shape[0], 2, 3, jet.shape[-1]))
    psi[:, :, 0] = climate.shear_upper * jet + wave
    psi[:, :, 2] = -(climate.shear_lower * jet + wave)
    return psi


def _jets(sphere: Sphere, climate: Climate, season: float) -> np.ndarray:
    """Both jets relative to their mean strength, (longitude, latitude); `season` +1 is northern winter."""
    shift = climate.swing * season
    north = _bump(sphere.latitude_deg, climate.latitude_north - shift, climate.width_north)
    south = _bump(sphere.latitude_deg, climate.latitude_south - shift, climate.width_south)
    north = (
        climate.strength_north
        * (1 + climate.season_north * season)
        * north
        * _ocean_pattern(sphere, climate, climate.ocean_centres, season)
    )
    south = (
        climate.strength_south
        * (1 - climate.season_south * season)
        * south
        * _ocean_pattern(sphere, climate, (60.0,), 0.0)
    )
    night = 0.5 * (1 + season) * climate.polar_night * _bump(sphere.latitude_deg, 68.0, 14.0)
    return north + south + night


def _ocean_pattern(sphere: Sphere, climate: Climate, centres: tuple[float, ...], season: float) -> np.ndarray:
    """(longitude, 1), mean 1: stronger by `ocean_jets` at the given longitudes, more so in winter."""
    bumps = sum(_bump(_degrees_from(centre, sphere), 0, 45.0) for centre in centres)
    return 1 + climate.ocean_jets * (1 + 0.4 * season) * (bumps - bumps.mean())


def _land_sea_contrast(sphere: Sphere, climate: Climate, season: float) -> np.ndarray:
    """Thickness streamfunction (m2/s) of continents that are cold in winter and weakly warm in summer."""
    seasonal = 0.5 * (1 + season) - 0.15 * (1 - season)
    psi = np.zeros((sphere.longitudes, sphere.latitudes))
    north, south = _bump(sphere.latitude_deg, 52.0, 18.0), _bump(sphere.latitude_deg, -58.0, 18.0)
    for wavenumber, wind, cold in climate.planetary_waves:
        psi -= seasonal * wind / wavenumber * np.cos(wavenumber * _radians_from(cold, sphere)) * north
    wind, cold = climate.antarctic_wave
    psi += wind * np.cos(_radians_from(cold, sphere)) * south  # f < 0: cold is a positive thickness of psi
    return sphere.analysis(psi[:, None] * EARTH_RADIUS_M / 2)[:, :, 0]


def _radians_from(longitude_deg: float, sphere: Sphere) -> np.ndarray:
    return np.radians(_degrees_from(longitude_deg, sphere))


def _degrees_from(longitude_deg: float, sphere: Sphere) -> np.ndarray:
    """(longitude, 1): signed distance from a meridian, -180..180 degrees."""
    return (np.degrees(sphere.longitude_rad)[:, None] - longitude_deg + 180) % 360 - 180


def _bump(x: np.ndarray, centre: float, width: float) -> np.ndarray:
    return np.exp(-(((x - centre) / width) ** 2))
