# SPDX-License-Identifier: Apache-2.0
"""`isohypse export` and `isohypse import` on a finished training; trainings that start from such a file."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from isohypse.cli import main
from isohypse.config.sections import Execution
from isohypse.errors import ConfigurationError
from isohypse.storage import read_json, sha256
from isohypse.training.assembly import build_network
from isohypse.training.forecaster import load_forecaster
from isohypse.training.frames import open_frames
from isohypse.training.trainer import train

CPU = Execution(device="cpu", tensorboard=False)


@pytest.fixture
def exported(finished, tmp_path):
    path = tmp_path / "backbone.safetensors"
    assert main(["export", str(finished.destination), str(path)]) == 0
    return path


def test_export_and_import_give_the_run_back(finished, exported, tmp_path, study):
    copy = tmp_path / "copy"
    assert main(["import", str(exported), "--run", str(finished.destination), "--output", str(copy)]) == 0
    ours, theirs = load_file(copy / "weights.safetensors"), finished.weights()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    record = read_json(copy / "run.json")
    assert record.pop("imported") == {"file": exported.name, "sha256": sha256(exported)}
    assert record == read_json(finished.destination / "run.json")
    assert sorted(path.name for path in copy.iterdir()) == ["run.json", "weights.safetensors"]
    load_forecaster(copy, study.statistics(finished.settings.run.task))


def test_imported_weights_replace_the_backbone_alone(finished, exported, tmp_path):
    save_file({name: torch.zeros_like(weight) for name, weight in load_file(exported).items()}, exported)
    copy = tmp_path / "copy"
    assert main(["import", str(exported), "--run", str(finished.destination), "--output", str(copy)]) == 0
    for name, weight in load_file(copy / "weights.safetensors").items():
        if name.startswith("backbone."):
            assert not weight.any()
        else:
            assert torch.equal(weight, finished.weights()[name])


def test_what_does_not_fit_leaves_nothing(finished, exported, tmp_path, capsys):
    tensors = load_file(exported)
    del tensors["norm.weight"]
    save_file(tensors, exported)
    copy = tmp_path / "copy"
    assert main(["import", str(exported), "--run", str(finished.destination), "--output", str(copy)]) == 3
    assert "does not fit this transformer: missing: norm.weight" in capsys.readouterr().err
    assert not copy.exists()


def test_no_run_and_no_new_folder_are_refused(finished, exported, tmp_path, capsys):
    assert main(["export", str(tmp_path), str(tmp_path / "x.safetensors")]) == 6
    assert "is not a finished training, which is a folder with run.json" in capsys.readouterr().err
    run = str(finished.destination)
    assert main(["import", str(exported), "--run", run, "--output", run]) == 6
    assert "exists: import into a new folder" in capsys.readouterr().err


def test_a_folder_of_runs_names_them_and_is_never_replaced(finished, tmp_path, capsys):
    run = finished.destination
    assert main(["export", str(run.parent), str(tmp_path / "x.safetensors")]) == 6
    assert f"in it are {run.name}" in capsys.readouterr().err
    before = sorted(run.iterdir())
    for wrong in (run, run / "x.pt"):
        assert main(["export", str(run), str(wrong)]) == 2
        assert f"export: {wrong} must be the name of a .safetensors file" in capsys.readouterr().err
    assert sorted(run.iterdir()) == before


@pytest.fixture
def settings_from(exported, study):
    """A function (digest) -> settings of a run with another seed that starts from the exported file."""
    settings = study.settings()
    run = settings.run.model_copy(update={"seed": 4})
    return lambda digest: settings.model_copy(update={"run": run, "initial_weights": digest})


def built(settings, study, path):
    frames = open_frames(study.stores, (500,), study.statistics(settings.run.task))
    return build_network(settings, frames, np.zeros(frames.shape[1:], np.float32), path)


def test_a_training_starts_from_the_file(finished, exported, settings_from, study):
    settings = settings_from(sha256(exported))
    started, drawn = built(settings, study, exported), built(settings_from(None), study, None)
    weights = load_file(exported)
    for name, weight in started.backbone.state_dict().items():
        assert torch.equal(weight, weights[name])
    assert torch.equal(started.projection.weight, drawn.projection.weight)
    assert torch.equal(started.head.weight, drawn.head.weight)


def test_a_training_from_a_file_says_so(exported, settings_from, study, folders, tmp_path):
    settings = settings_from(sha256(exported))
    statistics = study.statistics(settings.run.task)
    destination = tmp_path / "run"
    train(settings, study.stores, statistics, destination, tmp_path / "work", CPU, 1, exported)
    assert read_json(destination / "run.json")["settings"]["initial_weights"] == sha256(exported)


def test_another_file_than_that_of_the_settings_is_refused(exported, settings_from, study):
    cases = [
        (settings_from("0" * 64), exported, "is not the file with SHA-256 000000000000"),
        (settings_from(sha256(exported)), exported.with_name("absent"), "is not the file"),
        (settings_from(sha256(exported)), None, "--initial-weights is missing"),
        (settings_from(None), exported, "no --initial-weights is in the settings"),
    ]
    for settings, path, message in cases:
        with pytest.raises(ConfigurationError, match=message):
            built(settings, study, path)
