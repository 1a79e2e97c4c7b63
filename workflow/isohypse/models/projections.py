# SPDX-License-Identifier: Apache-2.0
"""Several projections of one input as one matrix product.

Queries, keys, values and gates are products of the same input. Apart they are small on a GPU (2,048 rows at
the paper's batch) and none fills it; one product with their weights below each other does the same work in
one go. A network keeps its projections apart, each an `nn.Linear` under the name that flash-linear-attention
gives it; `join` lays the weights of a copy that only computes together (`training/working_copy.py`).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ALIGNMENT = 64
"""Joined rows are padded with zeros to a multiple of this, so that products run on tensor cores."""


def project(x: Tensor, projections: Sequence[nn.Linear]) -> Sequence[Tensor]:
    """The output of each projection of x; by one product if their weights have been joined."""
    weight = getattr(projections[0], "joined", None)
    if weight is None:
        return [projection(x) for projection in projections]
    return split(F.linear(x, weight), projections)


def split(product: Tensor, projections: Sequence[nn.Linear]) -> Sequence[Tensor]:
    """The outputs of projections in the product with their joined weight `[..., row]`."""
    widths = [projection.out_features for projection in projections]
    padding = product.shape[-1] - sum(widths)
    return product.split([*widths, padding] if padding else widths, -1)[: len(widths)]


def join(projections: Sequence[nn.Linear]) -> nn.Parameter:
    """Move the weights of bias-free projections of one input into one parameter `[rows, input]`.

    The parameter belongs to the first of them, as `joined`; their own weights are gone. Row order: as given.
    """
    rows = sum(projection.out_features for projection in projections)
    first = projections[0]
    joined = first.weight.new_zeros(-(-rows // ALIGNMENT) * ALIGNMENT, first.in_features)
    torch.cat([projection.weight.detach() for projection in projections], out=joined[:rows])
    for projection in projections:
        del projection.weight
    first.joined = nn.Parameter(joined)
    return first.joined
