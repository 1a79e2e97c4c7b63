# SPDX-License-Identifier: Apache-2.0
"""Kill -9 at random moments of a small training, again and again: nothing is lost, the weights are the same.

    python tests/faults/kill_trainings.py --kills 100

One training runs to its end undisturbed; another is killed `--kills` times, each time after a random part of
a second, at whatever it does then: importing, stepping, writing a checkpoint. At the end both must have
published the same weights and the same log. Not part of the tests: it takes minutes.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[2]
CI = [sys.executable, "-m", "isohypse.cli", "settings", "train", "in8-out2/500hPa/standard/kda-debug/seed0"]
EXECUTION = json.dumps({"device": "cpu", "checkpoint_every": 3, "tensorboard": False})


class Training:
    """One training in `folder`, on the data of a finished `ci` study."""

    def __init__(self, folder: Path, data: Path, steps: int):
        self.folder, self.data = folder, data
        settings = json.loads(subprocess.check_output([*CI, "--preset", "ci"], env=environment(), cwd=ROOT))
        settings["training"] |= {"steps": steps, "evaluate_every": 20}
        self.settings = json.dumps(settings)

    def start(self) -> subprocess.Popen:
        command = [sys.executable, "-m", "isohypse.cli", "training", "train", "--settings", self.settings]
        command += ["--execution", EXECUTION, "--work", self.folder / "work", "--output", self.folder / "run"]
        command += ["--statistics", self.data / "500hPa" / "standard" / "statistics.json"]
        command += sorted((self.data / "archive").glob("*.zarr"))
        self.log = (self.folder / "log").open("a")
        return subprocess.Popen(list(map(str, command)), env=environment(), stderr=self.log, cwd=ROOT)

    def weights(self) -> dict[str, torch.Tensor]:
        return load_file(self.folder / "run" / "weights.safetensors")

    def rows(self) -> list[str]:
        lines = (self.folder / "run" / "metrics.csv").read_text().splitlines()
        return [line for line in lines if "frames_per_second" not in line]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT / "workflow"), "OMP_NUM_THREADS": "1"}


def kill_until(training: Training, kills: int, seconds: float) -> tuple[int, int]:
    """Returns how often it was killed, and how often it had ended before that."""
    killed = 0
    while killed < kills:
        process = training.start()
        try:
            process.wait(random.uniform(0.1, seconds))
            return killed, 1
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed += 1
    return killed, 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--seconds", type=float, default=8.0, help="longest life of a process")
    parser.add_argument("--data", type=Path, default=ROOT / "results" / "ci" / "data", help="of a ci study")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        plain, disturbed = (Training(Path(scratch) / name, args.data, args.steps) for name in ("a", "b"))
        for training in (plain, disturbed):
            training.folder.mkdir()
        begun = time.monotonic()
        assert plain.start().wait() == 0, (plain.folder / "log").read_text()[-2000:]
        alone = time.monotonic() - begun
        killed, early = kill_until(disturbed, args.kills, args.seconds)
        if not early:
            assert disturbed.start().wait() == 0, (disturbed.folder / "log").read_text()[-2000:]
        log = (disturbed.folder / "log").read_text()
        same = all(torch.equal(tensor, plain.weights()[n]) for n, tensor in disturbed.weights().items())
        resumed, broken = log.count("going on after step"), log.count("cannot be read")
        print(
            f"{killed} kills, {resumed} resumptions, {broken} broken checkpoints; undisturbed {alone:.0f} s"
        )
        print(f"same weights: {same}; same log: {disturbed.rows() == plain.rows()}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
