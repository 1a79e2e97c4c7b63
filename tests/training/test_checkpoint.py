# SPDX-License-Identifier: Apache-2.0
"""Checkpoints come back as they were; broken ones are passed over; only the last are kept."""

import pytest
import torch

from isohypse.training.checkpoint import Checkpoint, Checkpoints


def checkpoint(step: int) -> Checkpoint:
    model = {"weight": torch.full((2, 3), float(step)).T, "bias": torch.zeros(0)}
    moments = {"weight.step": torch.tensor(float(step)), "step.counter": torch.tensor([step])}
    return Checkpoint(step, "abc", model, moments, {"seconds": 0.5, "lap_seconds": 0.25})


@pytest.fixture
def checkpoints(tmp_path) -> Checkpoints:
    return Checkpoints(tmp_path / "checkpoints", keep=2)


def test_checkpoint_comes_back(checkpoints):
    checkpoints.save(checkpoint(7))
    found = checkpoints.newest()
    assert (found.step, found.identity, found.clock) == (7, "abc", {"seconds": 0.5, "lap_seconds": 0.25})
    for ours, wanted in ((found.model, checkpoint(7).model), (found.optimizer, checkpoint(7).optimizer)):
        assert ours.keys() == wanted.keys()
        assert all(torch.equal(ours[name], wanted[name]) for name in wanted)


def test_last_are_kept(checkpoints):
    for step in (900, 1000, 1100, 1200):
        checkpoints.save(checkpoint(step))
    names = sorted(path.name for path in checkpoints.folder.iterdir())
    assert names == ["step-00001100", "step-00001200"]


def test_nothing_is_found_where_nothing_is(checkpoints):
    assert checkpoints.newest() is None


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_broken_newest_is_passed_over(checkpoints, capsys, file):
    for step in (5, 10):
        checkpoints.save(checkpoint(step))
    broken = checkpoints.folder / "step-00000010" / file
    broken.write_bytes(broken.read_bytes()[:-9])
    assert checkpoints.newest().step == 5
    assert "step-00000010" in capsys.readouterr().err
    assert not broken.parent.exists()


def test_failed_save_leaves_the_one_before(checkpoints):
    checkpoints.save(checkpoint(5))
    bad = Checkpoint(10, "abc", {"weight": "no tensor"}, {}, {})
    with pytest.raises(AttributeError):
        checkpoints.save(bad)
    assert [path.name for path in checkpoints.folder.iterdir()] == ["step-00000005"]
    assert checkpoints.newest().step == 5
