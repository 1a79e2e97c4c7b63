# SPDX-License-Identifier: Apache-2.0
"""A full disk in every data stage and in a checkpoint: one line of error, and what was there is intact.

    sudo python tests/faults/full_disk.py --data results/ci/data

Mounts a small tmpfs for each stage, puts an earlier result on it, fills it but for a few kilobytes and runs
the stage; then makes room and runs the same command again, which must succeed. `checkpoint` is a training
whose first checkpoint fits and whose second does not: the second run must go on from the first one, to the
weights of a training that nothing disturbed. Not part of the tests: mounting needs root.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FIELDS = "500hPa/standard"
RUN = f"in8-out2/{FIELDS}/kda-debug/seed0"
EXECUTION = json.dumps({"device": "cpu", "checkpoint_every": 5, "tensorboard": False})
SIZE = 320 << 20
LEFT = 2 << 10
LEFT_FOR_ONE_CHECKPOINT = 1700 << 10
"""Enough for one of 1.1 MB beside the log, not for two."""
NCEP_LEVELS_HPA = [1000, 925, 850, 700, 600, 500, 400, 300, 250, 200, 150, 100, 70, 50, 30, 20, 10]


@dataclass(frozen=True)
class Stage:
    """A rule of the `ci` study and the arguments that make it write to the small disk."""

    rule: str
    arguments: list[object]
    wildcards: tuple[str, ...] = ()
    package: str = "data"
    left: int = LEFT

    def run(self) -> subprocess.CompletedProcess:
        settings = isohypse("settings", self.rule, *self.wildcards, "--preset", "ci").stdout.strip()
        return isohypse(self.package, self.rule, "--settings", settings, *self.arguments)


def isohypse(*arguments: object) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "workflow"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "isohypse.cli", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def make_whole_year(folder: Path) -> None:
    """A year of all levels: a download is refused if one is missing."""
    folder.mkdir()
    levels = folder / "levels.yaml"
    levels.write_text(json.dumps({"quasigeostrophic": {"levels_hpa": NCEP_LEVELS_HPA}}))
    settings = isohypse("settings", "simulate", "--preset", "ci", "--configfile", levels).stdout.strip()
    made = ["--next-restart", folder / "restart.safetensors", "--output", folder / "hgt.2001.nc"]
    isohypse("data", "simulate", "--settings", settings, "--year", 2001, *made).check_returncode()


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, *_arguments: object) -> None:
        pass

    def copyfile(self, *files: object) -> None:
        with suppress(ConnectionError):  # the client has gone: its disk is full
            super().copyfile(*files)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of `folder`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


def stages(data: Path, disk: Path, address: str) -> dict[str, Stage]:
    stores = sorted((data / "archive").glob("*.zarr"))
    year = ["--year", 2001]
    server = json.dumps({"urls": [address], "attempts": 2})
    simulated = ["--next-restart", disk / "restart.safetensors", "--output", disk / "hgt.2001.nc"]
    archived = ["--output", disk / "2001.zarr", data / "source" / "hgt.2001.nc"]
    training = training_of(data, disk)
    return {
        "download": Stage("download", ["--server", server, *year, "--output", disk / "hgt.2001.nc"]),
        "simulate": Stage("simulate", [*year, *simulated]),
        "archive": Stage("archive", [*year, *archived]),
        "statistics": Stage("statistics", ["--output", disk / "statistics.json", *stores], (FIELDS,)),
        "climatology": Stage("climatology", ["--output", disk / "climatology.nc", *stores], (FIELDS,)),
        "train": training(LEFT),
        "checkpoint": training(LEFT_FOR_ONE_CHECKPOINT),
    }


def training_of(data: Path, disk: Path) -> Callable[[int], Stage]:
    stores = sorted((data / "archive").glob("*.zarr"))
    arguments = ["--work", disk / "work", "--output", disk / "run", "--execution", EXECUTION]
    arguments += ["--statistics", data / FIELDS / "statistics.json", *stores]
    return lambda left: Stage("train", arguments, (RUN,), "training", left)


def digest(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(str(path).encode() + path.read_bytes() for path in files)).hexdigest()


def fill(disk: Path, left: int) -> None:
    """Leave `left` bytes."""
    state = os.statvfs(disk)
    with (disk / "filler").open("wb") as file:
        file.write(b"\0" * (state.f_bavail * state.f_frsize - left))


def trial(name: str, stage: Stage, disk: Path) -> bool:
    """Run one stage on a nearly full disk, then with room, and say what came of it."""
    earlier = disk / "earlier"
    earlier.mkdir()
    (earlier / "result").write_bytes(os.urandom(1 << 16))
    fill(disk, stage.left)
    before = digest(earlier)
    done = stage.run()
    lines = [line for line in done.stderr.splitlines() if line.startswith("isohypse: ")]
    left = sorted(path.name for path in disk.iterdir() if path.name not in ("earlier", "filler"))
    clear = "Traceback" not in done.stderr and bool(lines)
    good = done.returncode != 0 and clear and digest(earlier) == before
    (disk / "filler").unlink()
    again = stage.run()
    good &= again.returncode == 0 and digest(earlier) == before
    good &= ("going on after step" in again.stderr) == (name == "checkpoint")
    print(f"{name:<12} {'good' if good else 'BAD'}: exit {done.returncode}, left behind {left}, said:")
    print("   ", lines[-1] if clear else done.stderr.strip()[-1500:])
    print(f"    with room again: exit {again.returncode}", flush=True)
    return good


@contextmanager
def small(disk: Path) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", disk], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", disk], check=True)


def weights(folder: Path) -> bytes:
    return (folder / "run" / "weights.safetensors").read_bytes()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT / "results" / "ci" / "data", help="of a ci study")
    data = parser.parse_args().data.resolve()
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        disk, undisturbed = Path(scratch) / "disk", Path(scratch) / "undisturbed"
        disk.mkdir()
        training_of(data, undisturbed)(0).run().check_returncode()
        make_whole_year(Path(scratch) / "server")
        with served(Path(scratch) / "server") as address:
            for name, stage in stages(data, disk, address).items():
                with small(disk):
                    results.append(trial(name, stage, disk))
                    if stage.rule == "train":
                        results.append(weights(disk) == weights(undisturbed))
                        print(f"    same weights as undisturbed: {results[-1]}", flush=True)
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
