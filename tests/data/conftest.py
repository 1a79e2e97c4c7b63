# SPDX-License-Identifier: Apache-2.0
"""Small synthetic files: NOAA's format in both generations, and archives of a few points and many years."""

import os
import threading
from collections.abc import Callable
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import netCDF4
import numpy as np
import pytest
import xarray as xr

from isohypse.config.sections import NCEP_LEVELS_HPA, NcepR1
from isohypse.data.contract import ATTRIBUTES, DIMS
from isohypse.data.levels import LEVEL_MEAN_M
from isohypse.data.quasigeostrophic.sphere import Sphere
from isohypse.data.sources import download
from isohypse.data.sources.download import download_year

MISSING = -9.96921e36


def heights_of(year: int, steps: int, levels: tuple[int, ...]) -> np.ndarray:
    """Whole metres, float32 [steps, level, 73, 144], every value told by where it stands."""
    field = np.add.outer(np.arange(73) * 3, np.arange(144)) + year % 7
    level = np.array([LEVEL_MEAN_M[level] - 250 for level in levels]).round()
    step = np.arange(steps)[:, None, None, None] % 97
    return (field + level[:, None, None] + step).astype(np.float32)


def write_ncep_file(
    path: Path,
    year: int = 2026,
    steps: int = 8,
    levels: tuple[int, ...] = NCEP_LEVELS_HPA,
    heights: np.ndarray | None = None,
    packed: bool = False,
    hours: np.ndarray | None = None,
    dims: tuple[str, ...] = ("time", "level", "lat", "lon"),
    latitude: np.ndarray | None = None,
    longitude: np.ndarray | None = None,
    variable: str = "hgt",
    compression: str | None = None,
) -> np.ndarray:
    """Write `hgt.YYYY.nc` in the form since 2014, or before it (`packed`). Returns the heights."""
    heights = heights_of(year, steps, levels) if heights is None else heights
    latitude = np.linspace(90, -90, 73) if latitude is None else latitude
    longitude = np.arange(144) * 2.5 if longitude is None else longitude
    hours = np.arange(heights.shape[0]) * 6.0 if hours is None else hours
    units = "hours since 1-1-1 00:00:0.0" if packed else "hours since 1800-01-01 00:00:0.0"
    start = netCDF4.date2num(datetime(year, 1, 1), units, "standard")
    sizes = dict(zip(("time", "level", "lat", "lon"), heights.shape))
    with netCDF4.Dataset(path, "w", format="NETCDF3_CLASSIC" if packed else "NETCDF4_CLASSIC") as file:
        for dim, size in sizes.items():
            file.createDimension(dim, None if dim == "time" else size)
        coordinates = {
            "time": ("f8", start + hours, units),
            "level": ("f4", levels, "millibar"),
            "lat": ("f4", latitude, "degrees_north"),
            "lon": ("f4", longitude, "degrees_east"),
        }
        for name, (kind, values, unit) in coordinates.items():
            coordinate = file.createVariable(name, kind, (name,))
            coordinate.units = unit
            coordinate[:] = values
        file.title = "4x daily NMC reanalysis"
        _write_heights(file, variable, heights, packed, dims, compression)
    return heights


def _write_heights(file, name, heights, packed, dims, compression) -> None:
    stored = heights.transpose([("time", "level", "lat", "lon").index(dim) for dim in dims])
    if packed:
        variable = file.createVariable(name, "i2", dims, fill_value=False)
        variable.set_auto_maskandscale(False)
        attributes = {
            "add_offset": np.float32(32066),
            "scale_factor": np.float32(1),
            "missing_value": np.int16(32766),
        }
        variable.setncatts(attributes | {"units": "m"})
        missing = stored < -1e30
        variable[:] = np.where(missing, 32766, np.where(missing, 0, stored) - 32066).astype(np.int16)
    else:
        chunks = (
            tuple(1 if dim == "time" else len(file.dimensions[dim]) for dim in dims) if compression else None
        )
        variable = file.createVariable(
            name, "f4", dims, fill_value=False, compression=compression, chunksizes=chunks
        )
        variable.setncatts({"units": "m", "missing_value": np.float32(MISSING)})
        variable[:] = stored


@pytest.fixture(scope="session")
def write_ncep():
    return write_ncep_file


