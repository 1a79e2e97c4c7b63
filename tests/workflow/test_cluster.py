# SPDX-License-Identifier: Apache-2.0
"""`snakemake --profile polaris` on the double of PBS: the whole `ci` study; a training that is continued."""

import os
import subprocess
import sys

import pytest

from isohypse.config.layout import project_root
from isohypse.storage import read_json

sys.path.insert(0, str(project_root() / "tests" / "executor"))

from fakepbs.site import Site

RUN = "in8-out2/500hPa/standard/kda-debug/seed0"
TARGET = f"results/ci/training/{RUN}/weights.safetensors"
PROFILE = ("--profile", "polaris", "--isohypse-pbs-poll-interval", "1")
PROFILE += ("--latency-wait", "5", "--scheduler", "greedy", "--jobs", "4")


@pytest.fixture
def polaris(clone, tmp_path):
    """Runs snakemake in the clone with the double's commands on the path."""
    site = Site(tmp_path / "pbs")

    def run(*arguments: str) -> subprocess.CompletedProcess:
        environment = clone.environment()
        library = environment["PYTHONPATH"]  # a job starts with an empty environment
        environment |= site.environment() | {"PYTHONPATH": library}
        environment["SNAKEMAKE_ISOHYPSE_PBS_ACCOUNT"] = "proj"
        environment["PATH"] = os.pathsep.join([str(site.bin), clone.environment()["PATH"]])
        prologue = f"--isohypse-pbs-prologue=export PYTHONPATH={library}"
        command = [sys.executable, "-m", "snakemake", *PROFILE, prologue, *arguments]
        return subprocess.run(
            command, cwd=clone.folder, env=environment, capture_output=True, text=True, timeout=1500
        )

    run.site = site
    return run


@pytest.mark.slow
@pytest.mark.timeout(1600)
def test_the_whole_study_as_pbs_jobs(clone, polaris):
    """Trainings with two processes each: the command starts itself once for each."""
    done = polaris("--config", "preset=ci", "execution={gpus_per_node: 2}")
    assert done.returncode == 0, done.stderr[-6000:]
    jobs = polaris.site.jobs()
    assert all(job["Exit_status"] == 0 for job in jobs)
    rules = {job["Job_Name"].split(".")[0] for job in jobs}
    assert rules >= {"simulate", "archive", "train", "model", "table4"}
    (archive,) = (job["Resource_List"] for job in jobs if job["Job_Name"].startswith("archive."))
    assert archive["select"] == "1:system=polaris:ncpus=4", "two years in one job"
    folder = clone.folder / "results" / "ci"
    assert (folder / "publication" / "figure6.png").stat().st_size > 500
    assert len(list(folder.rglob("table4.html"))) == 1
    log = (clone.folder / "logs" / "ci" / "training" / "train" / f"{RUN}.log").read_text()
    assert "20/20 step" in log
    assert not list((folder / "training").rglob("checkpoints"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_training_that_runs_out_of_time_is_continued(clone, polaris):
    """It stops itself before the walltime; PBS jobs follow each other and no retry is used.

    The margin is the whole walltime: on any machine each job takes one step.
    """
    clone.snakemake("--profile", "demo", "--config", "preset=ci", "--", "data")
    work = "training={steps: 4, warmup_steps: 1, evaluate_every: 2}"
    how = "execution={gpus_per_node: 1, walltime_margin_seconds: 600}"
    times = ("--set-resources", "train:runtime=10", "train:continuations=50")
    triggers = ("--rerun-triggers", "mtime", "--retries", "0")
    done = polaris(TARGET, *times, *triggers, "--config", "preset=ci", work, how)
    assert done.returncode == 0, done.stderr[-6000:]
    assert [job["Exit_status"] for job in polaris.site.jobs()] == [1, 1, 1, 0], "each stopped itself"
    assert "stopped itself to be continued" in done.stderr
    record = read_json((clone.folder / TARGET).with_name("run.json"))
    assert record["steps"] == 4
    rows = (clone.folder / TARGET).with_name("metrics.csv").read_text().splitlines()
    assert len(rows) == len(set(rows)) == 1 + 2 * 9
