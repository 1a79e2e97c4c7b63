# SPDX-License-Identifier: Apache-2.0
"""Small networks of every backbone."""

import pytest
import torch

from isohypse.models import catalogue
from isohypse.models.registry import build

GRID = {"levels": 2, "latitude": 3, "longitude": 4}


@pytest.fixture(params=list(catalogue.MODELS))
def model(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def debug():
    """A function (model, **options) -> freshly seeded debug network: 8 frames in, 3 out, grid 2 x 3 x 4."""

    def make(model: str, **options):
        torch.manual_seed(0)
        return build(model, "debug", **{"t_in": 8, "t_out": 3, **GRID, **options})

    return make


@pytest.fixture
def frames():
    """Five samples of 8 normalised frames on the debug grid."""
    return torch.randn(5, 8, *GRID.values(), generator=torch.Generator().manual_seed(2))
