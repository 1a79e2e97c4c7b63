# SPDX-License-Identifier: Apache-2.0
"""The archive's 500 hPa beside the real one: Zarr stores in, a table and a JSON out.

REAL was computed by this module from 181 six-hourly analyses of ERA5, 1 January to 15 February 2020, on the
32 x 64 grid of WeatherBench 2 (contains modified Copernicus Climate Change Service information). The archive
is brought to those points by bilinear interpolation, and the same six weeks of each of its years are taken;
numbers are means over years, extremes are means over years of each year's extreme.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from isohypse.benchmark.report import markdown
from isohypse.data.archive import open_archive
from isohypse.data.area import area_weights
from isohypse.errors import DataError
from isohypse.storage import write_json

FRAMES = 181
LATITUDE = np.arange(87.1875, -90, -5.625)
LONGITUDE = np.arange(64) * 5.625
REAL = {
    "mean (m)": 5509.4,
    "standard deviation (m)": 310.6,
    "minimum (m)": 4698.5,
    "maximum (m)": 5944.0,
    "persistence RMSE, 6 h (m)": 20.6,
    "persistence RMSE, 12 h (m)": 32.5,
    "persistence RMSE, 24 h (m)": 53.5,
    "persistence RMSE, 48 h (m)": 75.5,
    "persistence RMSE, 120 h (m)": 96.3,
    "transient deviation, 53° N (m)": 116.2,
    "transient deviation, 31° N (m)": 64.4,
    "transient deviation, 3° N (m)": 12.4,
    "transient deviation, 31° S (m)": 38.5,
    "transient deviation, 53° S (m)": 126.5,
    "zonal wavenumbers 0-3, 40-60° N (share)": 0.588,
    "zonal wavenumbers 4-8, 40-60° N (share)": 0.378,
    "24 h change, variation along 40-60° N (share)": 0.222,
    "24 h change, variation along 40-60° S (share)": 0.073,
}


def compare_climate(stores: Sequence[Path], destination: Path) -> str:
    """Write the archive's numbers and the real ones to `destination`; return them as a table."""
    heights = open_archive(stores, (500,)).geopotential_height.isel(level=0, drop=True)
    years = [numbers_of(part) for _, part in heights.groupby("time.year") if part.sizes["time"] >= FRAMES]
    if not years:
        raise DataError(f"benchmark climate: no year has its first {FRAMES} frames; simulate a whole year")
    found = {name: float(np.mean([year[name] for year in years])) for name in REAL}
    write_json(destination, {"archive": found, "real": REAL, "years": len(years)})
    rows = []
    for name, real in REAL.items():
        digits = 2 if "share" in name else 1
        rows.append((name, f"{found[name]:.{digits}f}", f"{real:.{digits}f}"))
    return markdown(("1 January to 15 February", f"archive ({len(years)} years)", "ERA5 2020"), rows)


def numbers_of(heights: xr.DataArray) -> dict[str, float]:
    """The numbers of one year; `heights` (time, latitude, longitude)."""
    first = heights.isel(time=slice(0, FRAMES)).load()
    cyclic = first.isel(longitude=[0]).assign_coords(longitude=[360.0])
    closed = xr.concat([first, cyclic], dim="longitude")
    values = closed.interp(latitude=LATITUDE, longitude=LONGITUDE).values.astype(np.float64)
    found = {
        "mean (m)": values.mean(),
        "standard deviation (m)": values.std(),
        "minimum (m)": values.min(),
        "maximum (m)": values.max(),
    }
    weights = area_weights(LATITUDE)[:, None]
    for hours in (6, 12, 24, 48, 120):
        change = values[hours // 6 :] - values[: -hours // 6]
        found[f"persistence RMSE, {hours} h (m)"] = np.sqrt((change**2 * weights).mean(axis=(1, 2))).mean()
    return found | _transients(values) | _waves(values) | _storm_tracks(values)


def _transients(values: np.ndarray) -> dict[str, float]:
    """Deviation in time at each point, root mean square along circles of latitude."""
    deviation = np.sqrt(values.var(axis=0).mean(axis=1))
    circles = {"53° N": 53.4375, "31° N": 30.9375, "3° N": 2.8125, "31° S": -30.9375, "53° S": -53.4375}
    return {
        f"transient deviation, {name} (m)": deviation[np.abs(LATITUDE - latitude).argmin()]
        for name, latitude in circles.items()
    }


def _waves(values: np.ndarray) -> dict[str, float]:
    """Shares of zonal wavenumbers in the variance in time, between 40 and 60 degrees north."""
    band = (LATITUDE > 40) & (LATITUDE < 60)
    anomalies = values[:, band] - values[:, band].mean(axis=0)
    power = (np.abs(np.fft.rfft(anomalies, axis=-1)) ** 2).mean(axis=(0, 1))
    power[1:-1] *= 2  # both signs of the wavenumber
    share = power / power.sum()
    return {
        "zonal wavenumbers 0-3, 40-60° N (share)": share[:4].sum(),
        "zonal wavenumbers 4-8, 40-60° N (share)": share[4:9].sum(),
    }


def _storm_tracks(values: np.ndarray) -> dict[str, float]:
    """How uneven the day-to-day change is around the circle: its deviation over its mean."""
    found = {}
    for name, band in (("N", LATITUDE), ("S", -LATITUDE)):
        part = values[:, (band > 40) & (band < 60)]
        change = np.sqrt(((part[4:] - part[:-4]) ** 2).mean(axis=(0, 1)))
        found[f"24 h change, variation along 40-60° {name} (share)"] = change.std() / change.mean()
    return found
