# SPDX-License-Identifier: Apache-2.0
"""An interrupted study goes on from where it was when the same command is typed again."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.xdist_group("study")  # one finished study serves them all

RUN = "in8-out2/500hPa/standard/kda-debug/seed0"
TARGET = f"results/ci/training/{RUN}/weights.safetensors"
COMMAND = (
    "--profile",
    "demo",
    "--config",
    "preset=ci",
    "training={steps: 800, warmup_steps: 5, evaluate_every: 100}",
    "execution={checkpoint_every: 20, device: cpu}",
    "--rerun-triggers",
    "mtime",
)


@pytest.fixture
def prepared(finished, clone):
    """A clone with the data of a finished study, but no training."""
    shutil.copytree(finished.folder / "results", clone.folder / "results")
    shutil.rmtree(clone.folder / "results" / "ci" / "training")
    return clone


def begin(clone) -> subprocess.Popen:
    """Start the training and return once it has written a checkpoint."""
    command = [sys.executable, "-m", "snakemake", TARGET, *COMMAND]
    process = subprocess.Popen(
        command,
        cwd=clone.folder,
        env=clone.environment(),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    checkpoints = clone.folder / "results" / "ci" / "training" / "work" / RUN / "checkpoints"
    deadline = time.monotonic() + 120
    while not list(checkpoints.glob("step-*")):
        assert process.poll() is None, "the training ended before its first checkpoint"
        assert time.monotonic() < deadline, "no checkpoint within two minutes"
        time.sleep(0.05)
    return process


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill-9"])
def test_a_training_goes_on_after(prepared, how):
    process = begin(prepared)
    os.killpg(process.pid, how)
    assert process.wait(60) != 0
    assert not (prepared.folder / TARGET).exists()
    if how == signal.SIGKILL:
        prepared.snakemake("--unlock", *COMMAND[:4])
    prepared.snakemake(TARGET, *COMMAND)
    assert (prepared.folder / TARGET).stat().st_size > 0
    log = (prepared.folder / "logs" / "ci" / "training" / "train" / f"{RUN}.log").read_text()
    assert "going on after step" in log
    assert not (prepared.folder / "results" / "ci" / "training" / "work" / RUN).exists()
