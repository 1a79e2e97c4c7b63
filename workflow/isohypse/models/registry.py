# SPDX-License-Identifier: Apache-2.0
"""From a name to a network: the one door to the models.

A new backbone is a file with its mixer, its sizes in `catalogue` and a line here.
"""

from typing import NamedTuple

import torch

from isohypse.models import catalogue
from isohypse.models.backbone import Backbone, MixerBlock, ResidualBlock
from isohypse.models.deltanet import DeltaNet
from isohypse.models.gated_deltanet import GatedDeltaNet
from isohypse.models.gla import GatedLinearAttention
from isohypse.models.kda import KimiDeltaAttention
from isohypse.models.mamba2 import Mamba2
from isohypse.models.mixer import Mixer
from isohypse.models.network import Network
from isohypse.models.transformer import Attention


class Parts(NamedTuple):
    """The classes a backbone is made of."""

    mixer: type[Mixer]
    block: type[ResidualBlock | MixerBlock]


MODELS: dict[str, Parts] = {
    "transformer": Parts(Attention, ResidualBlock),
    "gla": Parts(GatedLinearAttention, ResidualBlock),
    "deltanet": Parts(DeltaNet, ResidualBlock),
    "gated_deltanet": Parts(GatedDeltaNet, ResidualBlock),
    "kda": Parts(KimiDeltaAttention, ResidualBlock),
    "mamba2": Parts(Mamba2, MixerBlock),
}


def build(
    model: str,
    flavour: str,
    *,
    t_in: int,
    t_out: int,
    levels: int,
    latitude: int,
    longitude: int,
    layers: int | None = None,
    backend: str = "auto",
    device: torch.device | str = "cpu",
) -> Network:
    """A freshly initialised network (float32) on `device`, drawn from the default generator of that device.

    `levels`, `latitude` and `longitude` are numbers of grid points; `layers` are those of the flavour if none
    are given; `backend` is a kernel's name or "auto".
    On the meta device no memory is taken: enough for counting, or for `to_empty` and `Network.initialise`
    later.

    Raises ConfigurationError for unknown names (listing the allowed ones), UnavailableError for a backend
    that cannot serve `t_in` frames.
    """
    sizes = catalogue.flavour_of(model, flavour, layers)
    parts = MODELS[model]
    with torch.device("meta"):
        backbone = Backbone(parts.mixer, parts.block, sizes, backend)
        network = Network(
            backbone, t_in=t_in, t_out=t_out, levels=levels, latitude=latitude, longitude=longitude
        )
    network.kernel_names()
    if torch.device(device).type != "meta":
        # As `to_empty`, which would load parts of PyTorch's compiler: seconds before the first step.
        network._apply(lambda tensor: torch.empty(tensor.shape, dtype=tensor.dtype, device=device))
        network.initialise()
    return network
