# SPDX-License-Identifier: Apache-2.0
"""The experiment expands to a grid of runs, each readable in its path."""

import hashlib
import json
from types import SimpleNamespace

import pytest

from isohypse.config import Layout, Run, StageBook, Task, load_experiment
from isohypse.config.layout import project_root
from isohypse.config.settings import ModelSettings, TrainSettings
from isohypse.errors import ConfigurationError


def load(preset="demo", **outside):
    return load_experiment({"preset": preset, **outside}, root=project_root())


def test_a_task_and_a_run_are_their_paths():
    for run in load("standard").run_list:
        assert Run.parse(str(run)) == run
        assert Task.parse(str(run.task)) == run.task
    assert str(load().run_list[0]) == "in8-out4/500hPa/standard/transformer-small/seed0"
    joint = load(archive={"levels_hpa": [500, 300]}, runs={"levels_hpa": [[500, 300]]})
    assert "/500+300hPa/" in str(joint.run_list[0])


@pytest.mark.parametrize("path", ["in8-out4/500/standard", "in8/500hPa/standard", "", "in8-out4/500hPa/best"])
def test_other_paths_are_no_tasks(path):
    with pytest.raises(ValueError, match="is not a task"):
        Task.parse(path)


def test_the_grid_is_every_combination():
    runs = {"t_out": [1, 4], "seeds": [0, 1, 2], "levels_hpa": [[500], [300]], "models": ["gla", "kda"]}
    experiment = load(archive={"levels_hpa": [500, 300]}, runs=runs)
    assert len(experiment.run_list) == len(set(map(str, experiment.run_list))) == 2 * 3 * 2 * 2


def test_a_flavour_is_left_out_for_models_that_do_not_come_in_it():
    pairs = load("standard").architectures
    assert ("kda", "matched") in pairs
    assert ("gla", "matched") not in pairs
    assert ("gla", "paper") in pairs


def test_settings_survive_the_way_through_json():
    experiment = load()
    book, run = StageBook(experiment), experiment.run_list[0]
    settings = TrainSettings.from_json(book.train(str(run)))
    assert settings.run == run
    assert settings.training == experiment.training
    assert settings.to_json() == book.train(str(run))
    with pytest.raises(ConfigurationError, match="train"):
        TrainSettings.from_json('{"version": 1}')


def test_settings_hold_what_their_stage_depends_on_and_nothing_else():
    before, run = StageBook(load()), str(load().run_list[0])
    slower = StageBook(load(training={"learning_rate": 1e-5}))
    assert before.train(run) != slower.train(run)
    assert before.archive() == slower.archive()
    assert before.model(run) == slower.model(run)
    hurried = StageBook(load(execution={"checkpoint_every": 7}))
    assert before.train(run) == hurried.train(run)
    assert (
        ModelSettings.from_json(before.model(run)).digest
        != ModelSettings.from_json(StageBook(load(evaluation={"window_step": 9})).model(run)).digest
    )
    colourful = StageBook(load(publication={"height_colormap": "magma"}))
    assert before.figure() != colourful.figure()
    assert json.loads(before.scores("in8-out4/500hPa/standard"))["confidence"] == 0.95


def test_paths_of_a_study_lie_in_its_own_folder():
    layout = Layout(load())
    collected = [
        *layout.archive,
        *layout.statistics,
        *layout.trainings(),
        *layout.score_tables,
        *layout.publication,
    ]
    assert all(path.startswith("results/demo/") for path in collected)
    assert len(layout.archive) == 10
    assert len(set(layout.statistics)) == len(layout.statistics) == 1


@pytest.mark.parametrize(("first_year", "early_years"), [(1948, "keep"), (1958, "refuse")])
def test_early_years_are_a_choice(first_year, early_years):
    outside = {
        "preset": "paper",
        "source": {"first_year": first_year},
        "ncep_r1": {"early_years": early_years},
    }
    assert load_experiment(outside, root=project_root()).source.first_year == first_year


def test_early_years_can_be_refused():
    outside = {"preset": "paper", "ncep_r1": {"early_years": "refuse"}}
    with pytest.raises(ConfigurationError, match=r"early_years: refuse, but source\.first_year is 1948"):
        load_experiment(outside, root=project_root())


def test_initial_weights_reach_their_run_by_digest_and_no_other(tmp_path):
    path = tmp_path / "kda.safetensors"
    path.write_bytes(b"weights")
    plain = load()
    started = load(runs={"initial_weights": {"kda-small": str(path)}})
    for run in map(str, plain.run_list):
        before, after = StageBook(plain).train(run), StageBook(started).train(run)
        assert "initial_weights" not in json.loads(before)  # as ever, so that nothing is trained again
        assert (before != after) == ("/kda-small/" in run)
        given = json.loads(after).get("initial_weights")
        assert given in (None, hashlib.sha256(b"weights").hexdigest())
        assert TrainSettings.from_json(after).to_json() == after
        wildcards = SimpleNamespace(run=run)
        assert Layout(started).initial_weights(wildcards) == ([str(path)] if given else [])


def test_initial_weights_that_are_not_there_are_told_of(tmp_path):
    with pytest.raises(ConfigurationError, match="'lstm-small' is not trained here; transformer-small, gla-"):
        load(runs={"initial_weights": {"lstm-small": "x"}})
    book = StageBook(load(runs={"initial_weights": {"gla-small": str(tmp_path / "absent")}}))
    run = next(str(run) for run in load().run_list if run.model == "gla")
    with pytest.raises(ConfigurationError, match="absent: No such file"):
        book.train(run)
