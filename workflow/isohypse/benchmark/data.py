# SPDX-License-Identifier: Apache-2.0
"""Conversion and statistics of one 17-level year, side by side: a yearly file in, a table and a JSON out.

Contenders: reading alone (the limit), Isohypse's two stages, plain xarray eager and with dask, and cdo. Each
runs in a process of its own; rounds alternate, so that a busy machine is busy for all. Run as a module
(`python -m isohypse.benchmark.data NAME FILE SCRATCH THREADS`) this file is one such process.
"""

import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

from isohypse.benchmark.report import markdown
from isohypse.config.sections import NCEP_LEVELS_HPA, Quasigeostrophic, Split
from isohypse.config.settings import ArchiveSettings, StatisticsSettings
from isohypse.errors import DataError
from isohypse.storage import write_json

YEAR = 2001
READ_STEPS = 73
DECIMALS = {"seconds": 2, "cpu_seconds": 2, "peak_mib": 0}


def read_alone(file: Path, scratch: Path, threads: int) -> None:
    """netCDF4, 73 steps at a time: what no conversion can beat."""
    import netCDF4

    with netCDF4.Dataset(file) as source:
        heights = source["hgt"]
        heights.set_auto_maskandscale(False)
        for start in range(0, heights.shape[0], READ_STEPS):
            heights[start : start + READ_STEPS]


def isohypse(file: Path, scratch: Path, threads: int) -> None:
    """Stages `archive` and `statistics`."""
    import dask

    from isohypse.data.archive import write_archive_year
    from isohypse.data.statistics import compute_statistics

    levels = NCEP_LEVELS_HPA
    archive = ArchiveSettings(version=1, kind="ncep-r1", levels_hpa=levels, stride=1)
    split = Split(train=(0.0, 0.9), validation=(0.9, 1.0))
    statistics = StatisticsSettings(version=1, levels_hpa=levels, protocol="paper", split=split)
    store = scratch / f"{YEAR}.zarr"
    with dask.config.set(scheduler="threads", num_workers=threads):
        write_archive_year(archive, YEAR, [file], store, threads)
        compute_statistics(statistics, [store], scratch / "statistics.json")


def xarray_eager(file: Path, scratch: Path, threads: int) -> None:
    """open_dataset().load(), to_zarr, mean and std of each level."""
    import xarray as xr

    _xarray(xr.open_dataset(file).load(), scratch)


def xarray_dask(file: Path, scratch: Path, threads: int) -> None:
    """The same with dask, 73 steps a chunk."""
    import dask
    import xarray as xr

    with dask.config.set(scheduler="threads", num_workers=threads):
        _xarray(xr.open_dataset(file, chunks={"time": READ_STEPS}), scratch)


def _xarray(dataset: Any, scratch: Path) -> None:
    dataset.to_zarr(scratch / "xarray.zarr", mode="w", zarr_format=3, consolidated=False)
    dims = ("time", "lat", "lon")
    dataset.hgt.mean(dims).compute()
    dataset.hgt.std(dims).compute()


def cdo(file: Path, scratch: Path, threads: int) -> None:
    """Deflated netCDF-4 in place of Zarr; mean and deviation, a pass each."""
    convert = ["-f", "nc4", "-z", "zip_1", "copy", str(file), str(scratch / "copy.nc")]
    mean = ["fldmean", "-timmean", str(file), str(scratch / "mean.nc")]
    deviation = ["fldmean", "-timstd", str(file), str(scratch / "std.nc")]
    for arguments in (convert, mean, deviation):
        subprocess.run(["cdo", "-s", "-O", "-P", str(threads), *arguments], check=True)


CONTENDERS: dict[str, Callable[[Path, Path, int], None]] = {
    "read alone": read_alone,
    "isohypse": isohypse,
    "xarray": xarray_eager,
    "xarray, dask": xarray_dask,
    "cdo": cdo,
}


def benchmark_data(file: Path | None, repeats: int, threads: int, destination: Path) -> str:
    """Measure every contender `repeats` times; write all numbers to `destination` and return the table.

    file: a year of 17 levels; None: one is made by the embedded model. A contender that is not installed is
    left out and named.
    """
    missing = [] if shutil.which("cdo") else ["cdo"]
    with tempfile.TemporaryDirectory() as folder:
        file = _made_year(Path(folder)) if file is None else file
        names = [name for name in CONTENDERS if name not in missing]
        rounds = [{name: _measure(name, file, threads) for name in names} for _ in range(repeats)]
    found = {name: [measured[name] for measured in rounds] for name in names}
    write_json(destination, {"measurements": found, "missing": missing, "threads": threads})
    return _table(found, missing)


def _made_year(folder: Path) -> Path:
    from isohypse.data.quasigeostrophic import simulate_year

    file = folder / f"hgt.{YEAR}.nc"
    model = Quasigeostrophic(spin_up_days=20)
    simulate_year(model, YEAR, None, folder / "restart.safetensors", file, NCEP_LEVELS_HPA)
    return file


def _measure(name: str, file: Path, threads: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", __name__, name, str(file), scratch, str(threads)]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise DataError(f"benchmark: {name}: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def _table(found: dict[str, list[dict[str, float]]], missing: list[str]) -> str:
    rows = []
    limit = median(run["seconds"] for run in found["read alone"])
    for name, runs in found.items():
        middle = {key: f"{median(run[key] for run in runs):.{n}f}" for key, n in DECIMALS.items()}
        low, high = (f"{pick(run['seconds'] for run in runs):.2f}" for pick in (min, max))
        ratio = median(run["seconds"] for run in runs) / limit
        seconds = f"{middle['seconds']} ({low}-{high})"
        rows.append((name, seconds, middle["cpu_seconds"], middle["peak_mib"], f"{ratio:.2f}"))
    rows += [(name, "not installed", "", "", "") for name in missing]
    return markdown(("work", "seconds", "CPU seconds", "peak MiB", "times reading"), rows)


def _run_contender(name: str, file: str, scratch: str, threads: str) -> None:
    """Print one JSON line. Starting Python and importing the libraries is not counted, for nobody."""
    for library in (
        "dask.array",
        "netCDF4",
        "xarray",
        "zarr",
        "isohypse.data.archive",
        "isohypse.data.statistics",
    ):
        import_module(library)
    whose = resource.RUSAGE_CHILDREN if name == "cdo" else resource.RUSAGE_SELF
    before, start = resource.getrusage(whose), time.perf_counter()
    CONTENDERS[name](Path(file), Path(scratch), int(threads))
    seconds, after = time.perf_counter() - start, resource.getrusage(whose)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu, "peak_mib": after.ru_maxrss / 1024}))


if __name__ == "__main__":
    _run_contender(*sys.argv[1:])
