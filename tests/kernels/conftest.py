# SPDX-License-Identifier: Apache-2.0
"""Inputs for each recurrence, drawn with a fixed seed, with ordinary or strong decays."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

BATCH, HEADS, KEY, VALUE = 2, 2, 6, 4


@dataclass
class Case:
    """Arguments of one recurrence: `sequences` have a frame axis, `constants` (by position) have none."""

    sequences: list[Tensor]
    constants: dict[int, Tensor]
    state: Tensor

    @property
    def arguments(self) -> list[Tensor]:
        every = list(self.sequences)
        for position, constant in sorted(self.constants.items()):
            every.insert(position, constant)
        return every

    def frame(self, t: int) -> list[Tensor]:
        return Case([x[:, t] for x in self.sequences], self.constants, self.state).arguments

    def to(self, dtype: torch.dtype) -> "Case":
        constants = {i: x.to(dtype) for i, x in self.constants.items()}
        return Case([x.to(dtype) for x in self.sequences], constants, self.state.to(dtype))

    def leaves(self) -> list[Tensor]:
        return [x.requires_grad_() for x in [*self.arguments, self.state]]


def make_case(recurrence: str, frames: int, *, strength: float = 1.0) -> Case:
    """Float64 inputs; `strength` multiplies the log decays (about -0.7 a frame at 1)."""
    torch.manual_seed(frames)

    def normal(*shape: int) -> Tensor:
        return torch.randn(BATCH, frames, *shape, dtype=torch.float64)

    state = torch.randn(BATCH, HEADS, KEY, VALUE, dtype=torch.float64)
    if recurrence == "ssd":
        x, B, C = normal(HEADS, VALUE), normal(1, KEY), normal(1, KEY)
        A = -torch.rand(HEADS, dtype=torch.float64) * strength - 0.1
        D = torch.randn(HEADS, dtype=torch.float64)
        return Case([x, F.softplus(normal(HEADS)), B, C], {2: A, 5: D}, state)
    q, k = (F.normalize(normal(HEADS, KEY), dim=-1) for _ in range(2))
    channels = {
        "gla": [(HEADS, KEY)],
        "kda": [(HEADS, KEY)],
        "gated_delta_rule": [(HEADS,)],
        "delta_rule": [],
    }
    log_decay = [strength * F.logsigmoid(normal(*shape)) for shape in channels[recurrence]]
    beta = [] if recurrence == "gla" else [normal(HEADS).sigmoid()]
    return Case([q, k, normal(HEADS, VALUE), *log_decay, *beta], {}, state)


@pytest.fixture(params=["gla", "delta_rule", "gated_delta_rule", "kda", "ssd"])
def recurrence(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def case(recurrence: str):
    """A function (frames, strength) -> Case of the recurrence under test."""
    return lambda frames, strength=1.0: make_case(recurrence, frames, strength=strength)


@pytest.fixture
def case_of():
    """A function (recurrence, frames) -> Case."""
    return make_case
