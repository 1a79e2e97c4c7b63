# SPDX-License-Identifier: Apache-2.0
"""The bf16 copy computes autocast's own numbers and follows its masters."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from isohypse.models import catalogue
from isohypse.models.registry import build
from isohypse.training.working_copy import WorkingCopy

GRID = {"levels": 1, "latitude": 5, "longitude": 6}


@pytest.fixture(params=list(catalogue.MODELS))
def network(request):
    torch.manual_seed(0)
    return build(request.param, "debug", t_in=8, t_out=2, **GRID)


def loss_of(network):
    generator = torch.Generator().manual_seed(1)
    inputs, targets = (torch.randn(3, n, 1, 5, 6, generator=generator) for n in (8, 2))
    with torch.autocast("cpu", torch.bfloat16):
        forecast = network(inputs)
    return F.mse_loss(forecast.float(), targets)


def test_loss_and_gradients_are_autocasts(network):
    copy = WorkingCopy(network)
    working = loss_of(copy.network)
    working.backward()
    gradients = [place.gradient.float().clone() for place in copy.places]
    for place in copy.places:
        place.owner.grad = None
    plain = loss_of(network)
    plain.backward()
    assert working.item() == pytest.approx(plain.item(), rel=1e-3)
    for gradient, (name, parameter) in zip(gradients, network.named_parameters()):
        wanted = parameter.grad.flatten()
        error = (gradient - wanted).norm() / wanted.norm().clamp_min(1e-6)
        assert error < 0.03, name  # a few bf16 roundings: joined products sum in another order


def test_every_linear_weight_has_a_place_of_its_own(network):
    copy = WorkingCopy(network)
    spans = {(id(p.owner), i) for p in copy.places for i in range(p.start, p.start + p.master.numel())}
    assert len(spans) == sum(parameter.numel() for parameter in network.parameters())
    linear = {id(m.weight) for m in network.modules() if isinstance(m, nn.Linear)}
    for place in copy.places:
        assert (place.owner.dtype == torch.bfloat16) == (id(place.master) in linear)
        assert torch.equal(place.value, place.master.detach().flatten().to(place.owner.dtype))


def test_refresh_follows_the_masters(network):
    copy = WorkingCopy(network)
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    copy.refresh()
    for place in copy.places:
        assert torch.equal(place.value, place.master.detach().flatten().to(place.owner.dtype))
