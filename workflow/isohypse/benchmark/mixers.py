# SPDX-License-Identifier: Apache-2.0
"""A mixer's output and all its gradients, by each way that there is to them.

    ours       the model's own file, with the form that `auto` takes at this length
    captured   on the kernels of a captured step (`models/fused.py`), on a working copy of the same weights; a
               step itself runs them in bf16 only
    peer       flash-linear-attention's layer with the same weights (`peers.build_peer_mixer`)
    exact      the model's own file in float64: the recurrence frame by frame where that can be waited for,
               its chunkwise form for longer sequences (attention: its closed form, or PyTorch's own)

The gradients are those of sum(weights * output) by the input and by every parameter.
"""

import copy
from collections.abc import Callable
from importlib.util import find_spec
from typing import NamedTuple

import torch
from torch import Tensor, nn

from isohypse.kernels.choice import CLOSED_FRAMES
from isohypse.models.mixer import Mixer
from isohypse.models.network import Network
from isohypse.models.registry import build
from isohypse.training.hardware import autocast
from isohypse.training.working_copy import WorkingCopy

OUTPUT, INPUT = "output", "x"
Found = dict[str, Tensor]
"""OUTPUT `[batch, frame, d_model]`; gradients by the name of the parameter, that of the input as INPUT."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Case(NamedTuple):
    """Float32 `[batch, frame, d_model]` each: a mixer's input, and weights for its output."""

    x: Tensor
    weights: Tensor


def one_layer(model: str, flavour: str, device: torch.device) -> Network:
    """A network with one layer, on one grid point, whose weights are not where a training starts.

    There some have no effect yet, and an error in their gradients would not be seen. They are drawn on the
    CPU, the same for every device.
    """
    torch.manual_seed(0)
    grid = {"levels": 1, "latitude": 1, "longitude": 1}
    network = build(model, flavour, t_in=1, t_out=1, **grid, layers=1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * (0.02 if parameter.ndim > 1 else 0.05))
    return network.to(device)


def case_of(frames: int, d_model: int, device: torch.device) -> Case:
    """Random numbers: 16 sequences, or as many as 2,048 frames hold, or one."""
    generator = torch.Generator().manual_seed(frames)
    shape = (max(1, min(16, 2048 // frames)), frames, d_model)
    return Case(*(torch.randn(shape, generator=generator).to(device) for _ in range(2)))


def ours(mixer: Mixer, case: Case, precision: str) -> Found:
    """As an eager step runs it: float32 weights, for bf16 under autocast."""
    return _found(mixer, lambda x: mixer(x, mixer.plan(x)), case, precision)


def peer(mixer: nn.Module, case: Case, precision: str) -> Found:
    """Likewise the library's, on the same device."""
    return _found(mixer, lambda x: mixer(hidden_states=x)[0], case, precision)


def exact(mixer: Mixer, case: Case) -> Found:
    """In float64."""
    wide = copy.deepcopy(mixer).double()
    wide.backend = "recurrent" if case.x.shape[1] <= CLOSED_FRAMES else "chunkwise"
    wide_case = Case(case.x.double(), case.weights.double())
    return _found(wide, lambda x: wide(x, wide.plan(x)), wide_case, "fp32")


def _found(mixer: nn.Module, call: Callable[[Tensor], Tensor], case: Case, precision: str) -> Found:
    x = case.x.detach().requires_grad_()
    leaves = {INPUT: x, **dict(mixer.named_parameters())}
    with autocast(precision, x.device):
        y = call(x)
    gradients = torch.autograd.grad((y.to(case.weights.dtype) * case.weights).sum(), leaves.values())
    return {OUTPUT: y.detach(), **dict(zip(leaves, gradients))}


def captured(network: Network, case: Case, precision: str) -> Found:
    """The first mixer of `network` on the kernels of a captured step: joined projections, in `precision`."""
    from isohypse.kernels.fused.linear import linear  # needs Triton
    from isohypse.models.fused import fuse

    working = WorkingCopy(network, DTYPES[precision])
    batch, frames, _ = case.x.shape
    torch.compiler.reset()  # which compiles no more than eight shapes of one function
    fuse(working.network, frames)
    mixer, mixing = working.network.backbone.mixers[0], working.network.backbone.mixing[0]
    x = case.x.to(DTYPES[precision]).flatten(0, 1).requires_grad_()
    with autocast(precision, x.device):
        factors = mixing(x, plan=mixer.plan(case.x), frames=frames)
        y = linear(*factors).unflatten(0, (batch, frames))
    names = {id(weight): name for name, weight in network.backbone.mixers[0].named_parameters()}
    places = [place for place in working.places if id(place.master) in names]
    (y.float() * case.weights).sum().backward(inputs=[x, *{id(p.owner): p.owner for p in places}.values()])
    found = {names[id(p.master)]: p.gradient.view_as(p.master) for p in places}
    network.zero_grad()  # norms and the like are the network's own
    return {OUTPUT: y.detach(), INPUT: x.grad.unflatten(0, (batch, frames)), **found}


def captured_name(network: Network, kernel: str, frames: int, device: torch.device) -> str | None:
    """What a captured step runs where an eager one runs `kernel`; None where there is none."""
    if device.type != "cuda" or find_spec("triton") is None:
        return None
    from isohypse.models.fused import NAME, serves

    return NAME if serves(network.backbone, frames) else f"{kernel}, captured"


class Difference(NamedTuple):
    """Largest error over the largest value: of the output, and of the gradient where that is worst."""

    output: float
    gradient: float
    worst: str
    """Whose gradient."""


def difference(found: Found, reference: Found) -> Difference:
    """Between two ways to the same numbers. What is not finite is infinitely wrong."""
    errors = {name: _error(found[name], exact) for name, exact in reference.items()}
    output = errors.pop(OUTPUT)
    worst = max(errors, key=errors.get)
    return Difference(output, errors[worst], worst)


def _error(found: Tensor, reference: Tensor) -> float:
    found, reference = found.double(), reference.double()
    largest = reference.abs().max().clamp_min(torch.finfo(torch.float32).tiny)
    return ((found - reference).abs().max() / largest).nan_to_num(torch.inf).item()
