# SPDX-License-Identifier: Apache-2.0
"""Kill -9 at random moments of a small training, again and again: nothing is lost, the weights are the same.

    python tests/faults/kill_trainings.py --kills 100

One training runs to its end undisturbed; another is killed `--kills` times: one time in five at any moment of
its start, else up to a second after its first new checkpoint, at whatever it does then. Each start must go on
from the newest checkpoint that the kill before it left, else it is counted as lost. At the end both must have
published the same weights and the same log. Not part of the tests: it takes a quarter of an hour.
"""

import argparse
import json
import os
import random
import re
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
        self.left: list[str] = []  # newest checkpoint before each start
        folder.mkdir()
        settings = json.loads(subprocess.check_output([*CI, "--preset", "ci"], env=environment(), cwd=ROOT))
        settings["training"] |= {"steps": steps, "evaluate_every": 20}
        self.settings = json.dumps(settings)

    def start(self) -> subprocess.Popen:
        command = [sys.executable, "-m", "isohypse.cli", "training", "train", "--settings", self.settings]
        command += ["--execution", EXECUTION, "--work", self.folder / "work", "--output", self.folder / "run"]
        command += ["--statistics", self.data / "500hPa" / "standard" / "statistics.json"]
        command += sorted((self.data / "archive").glob("*.zarr"))
        self.left.append(self.newest())
        with self.log(len(self.left)).open("w") as log:
            return subprocess.Popen(list(map(str, command)), env=environment(), stderr=log, cwd=ROOT)

    def log(self, start: int) -> Path:
        return self.folder / f"log.{start}"

    def finish(self) -> None:
        if self.start().wait():
            raise SystemExit(self.log(len(self.left)).read_text()[-2000:])

    def resumptions(self) -> tuple[int, int]:
        """Starts that went on from the newest checkpoint, and those that lost it or found it broken."""
        good = lost = 0
        for start, newest in enumerate(self.left, 1):
            text = self.log(start).read_text()
            step = re.search(r"going on after step (\d+)", text)
            if step:
                good += newest == f"step-{int(step[1]):08d}"
            lost += "starting anew" in text or "cannot be read" in text
            lost += step is not None and newest != f"step-{int(step[1]):08d}"
        return good, lost

    def weights(self) -> dict[str, torch.Tensor]:
        return load_file(self.folder / "run" / "weights.safetensors")

    def newest(self) -> str:
        return max((path.name for path in (self.folder / "work" / "checkpoints").glob("step-*")), default="")

    def rows(self) -> list[str]:
        lines = (self.folder / "run" / "metrics.csv").read_text().splitlines()
        return [line for line in lines if "frames_per_second" not in line]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT / "workflow"), "OMP_NUM_THREADS": "1"}


def kill_often(training: Training, kills: int) -> int:
    """Returns how often it was killed before it had ended."""
    for killed in range(kills):
        process, before = training.start(), training.left[-1]
        early = random.random() < 0.2
        while not early and process.poll() is None and training.newest() == before:
            time.sleep(0.01)
        time.sleep(random.uniform(0.1, 5) if early else random.uniform(0, 1))
        if process.poll() is not None:
            return killed
        process.send_signal(signal.SIGKILL)
        process.wait()
    return kills


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--data", type=Path, default=ROOT / "results" / "ci" / "data", help="of a ci study")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        data = args.data.resolve()
        plain, disturbed = (Training(Path(scratch) / name, data, args.steps) for name in ("a", "b"))
        begun = time.monotonic()
        plain.finish()
        alone = time.monotonic() - begun
        killed = kill_often(disturbed, args.kills)
        disturbed.finish()
        whole = time.monotonic() - begun - alone
        good, lost = disturbed.resumptions()
        weights = disturbed.weights()
        same = all(torch.equal(weights[name], tensor) for name, tensor in plain.weights().items())
        print(f"{killed} kills in {whole:.0f} s, {good} resumptions, {lost} lost; undisturbed {alone:.0f} s")
        print(f"same weights: {same}; same log: {disturbed.rows() == plain.rows()}")
    return 0 if same and not lost and killed == args.kills else 1


if __name__ == "__main__":
    sys.exit(main())
