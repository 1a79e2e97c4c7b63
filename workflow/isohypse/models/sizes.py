# SPDX-License-Identifier: Apache-2.0
"""What each flavour of each backbone weighs: the rows of the table that `isohypse models` prints."""

from collections.abc import Iterator
from dataclasses import dataclass

from isohypse.models import catalogue
from isohypse.models.network import Network
from isohypse.models.registry import build


@dataclass(frozen=True)
class ParameterRow:
    """Sizes and numbers of parameters of one flavour on one grid."""

    model: str
    display_name: str
    flavour: str
    layers: int
    d_model: int
    heads: int
    stack_parameters: int
    """Blocks and final norm: what the backbones are compared on."""
    total_parameters: dict[int, int]
    """With projection and head, for each T_out."""


def parameter_rows(
    *, t_outs: tuple[int, ...] = (1, 4), levels: int = 1, latitude: int = 73, longitude: int = 144
) -> Iterator[ParameterRow]:
    """One row for each model and flavour, in the catalogue's order; the grid is the paper's by default."""
    for model, entry in catalogue.MODELS.items():
        for flavour, sizes in entry.flavours.items():
            network = build(
                model,
                flavour,
                t_in=8,
                t_out=1,
                levels=levels,
                latitude=latitude,
                longitude=longitude,
                device="meta",
            )
            stack, around, head = _counts(network)
            totals = {t_out: stack + around + t_out * head for t_out in t_outs}
            yield ParameterRow(
                model, entry.display_name, flavour, sizes.layers, sizes.d_model, sizes.heads, stack, totals
            )


def _counts(network: Network) -> tuple[int, int, int]:
    """Parameters of backbone, projection and head."""
    parts = (network.backbone, network.projection, network.head)
    return tuple(sum(p.numel() for p in part.parameters()) for part in parts)
