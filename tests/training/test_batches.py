# SPDX-License-Identifier: Apache-2.0
"""Batches hold the archive's frames, whether they lie on the device or are streamed, in two bytes or four."""

import numpy as np
import pytest
import torch
import xarray as xr

from isohypse.data.archive import open_archive
from isohypse.data.statistics import Statistics
from isohypse.data.windows import Order
from isohypse.errors import DataError
from isohypse.training import streaming
from isohypse.training.batches import Draw, ResidentBatches, fits, heights_of, reside
from isohypse.training.frames import Frames, Normalisation, open_frames
from isohypse.training.gathering import gather
from isohypse.training.streaming import StreamedBatches

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
FIRST = 5
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture(params=[np.int16, np.float32], ids=["whole metres", "fractions"])
def frames(request, study) -> Frames:
    task = study.settings(levels_hpa=(300, 500)).run.task
    archive = open_archive(study.stores, task.levels_hpa)
    if request.param == np.int16:
        archive = xr.apply_ufunc(np.rint, archive, keep_attrs=True, dask="allowed")
    return Frames(archive, Statistics.read(study.statistics(task)))


def draw(stretch: int = 1, part: slice = slice(None), input_type: torch.dtype = torch.float32) -> Draw:
    return Draw(Order(FIRST + np.arange(40), 6, 1, stretch, part), 4, 2, input_type)


def made(kind: str, frames: Frames, draw: Draw, device: torch.device = CPU):
    if kind == "streamed":
        return StreamedBatches(frames, draw, device)
    return ResidentBatches(reside(frames, draw.frames, device), draw, frames.normalisation)


def assert_batch_of_step(batches, frames: Frames, step: int) -> None:
    batches.load(step)
    inputs, targets = batches.gather()
    for place, start in enumerate(batches.draw.order(step)):
        expected = torch.from_numpy(frames.read(slice(start, start + 6)))
        assert torch.equal(inputs[place].cpu(), expected[:4].to(batches.draw.input_type))
        assert torch.equal(targets[place].cpu(), expected[4:])


@pytest.mark.parametrize("kind", ["resident", "streamed"])
@pytest.mark.parametrize("stretch", [1, 7])
@pytest.mark.parametrize("steps", [range(17), (8, 30, 9, 10)], ids=["in turn", "out of turn"])
def test_batches_hold_the_frames_of_their_step(kind, frames, stretch, steps):
    batches = made(kind, frames, draw(stretch))
    for step in steps:
        assert_batch_of_step(batches, frames, step)
    batches.close()


@pytest.mark.parametrize("kind", ["resident", "streamed"])
def test_processes_share_a_batch_and_inputs_can_be_of_half_size(kind, frames):
    for part in (slice(0, 3), slice(3, 6)):
        batches = made(kind, frames, draw(7, part, torch.bfloat16))
        for step in (0, 1, 9):
            assert_batch_of_step(batches, frames, step)
        batches.close()


def test_heights_take_two_bytes_exactly_where_all_are_whole_metres(frames):
    heights = frames.heights.values
    whole = np.array_equal(heights, np.rint(heights))
    resident = reside(frames, slice(0, frames.shape[0]), CPU)
    assert resident.dtype == (torch.int16 if whole else torch.float32)
    np.testing.assert_array_equal(resident.numpy(), heights)


@pytest.mark.parametrize("odd", [0.5, 32768.0, np.nan])
def test_one_height_that_two_bytes_cannot_hold_is_kept(frames, odd):
    heights = frames.heights.copy(data=frames.heights.values)
    heights[-1, 1, 2, 3] = odd
    frames.heights = heights
    resident = reside(frames, slice(0, frames.shape[0]), CPU)
    assert resident.dtype == torch.float32
    np.testing.assert_array_equal(resident.numpy(), heights.values)


def test_what_exceeds_memory_does_not_fit(frames):
    assert fits(torch.int16, (100, 73, 144), CPU)
    assert not fits(torch.int16, (10**12, 73, 144), CPU)
    assert heights_of(frames, slice(0, 9), lambda dtype, shape: None) is None


def test_heights_too_many_for_memory_are_mapped_from_a_file(frames, monkeypatch):
    monkeypatch.setattr(streaming, "HOST_FRACTION", 0.0)
    batches = made("streamed", frames, draw(7))
    folder = batches.host.folder.name
    assert batches.host.values.base is not None
    assert_batch_of_step(batches, frames, 7)
    batches.close()
    assert not streaming.Path(folder).exists()


def test_a_resumed_stream_goes_on_with_the_same_batches(frames):
    def batches_of(steps):
        batches, taken = made("streamed", frames, draw(4)), []
        for step in steps:
            batches.load(step)
            taken.append(batches.gather()[0].clone())
        batches.close()
        return taken

    for whole, resumed in zip(batches_of(range(11))[6:], batches_of(range(6, 11)), strict=True):
        assert torch.equal(whole, resumed)


@pytest.mark.parametrize("heights", [torch.int16, torch.float32])
@pytest.mark.parametrize(
    "out",
    [
        torch.float32,
        # Triton's interpreter cuts off where a GPU rounds.
        pytest.param(torch.bfloat16, marks=[pytest.mark.gpu, needs_gpu]),
    ],
)
def test_the_fused_gather_equals_the_plain_one_to_the_bit(heights, out):
    windows = pytest.importorskip("isohypse.kernels.fused.windows")
    torch.manual_seed(0)
    device = CUDA if torch.cuda.is_available() else CPU  # there in Triton's interpreter
    stored = torch.randint(-700, 32767, (9, 3, 41, 60), dtype=torch.int16).to(heights)
    mean, std = 1e4 * torch.rand(3, 1, 1), 100 + 400 * torch.rand(3, 1, 1)
    index = torch.tensor([[8, 0], [3, 4]])
    expected = gather(stored, index, mean, std, out)
    found = windows.gather_windows(*(x.to(device) for x in (stored, index, mean, std)), out)
    assert torch.equal(found.cpu(), expected)


def test_normalised_training_frames_have_mean_0_and_deviation_1_by_level(frames):
    training = frames.read(slice(0, int(0.7 * frames.shape[0])))
    np.testing.assert_allclose(training.mean(axis=(0, 2, 3), dtype=np.float64), 0, atol=1e-3)
    np.testing.assert_allclose(training.std(axis=(0, 2, 3), dtype=np.float64), 1, atol=1e-3)


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


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("kind", ["resident", "streamed"])
@pytest.mark.parametrize("stretch", [1, 7])
def test_batches_on_the_gpu_hold_the_frames_of_their_step(kind, frames, stretch):
    batches = made(kind, frames, draw(stretch, input_type=torch.bfloat16), CUDA)
    for step in range(40):
        assert_batch_of_step(batches, frames, step)
    batches.close()


@pytest.mark.gpu
@needs_gpu
def test_a_captured_gather_follows_the_stream(frames):
    batches = made("streamed", frames, draw(7), CUDA)
    batches.load(0)
    batches.gather()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        inputs, _ = batches.gather()
    seen = []
    for step in range(40):  # the host runs ahead of the device
        batches.load(step)
        graph.replay()
        seen.append(inputs.clone())
    for step, found in enumerate(seen):
        expected = np.stack([frames.read(slice(start, start + 4)) for start in batches.draw.order(step)])
        assert torch.equal(found.cpu(), torch.from_numpy(expected))
    batches.close()
