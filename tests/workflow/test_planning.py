# SPDX-License-Identifier: Apache-2.0
"""What Snakemake plans: presets and profiles combine as promised, and bad input stops before any job."""

import time

import pytest

FULL_STUDY = {"download": 77, "train": 12}


def study(done) -> str:
    line = next(line for line in done.stderr.splitlines() if line.startswith("isohypse: study"))
    return line.split()[2].rstrip(":")


def test_each_profile_plans_its_study(clone):
    assert clone.planned("--profile", "demo")["train"] == 6
    plan = clone.planned("--profile", "workstation")
    assert {rule: plan[rule] for rule in FULL_STUDY} == FULL_STUDY


@pytest.mark.parametrize("profile", ["polaris", "slurm"])
def test_the_cluster_profiles_plan(clone, profile):
    if profile == "slurm":  # its options are those of an executor that is installed where it is needed
        pytest.importorskip("snakemake_executor_plugin_slurm")
    assert clone.planned("--profile", profile)["train"] == 12


def test_planning_the_paper_takes_seconds(clone):
    clone.planned("--config", "preset=paper")  # compiles the library
    start = time.monotonic()
    clone.planned("--config", "preset=paper")
    assert time.monotonic() - start < 20  # the goal is 5 s on an idle machine; this only catches a blow-up


@pytest.mark.parametrize(
    ("arguments", "expected", "steps"),
    [
        ([], "demo", 1500),
        (["--config", "preset=ci"], "ci", 20),
        (["--config", "training={steps: 7, warmup_steps: 1}"], "demo", 7),
        (["--configfile", "mine.yaml"], "demo", 9),
        (
            ["--configfile", "mine.yaml", "--config", "training={steps: 7}"],
            "demo",
            7,
        ),  # both lost: the fallback
        (["--configfile", "mine.yaml", "--config", "preset=ci"], "ci", 9),
        (["--configfile", "ours.yaml"], "ci", 8),  # a preset named there outranks the profile's
    ],
)
def test_the_users_files_and_flags_come_on_top_of_the_preset(clone, arguments, expected, steps):
    (clone.folder / "mine.yaml").write_text("training: {steps: 9, warmup_steps: 1}\n")
    (clone.folder / "ours.yaml").write_text("preset: ci\ntraining: {steps: 8}\n")
    done = clone.snakemake("-n", "-p", "--profile", "demo", *arguments)
    assert study(done) == expected
    assert f'"steps":{steps},' in done.stdout + done.stderr


def test_no_profile_and_no_preset_is_the_demo_never_the_full_study(clone):
    assert study(clone.snakemake("-n")) == "demo"
    (clone.folder / "mine.yaml").write_text("training: {steps: 9, warmup_steps: 1}\n")
    lost = ["--configfile", "mine.yaml", "--config", "evaluation={window_step: 5}"]
    assert study(clone.snakemake("-n", "--profile", "workstation", *lost)) == "demo"


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("training={stepz: 3}", ["training.stepz", "unknown key", "steps"]),
        ("archive={levels_hpa: [501]}", ["archive.levels_hpa", "501", "500"]),
        ("runs={models: [gpt]}", ["runs.models", "gpt", "transformer"]),
        ("splits={standard: {train: [2001-01-01, 2010-09-01]}}", ["train and validation overlap"]),
        ("preset=demmo", ["demmo", "demo"]),
    ],
)
def test_a_wrong_configuration_stops_before_any_job_with_one_line(clone, setting, words):
    done = clone.snakemake("-n", "--profile", "demo", "--config", setting, check=False)
    assert done.returncode != 0
    said = done.stdout + done.stderr
    lines = [line for line in said.splitlines() if words[0] in line]
    assert len(lines) == 1
    assert all(word in lines[0] for word in words)
    assert "Traceback" not in said
    assert not (clone.folder / "results").exists()


@pytest.mark.parametrize(
    ("target", "present", "absent"),
    [
        ("data", "climatology", "train"),
        ("training", "train", "model"),
        ("evaluation", "scores", "figure5"),
        ("scaling", "measure", "simulate"),
        ("figures", "table4", "no_such_rule"),
    ],
)
def test_every_stage_is_a_target(clone, target, present, absent):
    plan = clone.planned("--profile", "demo", target)
    assert present in plan
    assert absent not in plan


@pytest.mark.parametrize("graph", ["--dag", "--rulegraph"])
def test_graphs_are_pure_dot(clone, graph):
    done = clone.snakemake("--profile", "demo", "--config", "preset=ci", graph)
    assert done.stdout.startswith("digraph")
    assert done.stdout.rstrip().endswith("}")


def test_a_run_that_starts_from_a_file_is_planned_with_it(clone):
    (clone.folder / "kda.safetensors").write_bytes(b"weights")
    weights = 'runs={"initial_weights": {"kda-debug": "kda.safetensors"}}'
    done = clone.snakemake("-n", "-p", "--config", "preset=ci", weights)
    commands = [line for line in done.stdout.splitlines() if "isohypse training train" in line]
    assert ["--initial-weights kda.safetensors" in line for line in sorted(commands)] == [True, False]
    (clone.folder / "kda.safetensors").unlink()
    done = clone.snakemake("-n", "--config", "preset=ci", weights, check=False)
    assert done.returncode
    assert "affected files:\n        kda.safetensors" in done.stdout
