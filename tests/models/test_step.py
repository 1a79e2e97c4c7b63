# SPDX-License-Identifier: Apache-2.0
"""Frame by frame with a carried state: the same forecasts as in one pass, in memory that does not grow."""

import pytest
import torch

from isohypse.errors import DataError
from isohypse.models.mixer import tensors_of

FRAMES = 9  # more than the four taps of a short convolution


def walk(network, x):
    """Forecast and bytes of the state after each frame of x `[batch, frame, ...]`."""
    state, forecasts, sizes = network.initial_state(len(x)), [], []
    for frame in x.unbind(1):
        forecast, state = network.step(frame, state)
        forecasts.append(forecast)
        sizes.append(sum(t.numel() * t.element_size() for t in tensors_of(state)))
    return forecasts, sizes


@pytest.fixture
def strong(model, debug):
    """A network whose frames all matter: weights of a size that carries signals through."""
    network = debug(model)
    generator = torch.Generator().manual_seed(3)
    for parameter in network.parameters():
        if parameter.ndim > 1:
            size = parameter.shape[-1] ** -0.5
            parameter.data = size * torch.randn(parameter.shape, generator=generator)
    return network


@pytest.fixture
def sequence():
    """A function (frames) -> two normalised sequences on the debug grid, in float64."""
    generator = torch.Generator().manual_seed(4)
    return lambda frames: torch.randn(2, frames, 2, 3, 4, generator=generator, dtype=torch.float64)


@torch.inference_mode()
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_every_prefix_gets_the_forecast_of_the_whole_pass(strong, sequence, dtype, tolerance):
    network, x = strong.to(dtype), sequence(FRAMES).to(dtype)
    forecasts, _ = walk(network, x)
    for frames, forecast in enumerate(forecasts, 1):
        whole = network(x[:, :frames])
        assert forecast.shape == whole.shape
        assert (forecast - whole).norm() / whole.norm() < tolerance


@torch.inference_mode()
def test_steps_go_on_beyond_a_chunk(strong, sequence):
    network, x = strong.double(), sequence(70)
    forecasts, _ = walk(network, x)
    for frames in (64, 65, 70):
        torch.testing.assert_close(forecasts[frames - 1], network(x[:, :frames]), rtol=1e-9, atol=1e-10)


@torch.inference_mode()
def test_the_state_of_a_recurrence_never_grows(model, strong, sequence):
    network = strong.float()
    _, sizes = walk(network, sequence(FRAMES).float())
    start = sum(t.numel() * t.element_size() for t in tensors_of(network.initial_state(2)))
    if model == "transformer":
        each_frame = 2 * 2 * 2 * 32 * 4  # layers, keys and values, samples, d_model, bytes
        assert [start, *sizes] == [n * each_frame for n in range(FRAMES + 1)]
    else:
        assert start > 0
        assert sizes == [start] * FRAMES


@torch.inference_mode()
def test_a_state_can_be_gone_on_from_twice(strong, sequence):
    """A step leaves the state before it as it was: ensembles may branch."""
    network, x = strong.double(), sequence(3)
    _, state = network.step(x[:, 0], network.initial_state(2))
    before = [t.clone() for t in tensors_of(state)]
    first, _ = network.step(x[:, 1], state)
    network.step(x[:, 2], state)
    assert all(torch.equal(a, b) for a, b in zip(before, tensors_of(state)))
    torch.testing.assert_close(first, network.step(x[:, 1], state)[0], rtol=0, atol=0)


@torch.inference_mode()
def test_a_mixer_and_a_backbone_step_too(strong):
    backbone = strong.double().backbone
    x = torch.randn(2, FRAMES, 32, dtype=torch.float64)
    mixer = backbone.mixers[0]
    for part, whole in ((mixer, mixer(x, mixer.plan(x))), (backbone, backbone(x))):
        state = part.initial_state(2)
        for t in range(FRAMES):
            y, state = part.step(x[:, t], state)
            torch.testing.assert_close(y, whole[:, t], rtol=1e-9, atol=1e-10)


@torch.inference_mode()
def test_the_state_stays_in_float32_under_autocast(model, strong, sequence):
    """A recurrence sums hundreds of frames; keys and values of attention are read, never summed up."""
    network = strong.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        forecast, state = network.step(sequence(1)[:, 0].float(), network.initial_state(2))
        forecast, state = network.step(sequence(1)[:, 0].float(), state)
    assert forecast.isfinite().all()
    if model != "transformer":
        assert {t.dtype for t in tensors_of(state)} == {torch.float32}


def test_a_frame_of_another_grid_is_refused(debug):
    network = debug("gla")
    with pytest.raises(DataError, match=r"frames are \(2, 4, 3\), but the network was built for \(2, 3, 4\)"):
        network.step(torch.randn(1, 2, 4, 3), network.initial_state(1))
