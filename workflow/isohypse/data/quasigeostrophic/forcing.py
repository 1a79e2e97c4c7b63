# SPDX-License-Identifier: Apache-2.0
"""What drives the model: mountains and the state to which temperature relaxes, both analytic.

The relaxation state psi* has a zonal jet in each hemisphere, stronger in winter, moving with the sun, the
northern one with maxima over the western oceans where storm tracks begin, and planetary waves of cold
continents in the northern winter. Only the two thicknesses matter; psi* of 500 hPa is zero. The numbers were
tuned to January: mean, spread and change with time by `isohypse benchmark climate`, storm tracks by the
longitudes of ERA5's day-to-day change, standing waves by NCEP's mean Januaries 1958-1978.
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

    shear_upper: float = 29.0
    """Wind at 200 hPa less that at 500 hPa, in the core of a jet."""
    shear_lower: float = 19.0
    """Wind at 500 hPa less that at 800 hPa."""
    strength_north: float = 0.89
    """Factor on both shears of the northern jet."""
    strength_south: float = 1.33
    latitude_north: float = 37.0
    latitude_south: float = -39.0
    width_north: float = 17.5
    """Half-width of a jet (e-folding)."""
    width_south: float = 17.5
    polar_night: float = 0.25
    """Shear at 68 degrees north in midwinter, relative to a jet's core; none in midsummer."""
    season_north: float = 0.15
    """Relative change of the northern shear from its mean to winter."""
    season_south: float = 0.18
    swing: float = 5.0
    """Seasonal shift of both jets."""
    planetary_waves: tuple[tuple[int, float, float], ...] = ((2, 30.0, 95.0), (3, 38.0, 20.0))
    """Cold continents in northern winter: zonal wavenumber, size as a wind, a longitude where it is cold."""
    ocean_jets: float = 1.1
    """Relative strengthening of the northern jet over the western oceans; more so in winter."""
    ocean_jet_south: float = 0.1
    """The same over the Indian Ocean (60 degrees east), all year."""
    ocean_centres: tuple[float, ...] = (155.0, 285.0)
    """Longitudes of the strongest northern jet."""
    mountains: float = 1.3
    """Factor on the height of the mountains."""


CLIMATES = {
    21: Climate(),
    31: replace(
        Climate(),
        shear_upper=26.8,
        shear_lower=18.6,
        strength_north=0.91,
        strength_south=1.36,
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
        * _ocean_pattern(sphere, climate.ocean_jets * (1 + 0.4 * season), climate.ocean_centres)
    )
    south = (
        climate.strength_south
        * (1 - climate.season_south * season)
        * south
        * _ocean_pattern(sphere, climate.ocean_jet_south, (60.0,))
    )
    night = 0.5 * (1 + season) * climate.polar_night * _bump(sphere.latitude_deg, 68.0, 14.0)
    return north + south + night


def _ocean_pattern(sphere: Sphere, strength: float, centres: tuple[float, ...]) -> np.ndarray:
    """(longitude, 1), mean 1: stronger by `strength` at the given longitudes."""
    bumps = sum(_bump(_degrees_from(centre, sphere), 0, 45.0) for centre in centres)
    return 1 + strength * (bumps - bumps.mean())


def _land_sea_contrast(sphere: Sphere, climate: Climate, season: float) -> np.ndarray:
    """Thickness streamfunction (m2/s) of continents that are cold in winter and weakly warm in summer."""
    seasonal = 0.5 * (1 + season) - 0.15 * (1 - season)
    psi = np.zeros((sphere.longitudes, sphere.latitudes))
    for wavenumber, wind, cold in climate.planetary_waves:
        wave = np.cos(wavenumber * np.radians(_degrees_from(cold, sphere)))
        psi -= seasonal * wind / wavenumber * wave * _bump(sphere.latitude_deg, 52.0, 18.0)
    return sphere.analysis(psi[:, None] * EARTH_RADIUS_M / 2)[:, :, 0]


def _degrees_from(longitude_deg: float, sphere: Sphere) -> np.ndarray:
    """(longitude, 1): signed distance from a meridian, -180..180 degrees."""
    return (np.degrees(sphere.longitude_rad)[:, None] - longitude_deg + 180) % 360 - 180


def _bump(x: np.ndarray, centre: float, width: float) -> np.ndarray:
    return np.exp(-(((x - centre) / width) ** 2))
