# SPDX-License-Identifier: Apache-2.0
"""The benchmarked step is the network's own, going on from call to call in buffers that stay in place."""

import pytest
import torch

from isohypse.benchmark import latency
from isohypse.models import catalogue
from isohypse.models.mixer import tensors_of
from isohypse.models.registry import build
from isohypse.training.working_copy import WorkingCopy

GRID = {"levels": 1, "latitude": 3, "longitude": 4}
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
RECURRENT = [name for name in catalogue.MODELS if name != "transformer"]


def network_of(model, device="cpu"):
    torch.manual_seed(0)
    return build(model, "debug", t_in=8, t_out=1, **GRID).to(device).eval()


def frames_of(count, device="cpu"):
    return torch.randn(1, count, *GRID.values(), generator=torch.Generator().manual_seed(1)).to(device)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=[GPU, pytest.mark.gpu])])
@pytest.mark.parametrize("model", RECURRENT)
def test_each_call_goes_on_from_the_one_before(model, device):
    network, x = network_of(model, device), frames_of(9, device)
    carried = latency.CarriedForecast(network, x[:, :5], "fp32")
    places = [t.data_ptr() for t in tensors_of(carried.state)]
    for t in range(5, 9):
        with torch.no_grad():
            whole = network(x[:, : t + 1])
        torch.testing.assert_close(carried(x[:, t]), whole, rtol=1e-4, atol=1e-5)
    assert places == [t.data_ptr() for t in tensors_of(carried.state)]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=[GPU, pytest.mark.gpu])])
def test_attention_answers_the_frame_after_its_past_every_time(device):
    network, x = network_of("transformer", device), frames_of(6, device)
    carried = latency.CarriedForecast(network, x[:, :5], "fp32")
    for _ in range(2):
        with torch.no_grad():
            torch.testing.assert_close(carried(x[:, 5]), network(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model", catalogue.MODELS)
def test_the_bf16_copy_steps_as_it_passes(model):
    """Joined projections and bf16 weights, as in the benchmark on a GPU."""
    copy, x = WorkingCopy(network_of(model)).network, frames_of(8)
    forecast = latency.CarriedForecast(copy, x[:, :7], "bf16")(x[:, 7])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        whole = copy(x)
    torch.testing.assert_close(forecast, whole, rtol=0, atol=0.05 * whole.abs().max().item())


def test_latency_is_a_median_within_its_range():
    network, x = network_of("gla"), frames_of(4)
    seconds = latency.our_step_latency(network, x)
    assert 0 < seconds["min"] <= seconds["median"] <= seconds["max"]
