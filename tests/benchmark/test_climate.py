# SPDX-License-Identifier: Apache-2.0
import os
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from isohypse.benchmark.climate import FRAMES, LATITUDE, LONGITUDE, REAL, numbers_of


def test_the_real_numbers_are_those_of_the_real_analyses():
    folder = os.environ.get("ISOHYPSE_SAMPLES")
    if not folder:
        pytest.skip("ISOHYPSE_SAMPLES names no folder of sample files")
    with xr.open_dataset(Path(folder) / "era5_z500_6h_20200101-20200215_5.625deg.nc") as source:
        heights = source.hgt.rename(lat="latitude", lon="longitude").load()
    found = numbers_of(heights)
    for name, real in REAL.items():
        assert found[name] == pytest.approx(real, abs=0.0006 if "share" in name else 0.06), name


def test_a_wave_of_known_size_is_found():
    """Amplitude 100 m, zonal wavenumber 3, once round in 12 days."""
    phase = 3 * np.deg2rad(LONGITUDE) - 2 * np.pi * np.arange(FRAMES)[:, None] / 16
    wave = np.broadcast_to(5500 + 100 * np.cos(phase)[:, None], (FRAMES, 32, 64))
    coords = {"latitude": LATITUDE, "longitude": LONGITUDE}
    found = numbers_of(xr.DataArray(wave, coords, ("time", "latitude", "longitude")))
    assert found["zonal wavenumbers 0-3, 40-60° N (share)"] == pytest.approx(1)
    assert found["transient deviation, 53° N (m)"] == pytest.approx(100 / np.sqrt(2), rel=0.01)
    assert found["persistence RMSE, 48 h (m)"] == pytest.approx(200 / np.sqrt(2), rel=0.01)
    assert found["mean (m)"] == pytest.approx(5500)
    assert found["24 h change, variation along 40-60° N (share)"] == pytest.approx(0, abs=0.01)


def test_a_storm_track_is_found():
    """Weather of twice the size over half of each circle varies by a third of its mean."""
    size = np.where(np.arange(len(LONGITUDE)) < 32, 1.0, 2.0) * np.ones((len(LATITUDE), 1))
    days = np.arange(FRAMES) // 4
    values = 5500 + 10 * (-1.0) ** days[:, None, None] * size
    coords = {"latitude": LATITUDE, "longitude": LONGITUDE}
    found = numbers_of(xr.DataArray(values, coords, ("time", "latitude", "longitude")))
    for side in "NS":
        assert found[f"24 h change, variation along 40-60° {side} (share)"] == pytest.approx(1 / 3)
