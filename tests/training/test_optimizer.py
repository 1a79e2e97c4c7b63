# SPDX-License-Identifier: Apache-2.0
"""The learning rate's course, what is decayed, and a step that equals plain AdamW."""

from itertools import pairwise

import pytest
import torch

from isohypse.models.registry import build
from isohypse.training.optimizer import build_optimizer, learning_rate_at, schedule
from isohypse.training.step import Step

CPU = torch.device("cpu")
GRID = {"levels": 1, "latitude": 5, "longitude": 6}


@pytest.fixture
def training(study):
    return study.settings(steps=100, warmup_steps=10).training


def test_learning_rate_rises_linearly_then_falls_to_the_floor(training):
    rates = [learning_rate_at(step, training) for step in range(1, 101)]
    assert rates[:10] == pytest.approx([3e-4 * step for step in range(1, 11)])
    assert all(later < earlier for earlier, later in pairwise(rates[9:]))
    assert rates[54] == pytest.approx(3e-3 * 0.55)  # half-way down: midway between 1 and 0.1
    assert rates[99] == pytest.approx(3e-4)


def test_learning_rate_stays_at_the_floor_after_the_horizon(training):
    short = training.model_copy(update={"schedule_steps": 50})
    assert learning_rate_at(50, short) == learning_rate_at(80, short) == pytest.approx(3e-4)


def test_longer_horizon_is_a_snapshot_of_its_schedule(training):
    long = training.model_copy(update={"schedule_steps": 1000})
    assert learning_rate_at(100, long) > 0.95 * 3e-3


@pytest.mark.parametrize("model", ["kda", "mamba2"])
def test_vectors_are_not_decayed(training, model):
    network = build(model, "debug", t_in=4, t_out=2, **GRID)
    groups = build_optimizer(network, training, CPU).param_groups
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    kept = {names[id(p)] for group in groups if group["weight_decay"] == 0 for p in group["params"]}
    assert {
        name for name in names.values() if name.endswith(("A_log", "dt_bias", "norm.weight", ".D"))
    } <= kept
    assert "projection.weight" not in kept
    assert sum(len(group["params"]) for group in groups) == len(names)


class OneBatch:
    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.inputs = torch.randn(3, 4, 1, 5, 6, generator=generator)
        self.targets = torch.randn(3, 2, 1, 5, 6, generator=generator)

    def load(self, step: int) -> None:
        pass

    def gather(self):
        return self.inputs, self.targets

    def close(self) -> None:
        pass


def plain_steps(network, training, steps: int) -> list[tuple[float, float]]:
    """The same training, written as one would by hand."""
    decayed = [p for p in network.parameters() if p.ndim > 1]
    kept = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": kept, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-8, foreach=False, fused=False)
    batch, history = OneBatch(), []
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        loss = (network(batch.inputs) - batch.targets).square().mean()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(network.parameters(), training.clip_norm)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, training)
        optimizer.step()
        history.append((loss.item(), norm.item()))
    return history


@pytest.mark.parametrize("clip_norm", [0.05, 100.0])
def test_step_is_clipped_adamw_with_the_schedule(training, clip_norm):
    training = training.model_copy(update={"clip_norm": clip_norm})
    networks = []
    for _ in range(2):
        torch.manual_seed(1)
        networks.append(build("gla", "debug", t_in=4, t_out=2, **GRID))
    mine, plain = networks
    optimizer = build_optimizer(mine, training, CPU)
    step = Step(
        mine,
        optimizer,
        OneBatch(),
        schedule(training, CPU),
        training.clip_norm,
        "fp32",
        history=4,
        kernels={},
    )
    for number in range(6):
        step.advance(number)
    expected = torch.tensor(plain_steps(plain, training, 6))
    torch.testing.assert_close(step.recent(4, 6), expected[2:], rtol=1e-5, atol=1e-6)
    for (name, found), wanted in zip(mine.named_parameters(), plain.parameters()):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=2e-6, msg=name)
