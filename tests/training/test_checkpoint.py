# SPDX-License-Identifier: Apache-2.0
"""Checkpoints come back as they were; broken ones are passed over; only the last are kept."""

import resource
import time

import pytest
import torch

from isohypse.errors import TrainingError
from isohypse.training.checkpoint import Checkpoint, Checkpoints


def checkpoint(step: int, loss: float | None = None) -> Checkpoint:
    model = {"weight": torch.full((2, 3), float(step)).T, "bias": torch.ones(3)}
    moments = {"weight.step": torch.tensor(float(step)), "step.counter": torch.tensor([step])}
    return Checkpoint(step, "abc", model, moments, {"seconds": 0.5, "lap_seconds": 0.25}, loss)


@pytest.fixture
def checkpoints(tmp_path) -> Checkpoints:
    return Checkpoints(tmp_path / "checkpoints", keep=2)


def test_checkpoint_comes_back(checkpoints):
    checkpoints.save(checkpoint(7))
    checkpoints.wait()
    found = checkpoints.newest()
    assert (found.step, found.identity, found.clock) == (7, "abc", {"seconds": 0.5, "lap_seconds": 0.25})
    for ours, wanted in ((found.model, checkpoint(7).model), (found.optimizer, checkpoint(7).optimizer)):
        assert ours.keys() == wanted.keys()
        assert all(torch.equal(ours[name], wanted[name]) for name in wanted)


def test_last_are_kept(checkpoints):
    for step in (900, 1000, 1100, 1200):
        checkpoints.save(checkpoint(step))
    checkpoints.wait()
    names = sorted(path.name for path in checkpoints.folder.iterdir())
    assert names == ["step-00001100", "step-00001200"]


def test_nothing_is_found_where_nothing_is(checkpoints):
    assert checkpoints.newest() is None


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_broken_newest_is_passed_over(checkpoints, capsys, file):
    for step in (5, 10):
        checkpoints.save(checkpoint(step))
    checkpoints.wait()
    broken = checkpoints.folder / "step-00000010" / file
    broken.write_bytes(broken.read_bytes()[:-9])
    assert checkpoints.newest().step == 5
    assert "step-00000010" in capsys.readouterr().err
    assert not broken.parent.exists()


def names(checkpoints: Checkpoints) -> list[str]:
    return sorted(path.name for path in checkpoints.folder.iterdir())


def test_the_best_is_kept_beside_the_last(checkpoints):
    for step, loss in ((5, 0.5), (10, 0.2), (15, None), (20, 0.3), (25, 0.4)):
        checkpoints.save(checkpoint(step, loss))
    checkpoints.wait()
    assert names(checkpoints) == ["step-00000010", "step-00000020", "step-00000025"]
    assert checkpoints.best().name == "step-00000010"
    resumed = Checkpoints(checkpoints.folder, keep=1)
    assert resumed.newest().validation_loss == 0.4
    resumed.save(checkpoint(30, 0.1))
    resumed.wait()
    assert names(resumed) == ["step-00000030"]


def test_what_is_written_is_what_was_saved_not_what_it_became(checkpoints, monkeypatch):
    saved = checkpoint(5)
    checkpoints.save(saved)
    saved.model["weight"].fill_(-1)
    checkpoints.wait()
    assert torch.equal(checkpoints.newest().model["weight"], checkpoint(5).model["weight"])


def test_the_final_one_is_written_without_a_copy(checkpoints):
    before, saved = time.monotonic(), checkpoint(5)
    assert checkpoints.wait() < before, "none was written"
    checkpoints.save(saved, final=True)
    assert checkpoints.wait() >= before
    found = checkpoints.newest()
    assert all(torch.equal(found.model[name], tensor) for name, tensor in saved.model.items())
    kept = checkpoints._snapshot("model", saved.model, final=True)
    assert kept["bias"].data_ptr() == saved.model["bias"].data_ptr()


def test_leftovers_of_a_killed_process_go(checkpoints):
    checkpoints.save(checkpoint(5))
    checkpoints.wait()
    (checkpoints.folder / ".0123abcd.part-step-00000010").mkdir()
    assert checkpoints.newest().step == 5
    assert names(checkpoints) == ["step-00000005"]


def test_a_failed_save_is_told_and_leaves_the_one_before(checkpoints):
    """A file size limit stands for a full disk: both end a write half-way."""
    checkpoints.save(checkpoint(5))
    checkpoints.wait()
    big = Checkpoint(10, "abc", {"weight": torch.zeros(1 << 20)}, {}, {})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    try:
        checkpoints.save(big)
        with pytest.raises(TrainingError, match=r"could not be written .* earlier ones are intact"):
            checkpoints.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert names(checkpoints) == ["step-00000005"]
    assert checkpoints.newest().step == 5
    checkpoints.save(big)
    checkpoints.wait()
    assert checkpoints.newest().step == 10
