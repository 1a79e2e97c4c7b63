# SPDX-License-Identifier: Apache-2.0
"""`snakemake --profile slurm` on a real Slurm, where there is one: the `ci` study; a training continued.

One node of 8 processors and 16 GB is enough, real or pretended (SlurmdParameters=config_overrides).
Account and partition come from SLURM_ACCOUNT and SLURM_PARTITION, as for a user.
"""

import shutil
import subprocess
import sys
from importlib.util import find_spec

import pytest

from isohypse.storage import read_json

RUN = "in8-out2/500hPa/standard/kda-debug/seed0"
TARGET = f"results/ci/training/{RUN}/weights.safetensors"
PROFILE = ("--profile", "slurm", "--slurm-init-seconds-before-status-checks", "5", "--scheduler", "greedy")


def answers() -> bool:
    if not shutil.which("sbatch") or not find_spec("snakemake_executor_plugin_slurm"):
        return False
    return "UP" in subprocess.run(["scontrol", "ping"], capture_output=True, text=True).stdout


pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1600),
    pytest.mark.skipif(not answers(), reason="no Slurm answers here, or its executor is not installed"),
]


@pytest.fixture
def slurm(clone):
    def run(*arguments: str) -> subprocess.CompletedProcess:
        environment = {"SLURM_ACCOUNT": "", "SLURM_PARTITION": ""} | clone.environment()
        command = [sys.executable, "-m", "snakemake", *PROFILE, *arguments]
        return subprocess.run(
            command, cwd=clone.folder, env=environment, capture_output=True, text=True, timeout=1500
        )

    return run


def test_the_whole_study_as_slurm_jobs(clone, slurm):
    done = slurm("--config", "preset=ci")
    assert done.returncode == 0, done.stderr[-6000:]
    assert done.stderr.count("has been submitted with SLURM jobid") == 29
    folder = clone.folder / "results" / "ci"
    assert (folder / "publication" / "figure6.png").stat().st_size > 500
    assert len(list(folder.rglob("table4.html"))) == 1


def test_a_training_that_runs_out_of_time_is_put_in_the_queue_again(clone, slurm):
    """The margin is the whole walltime: on any machine each job takes one step. No retry is used."""
    clone.snakemake("--profile", "demo", "--config", "preset=ci", "--", "data")
    work = "training={steps: 2, warmup_steps: 1, evaluate_every: 2}"
    how = "execution={walltime_margin_seconds: 600}"
    times = ("--set-resources", "train:runtime=10", "--rerun-triggers", "mtime", "--retries", "0")
    done = slurm(TARGET, *times, "--config", "preset=ci", work, how)
    assert done.returncode == 0, done.stderr[-6000:]
    assert done.stderr.count("has been submitted with SLURM jobid") == 1
    log = (clone.folder / "logs" / "ci" / "training" / "train" / f"{RUN}.log").read_text()
    assert "going on after step 1" in log
    assert read_json((clone.folder / TARGET).with_name("run.json"))["steps"] == 2
    assert not list((clone.folder / ".snakemake").glob("slurm_continue.*"))
