# SPDX-License-Identifier: Apache-2.0
"""Batches hold the archive's frames, whether they lie on the device or are streamed."""

import numpy as np
import pytest
import torch

from isohypse.errors import DataError
from isohypse.training import batches as module
from isohypse.training.batches import ResidentBatches, StreamedBatches, fits, reside
from isohypse.training.frames import Frames, Normalisation, open_frames

CPU = torch.device("cpu")
FIRST = 5


@pytest.fixture
def frames(study) -> Frames:
    task = study.settings(levels_hpa=(300, 500)).run.task
    return open_frames(study.stores, task.levels_hpa, study.statistics(task))


def order(step: int) -> np.ndarray:
    return FIRST + (np.array([7, 0, 19]) + 3 * step) % 40


@pytest.fixture(params=["resident", "streamed"])
def batches(request, frames):
    if request.param == "resident":
        made = ResidentBatches(reside(frames, FIRST, 60, CPU), FIRST, order, 4, 2)
    else:
        made = StreamedBatches(frames, order, 4, 2, CPU)
    yield made
    made.close()


@pytest.mark.parametrize("steps", [(0, 1, 2), (4, 2, 3)])
def test_batches_hold_the_frames_of_their_step(batches, frames, steps):
    for step in steps:
        batches.load(step)
        inputs, targets = batches.gather()
        for place, start in enumerate(order(step)):
            expected = torch.from_numpy(frames.read(slice(start, start + 6)))
            assert torch.equal(inputs[place], expected[:4])
            assert torch.equal(targets[place], expected[4:])


def test_normalised_training_frames_have_mean_0_and_deviation_1_by_level(frames):
    training = frames.read(slice(0, int(0.7 * frames.shape[0])))
    np.testing.assert_allclose(training.mean(axis=(0, 2, 3), dtype=np.float64), 0, atol=1e-5)
    np.testing.assert_allclose(training.std(axis=(0, 2, 3), dtype=np.float64), 1, atol=1e-4)


def test_normalisation_is_undone_to_a_millimetre(frames):
    heights = frames.heights.isel(time=slice(0, 9)).values
    restored = frames.normalisation.restore(frames.normalisation.normalise(heights))
    np.testing.assert_allclose(restored, heights, atol=1.5e-3)  # one unit in the last place of 9,000 m


def test_mean_frame_is_that_of_the_frames(frames):
    np.testing.assert_allclose(frames.mean(3, 90), frames.read(slice(3, 90)).mean(axis=0), atol=1e-5)


def test_statistics_of_other_levels_are_refused(frames, study):
    task = study.settings().run.task
    with pytest.raises(DataError, match="500"):
        open_frames(study.stores, (300,), study.statistics(task))
    assert isinstance(frames.normalisation, Normalisation)


def test_what_exceeds_memory_does_not_fit(frames):
    assert fits(100, frames, CPU)
    assert not fits(10**12, frames, CPU)


def test_frames_too_many_for_memory_are_mapped_from_a_file(frames, monkeypatch):
    monkeypatch.setattr(module, "HOST_FRACTION", 0.0)
    made = StreamedBatches(frames, order, 4, 2, CPU)
    assert isinstance(made.host.values, np.memmap)
    made.load(7)
    expected = torch.from_numpy(frames.read(slice(order(7)[1], order(7)[1] + 4)))
    assert torch.equal(made.gather()[0][1], expected)
    made.close()


def test_a_resumed_stream_goes_on_with_the_same_batches(frames):
    def batches_of(steps):
        made = StreamedBatches(frames, order, 4, 2, CPU)
        taken = []
        for step in steps:
            made.load(step)
            taken.append(made.gather()[0].clone())
        made.close()
        return taken

    for whole, resumed in zip(batches_of(range(9))[4:], batches_of(range(4, 9)), strict=True):
        assert torch.equal(whole, resumed)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_stream_to_the_gpu_holds_the_frames_of_its_step(frames):
    made = StreamedBatches(frames, order, 4, 2, torch.device("cuda"))
    for step in range(20):
        made.load(step)
        starts = order(step)
        expected = np.stack([frames.read(slice(start, start + 4)) for start in starts])
        assert torch.equal(made.gather()[0].cpu(), torch.from_numpy(expected))
    made.close()
