# SPDX-License-Identifier: Apache-2.0
"""The whole study on the smallest preset: it runs to its report, and a change reruns what depends on it."""

import shutil

import pytest

pytestmark = pytest.mark.xdist_group("study")  # one finished study serves them all

CI = ("--profile", "demo", "--config", "preset=ci")
PUBLISHED = ["figure2.png", "figure3.png", "figure4.png", "figure5.png", "table4.csv", "table4.html"]
AFTER_TRAINING = {
    "train",
    "model",
    "scores",
    "figure2",
    "figure3",
    "figure4",
    "figure5",
    "table2",
    "table3",
    "table4",
}
AFTER_ARCHIVE = AFTER_TRAINING | {"archive", "statistics", "climatology", "baseline", "table1"}
SCORED = {"baseline", "model", "scores", "figure3", "figure4", "figure5", "table4"}
FIGURES = {"figure2", "figure3", "figure4", "figure5", "figure6"}


def test_the_study_is_complete(finished):
    results = finished.folder / "results" / "ci"
    task = results / "publication" / "in8-out2" / "500hPa" / "standard"
    for name in PUBLISHED:
        assert (task / name).stat().st_size > 500, name
    run = results / "training" / "in8-out2" / "500hPa" / "standard" / "kda-debug" / "seed0"
    assert {path.name for path in run.iterdir()} >= {"weights.safetensors", "metrics.csv", "run.json"}
    assert not list(results.rglob("*.part-*"))
    assert finished.planned(*CI) == {}


def test_the_report_holds_every_figure_and_table(finished):
    finished.snakemake(*CI, "--report", "report.html")
    text = (finished.folder / "report.html").read_text(errors="replace")
    for name in [*PUBLISHED[:4], "figure6.png", "table1.html", "table2.html", "table3.html", "table4.html"]:
        assert name in text, name


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("training={learning_rate: 1e-3}", AFTER_TRAINING),
        ("publication={height_colormap: magma}", FIGURES),
        ("execution={checkpoint_every: 3}", set()),
        ("splits={standard: {test: [2002-08-01, 2003-01-01]}}", SCORED),
        ("ncep_r1={attempts: 2}", set()),
        ("evaluation={window_step: 5}", SCORED),
        ("ridge_var={eofs: 9}", {"baseline", "scores", "figure5", "table4"}),
        ("grid={stride: 6}", AFTER_ARCHIVE | {"measure", "costs", "figure6"}),
        ("archive={levels_hpa: [500, 300]}", AFTER_ARCHIVE),
    ],
)
def test_a_changed_value_reruns_what_depends_on_it_and_nothing_else(finished, setting, expected):
    assert set(finished.planned(*CI, setting)) == expected


def test_a_new_length_is_measured_alone(finished):
    plan = finished.planned(*CI, "scaling={lengths: [8, 16, 72]}")
    assert plan == {"measure": 2, "costs": 1, "figure6": 1}  # two models


def test_a_comment_reruns_nothing(finished):
    for path in (
        "config.yaml",
        "Snakefile",
        "workflow/rules/training.smk",
        "workflow/isohypse/training/trainer.py",
    ):
        with (finished.folder / path).open("a") as file:
            file.write("\n# a remark\n")
    assert finished.planned(*CI) == {}


def test_a_raised_stage_version_reruns_that_stage_and_what_follows(finished):
    settings = "workflow/isohypse/config/settings.py"
    finished.edit(settings, '"train": 1,', '"train": 2,')
    try:
        assert set(finished.planned(*CI)) == AFTER_TRAINING
    finally:
        finished.edit(settings, '"train": 2,', '"train": 1,')


def test_one_model_is_trained_again_on_request(finished):
    run = "results/ci/training/in8-out2/500hPa/standard/kda-debug/seed0/weights.safetensors"
    plan = finished.planned(*CI, "--forcerun", run)
    assert plan["train"] == 1
    assert plan["model"] == 1


def test_a_lost_result_is_made_again(finished, tmp_path):
    figure = finished.folder / "results/ci/publication/in8-out2/500hPa/standard/figure5.png"
    shutil.move(figure, tmp_path / "aside")
    try:
        assert finished.planned(*CI) == {"figure5": 1}
    finally:
        shutil.move(tmp_path / "aside", figure)
