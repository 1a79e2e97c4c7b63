# SPDX-License-Identifier: Apache-2.0
"""Kill -9 at random moments of a small training, again and again: nothing is lost, the weights are the same.

    python tests/faults/kill_trainings.py --kills 100

One training runs to its end undisturbed; another is killed `--kills` times: one time in five at any moment of
its start, else up to a second after its first new checkpoint, at whatever it does then. At the end both must
have published the same weights and the same log. Not part of the tests: it takes minutes.
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
        process, before = training.start(), training.newest()
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
        plain, disturbed = (Training(Path(scratch) / name, args.data, args.steps) for name in ("a", "b"))
        for training in (plain, disturbed):
            training.folder.mkdir()
        begun = time.monotonic()
        assert plain.start().wait() == 0, (plain.folder / "log").read_text()[-2000:]
        alone = time.monotonic() - begun
        killed = kill_often(disturbed, args.kills)
        if killed == args.kills:
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
