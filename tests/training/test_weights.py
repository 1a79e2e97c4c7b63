# SPDX-License-Identifier: Apache-2.0
"""`isohypse export` and `isohypse import` on a finished training."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from isohypse.cli import main
from isohypse.storage import read_json
from isohypse.training.forecaster import load_forecaster
from isohypse.training.weights import digest_of


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
    assert record.pop("imported") == {"file": exported.name, "sha256": digest_of(exported)}
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
    assert "is not a finished training" in capsys.readouterr().err
    run = str(finished.destination)
    assert main(["import", str(exported), "--run", run, "--output", run]) == 6
    assert "exists: import into a new folder" in capsys.readouterr().err
