# SPDX-License-Identifier: Apache-2.0
"""A full disk in every data stage and in a checkpoint: one line of error, and what was there is intact.

    sudo python tests/faults/full_disk.py --data results/ci/data

Mounts a small tmpfs for each stage, puts an earlier result on it, fills it but for a few kilobytes and runs
the stage. Not part of the tests: mounting needs root.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FIELDS = "500hPa/standard"
RUN = f"in8-out2/{FIELDS}/kda-debug/seed0"
EXECUTION = json.dumps({"device": "cpu", "checkpoint_every": 5, "tensorboard": False})
SIZE = 8 << 20


def isohypse(*arguments: object) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "workflow"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "isohypse.cli", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def settings(rule: str, *wildcards: str) -> str:
    return isohypse("settings", rule, *wildcards, "--preset", "ci").stdout.strip()


def stages(data: Path, disk: Path) -> dict[str, list[object]]:
    """The command of each stage, writing to `disk`."""
    stores = sorted((data / "archive").glob("*.zarr"))
    source = data / "source" / "hgt.2001.nc"
    common = ["--statistics", data / FIELDS / "statistics.json", "--execution", EXECUTION]
    simulated = ["--next-restart", disk / "restart.safetensors", "--output", disk / "hgt.2001.nc"]
    run = ["--work", disk / "work", "--output", disk / "run", *common, *stores]
    return {
        "simulate": ["data", "simulate", "--year", 2001, *simulated],
        "archive": ["data", "archive", "--year", 2001, "--output", disk / "2001.zarr", source],
        "statistics": ["data", "statistics", "--output", disk / "statistics.json", *stores],
        "climatology": ["data", "climatology", "--output", disk / "climatology.nc", *stores],
        "train": ["training", "train", *run],
    }


def digest(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(str(path).encode() + path.read_bytes() for path in files)).hexdigest()


def fill(disk: Path, left: int) -> None:
    """Leave `left` bytes."""
    state = os.statvfs(disk)
    with (disk / "filler").open("wb") as file:
        file.write(b"\0" * (state.f_bavail * state.f_frsize - left))


def trial(stage: str, command: list[object], disk: Path, left: int) -> bool:
    """Run one stage on a nearly full disk and say what came of it."""
    earlier = disk / "earlier"
    earlier.mkdir()
    (earlier / "result").write_bytes(os.urandom(1 << 16))
    fill(disk, left)
    before = digest(earlier)
    wildcards = {"train": [RUN], "statistics": [FIELDS], "climatology": [FIELDS]}.get(stage, [])
    done = isohypse(*command[:2], "--settings", settings(stage, *wildcards), *command[2:])
    lines = [line for line in done.stderr.splitlines() if line.startswith("isohypse: ")]
    names = sorted(path.name for path in disk.iterdir() if path.name not in ("earlier", "filler"))
    clear = "Traceback" not in done.stderr and bool(lines)
    good = done.returncode != 0 and clear and digest(earlier) == before
    print(f"{stage:<12} {'good' if good else 'BAD'}: exit {done.returncode}, left behind {names}, said:")
    print("   ", lines[-1] if clear else done.stderr.strip()[-1500:], flush=True)
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT / "results" / "ci" / "data", help="of a ci study")
    args = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        disk = Path(scratch)
        for stage, command in stages(args.data.resolve(), disk).items():
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", disk], check=True)
            try:
                # enough for a first checkpoint of 0.6 MB beside the log, not for a second
                left = (900 if stage == "train" else 2) << 10
                results.append(trial(stage, command, disk, left))
            finally:
                subprocess.run(["umount", disk], check=True)
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