@pytest.fixture
def write_stores(tmp_path):
    """Write heights [time, level, latitude, longitude] as yearly stores; returns their paths."""

    def write(heights, first="2001-01-01", levels=(500,), chunk=100, name="archive") -> list[Path]:
        dataset = dataset_of(heights, first, levels)
        stores = []
        for year, part in dataset.groupby("time.year"):
            store = tmp_path / name / f"{year}.zarr"
            encoding = {
                "geopotential_height": {"chunks": (chunk, 1, *heights.shape[2:]), "fill_value": np.nan}
            }
            part.to_zarr(store, zarr_format=3, consolidated=False, encoding=encoding)
            stores.append(store)
        return stores

    return write


def dataset_of(heights, first="2001-01-01", levels=(500,)) -> xr.Dataset:
    """A dataset under the contract on a global grid with poles."""
    n_time, _, n_latitude, n_longitude = heights.shape
    values = {
        "time": np.datetime64(first, "ns") + np.arange(n_time) * np.timedelta64(6, "h"),
        "level": np.array(levels, dtype=np.int32),
        "latitude": np.linspace(90, -90, n_latitude),
        "longitude": np.arange(n_longitude) * 360 / n_longitude,
    }
    coords = {name: (name, values[name], ATTRIBUTES[name]) for name in DIMS}
    attributes = ATTRIBUTES["geopotential_height"]
    return xr.Dataset({"geopotential_height": (DIMS, heights.astype(np.float32), attributes)}, coords)


@pytest.fixture(scope="session")
def make_dataset():
    return dataset_of


@pytest.fixture(scope="session")
def samples() -> Path:
    """The folder of real sample files."""
    folder = os.environ.get("ISOHYPSE_SAMPLES")
    if not folder:
        pytest.skip("ISOHYPSE_SAMPLES names no folder of sample files")
    return Path(folder)


class Server:
    """Answers the n-th request by the n-th of `answers` (the last one again and again); notes the headers."""

    def __init__(self, content: bytes):
        self.content = content
        self.answers: list[Callable] = []
        self.requests: list[dict[str, str]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.requests.append({"path": self.path, **self.headers})
                answer = server.answers[min(len(server.requests), len(server.answers)) - 1]
                answer(self, server.content)

            def log_message(self, *_arguments):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/data/"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()


@pytest.fixture(scope="session")
def content(tmp_path_factory, write_ncep) -> bytes:
    path = tmp_path_factory.mktemp("source") / "hgt.2026.nc"
    write_ncep(path, steps=2, compression="zlib")
    return path.read_bytes()


@pytest.fixture
def server(content, monkeypatch):
    monkeypatch.setattr(download, "FIRST_PAUSE_SECONDS", 0.001)
    server = Server(content)
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def fetch(server, tmp_path):
    """Fetch hgt.2026.nc into an empty folder; returns its path."""

    def run(*urls, attempts=3, timeout_seconds=5):
        ncep = NcepR1(urls=urls or (server.url,), attempts=attempts, timeout_seconds=timeout_seconds)
        download_year(ncep, 2026, tmp_path / "data" / "hgt.2026.nc")
        return tmp_path / "data" / "hgt.2026.nc"

    return run


@pytest.fixture(scope="session")
def sphere() -> Sphere:
    return Sphere(21)


@pytest.fixture
def random_coefficients(sphere) -> Callable[..., np.ndarray]:
    """Makes coefficients (m, part, field, n) of real fields with waves up to n = largest."""

    def make(fields: int = 3, largest: int = sphere.truncation, seed: int = 1) -> np.ndarray:
        modes = sphere.truncation + 1
        values = np.random.default_rng(seed).standard_normal((modes, 2, fields, modes))
        m, n = np.meshgrid(np.arange(modes), np.arange(modes), indexing="ij")
        values *= ((n >= m) & (n <= largest))[:, None, None]
        values[0, 1] = 0.0
        return values

    return make


@pytest.fixture
def rms_on_sphere() -> Callable[[np.ndarray], float]:
    """Root of the area mean of the square of one field (m, part, n), by Parseval."""

    def rms(coefficients: np.ndarray) -> float:
        power = (coefficients**2).sum((1, 2))
        return float(np.sqrt(0.5 * (power[0] + 2 * power[1:].sum())))

    return rms
