# SPDX-License-Identifier: Apache-2.0
"""The Triton optimizer against torch's: on a GPU, or in Triton's interpreter (TRITON_INTERPRET=1)."""

import os

import pytest
import torch

from isohypse.models.registry import build
from isohypse.training.optimizer import (
    build_optimizer,
    optimizer_tensors,
    parameter_groups,
    restore_optimizer,
)
from isohypse.training.working_copy import WorkingCopy, in_place

pytest.importorskip("triton")
if not (torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") == "1"):
    pytest.skip("needs a GPU or TRITON_INTERPRET=1", allow_module_level=True)

from isohypse.training.fused_adamw import FusedAdamW

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
GRID = {"levels": 1, "latitude": 5, "longitude": 6}


@pytest.fixture
def training(study):
    return study.settings(steps=100, warmup_steps=10).training


def moments_of(net, optimizer):
    return optimizer_tensors(dict(net.named_parameters()), optimizer)


def network():
    torch.manual_seed(0)
    return build("kda", "debug", t_in=4, t_out=2, **GRID).to(DEVICE)


def fused(net, training, places):
    groups = parameter_groups(net, training, DEVICE)
    betas = (training.beta1, training.beta2)
    decay = training.weight_decay
    return FusedAdamW(groups, places, betas=betas, eps=training.epsilon, weight_decay=decay)


def give_gradients(places, step: int) -> None:
    """Random gradients of very different sizes, in the dtype that each owner has."""
    generator = torch.Generator().manual_seed(step)
    for owner in {id(place.owner): place.owner for place in places}.values():
        size = 10 ** torch.randn((), generator=generator)
        owner.grad = (size * torch.randn(owner.shape, generator=generator)).to(DEVICE, owner.dtype)


def assert_equal(found, wanted, rtol=2e-6):
    for (name, a), b in zip(found.named_parameters(), wanted.parameters()):
        torch.testing.assert_close(a, b, rtol=rtol, atol=2e-7, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("clip_norm", [0.5, 1e6])
def test_equals_torchs_adamw(training, half, clip_norm):
    mine, theirs = network(), network()
    places = WorkingCopy(mine).places if half else in_place(mine)
    optimizer, plain = fused(mine, training, places), build_optimizer(theirs, training, DEVICE)
    for step in range(4):
        rate = 1e-3 * (step + 1)
        give_gradients(places, step)
        for place, parameter in zip(places, theirs.parameters()):
            parameter.grad = place.gradient.float().view_as(parameter).clone()
        optimizer.rate.fill_(rate)
        plain.param_groups[0]["lr"].fill_(rate)
        norm, wanted = optimizer.clipped_step(clip_norm), plain.clipped_step(clip_norm)
        torch.testing.assert_close(norm, wanted, rtol=1e-6, atol=0)
        assert_equal(mine, theirs)
    for place in places:  # the interpreter cuts bf16 off where a GPU rounds
        ulp = 0 if torch.cuda.is_available() or place.owner.dtype == torch.float32 else 2**-7
        wanted = place.master.detach().flatten().to(place.owner.dtype)
        torch.testing.assert_close(place.value, wanted, rtol=ulp, atol=0)


def test_idling_changes_nothing(training):
    net = network()
    places = WorkingCopy(net).places
    optimizer = fused(net, training, places)
    optimizer.rate.fill_(1e-2)
    give_gradients(places, 0)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with optimizer.idling():
        optimizer.clipped_step(1.0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert not any(state["exp_avg"].any() or state["step"].any() for state in optimizer.state.values())


def test_goes_on_where_torchs_stopped(training):
    mine, theirs = network(), network()
    plain = build_optimizer(theirs, training, DEVICE)
    places = in_place(theirs)
    give_gradients(places, 0)
    plain.param_groups[0]["lr"].fill_(1e-3)
    plain.clipped_step(1.0)
    mine.load_state_dict(theirs.state_dict())
    optimizer = fused(mine, training, in_place(mine))
    moments = optimizer_tensors(dict(theirs.named_parameters()), plain)
    restore_optimizer(dict(mine.named_parameters()), optimizer, moments)
    optimizer.rate.fill_(1e-3)
    for owners in (places, optimizer.places):
        give_gradients(owners, 1)
    plain.clipped_step(1.0)
    optimizer.clipped_step(1.0)
    assert_equal(mine, theirs)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_updates_nothing(training, value):
    net = network()
    optimizer = fused(net, training, in_place(net))
    optimizer.rate.fill_(0.1)
    give_gradients(optimizer.places, 1)
    optimizer.clipped_step(1.0)
    before = {name: tensor.clone() for name, tensor in moments_of(net, optimizer).items()}
    weights = [parameter.detach().clone() for parameter in net.parameters()]
    give_gradients(optimizer.places, 2)
    optimizer.places[3].gradient[0] = value
    assert not optimizer.clipped_step(1.0).isfinite()
    assert all(torch.equal(before[n], tensor) for n, tensor in moments_of(net, optimizer).items())
    assert all(torch.equal(ours, now) for ours, now in zip(weights, net.parameters()))
    give_gradients(optimizer.places, 2)
    optimizer.clipped_step(1.0)
    assert not torch.equal(weights[0], next(net.parameters()))
