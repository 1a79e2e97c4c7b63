# SPDX-License-Identifier: Apache-2.0
"""The same forecaster built from flash-linear-attention's own blocks, trained as one would by hand.

Projection, the library's blocks with our sizes, its RMSNorm, head. The step is eager: bf16 autocast, mean
squared error, clipping, fused AdamW. Where the library cannot run as it is, what was done instead stands in
`Peer.note` and in every table:

    Transformer     FLA's Attention needs flash_attn; our mixer on PyTorch's attention stands in its block
    Gated DeltaNet  FLA's backward pass refuses on Hopper with Triton 3.4 to 3.7.0 (#640): chunk_kda instead
    Mamba2          FLA's layer needs the compiled causal_conv1d: its short convolution and mamba-ssm's scan
"""

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isohypse.errors import UnavailableError
from isohypse.kernels import external, tuning
from isohypse.models import catalogue
from isohypse.models.exchange import fla_options
from isohypse.models.transformer import Attention

_CLASSES = {  # model -> (package in fla.models, prefix of its classes)
    "transformer": ("transformer", "Transformer"),
    "gla": ("gla", "GLA"),
    "deltanet": ("delta_net", "DeltaNet"),
    "gated_deltanet": ("gated_deltanet", "GatedDeltaNet"),
    "kda": ("kda", "KDA"),
    "mamba2": ("mamba2", "Mamba2"),
}


@dataclass(frozen=True)
class Peer:
    """The library's network on the CPU and what was changed to make it run."""

    network: "PeerNetwork"
    note: str


class PeerNetwork(nn.Module):
    """Projection, blocks, norm, head; shapes as in `models.network.Network`."""

    def __init__(self, blocks: nn.ModuleList, norm: nn.Module, d_model: int, cells: int, t_out: int):
        super().__init__()
        self.projection = nn.Linear(cells, d_model)
        self.layers, self.norm = blocks, norm
        self.head = nn.Linear(d_model, t_out * cells)
        self.t_out = t_out

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.projection(x.flatten(2))
        for layer in self.layers:
            hidden = layer(hidden)[0]
        return self.head(self.norm(hidden)[:, -1]).unflatten(-1, (self.t_out, *x.shape[2:]))


def build_peer(model: str, flavour: str, *, cells: int, t_out: int, layers: int | None = None) -> Peer:
    """The library's network at the sizes of a flavour, or of other `layers`.

    Raises UnavailableError without the library, or for a model that it does not have.
    """
    if not external.installed():
        raise UnavailableError("the peers need flash-linear-attention: pip install 'isohypse[cuda]'")
    if model not in _CLASSES:
        raise UnavailableError(f"{model}: flash-linear-attention has no such model")
    tuning.keep_by_default()
    sizes = catalogue.flavour_of(model, flavour, layers)
    package, prefix = _CLASSES[model]
    configuration = getattr(import_module(f"fla.models.{package}"), f"{prefix}Config")(**fla_options(sizes))
    modeling = import_module(f"fla.models.{package}.modeling_{package}")
    note = _adapt(model, modeling, sizes)
    tuning.pin("fla", "fla-core")
    block = getattr(modeling, f"{prefix}Block")
    blocks = nn.ModuleList(block(configuration, index) for index in range(sizes.layers))
    norm = modeling.RMSNorm(sizes.d_model, eps=configuration.norm_eps)
    network = PeerNetwork(blocks, norm, sizes.d_model, cells, t_out)
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.02)
    return Peer(network, note)


def build_peer_mixer(model: str, flavour: str) -> tuple[nn.Module, str]:
    """The mixer of one of the library's blocks, on the CPU, and the peer's note.

    Raises UnavailableError without the library, and for the Transformer, in whose block stands our own.
    """
    if model == "transformer":
        raise UnavailableError("FLA's attention needs flash_attn: no peer")
    peer = build_peer(model, flavour, cells=1, t_out=1, layers=1)
    block = peer.network.layers[0]
    return block.mixer if model == "mamba2" else block.attn, peer.note


def _adapt(model: str, modeling, sizes: catalogue.Flavour) -> str:
    """Replace in the library's module what cannot run here; returns the note, empty if nothing was."""
    if model == "transformer" and find_spec("flash_attn") is None:
        modeling.Attention = lambda **_: _Alone(Attention(sizes))
        return "attention: PyTorch SDPA in FLA's block"
    if model == "mamba2" and find_spec("causal_conv1d") is None:
        if find_spec("mamba_ssm") is None:
            raise UnavailableError("Mamba2's peer needs mamba-ssm: see `isohypse doctor`")
        external.load("ssd", "cuda")  # makes mamba-ssm importable
        modeling.Mamba2.forward = _scanned_mamba2
        return "FLA's layer on its Triton convolution and mamba-ssm's scan"
    if model == "gated_deltanet" and "chunk_kda" in external.load("gated_delta_rule", "cuda").name:
        import_module("fla.layers.gated_deltanet").chunk_gated_delta_rule = _through_kda
        return "FLA refuses (#640): its layer through chunk_kda"
    return ""


class _Alone(nn.Module):
    """A mixer that answers as the library's do."""

    def __init__(self, mixer: nn.Module):
        super().__init__()
        self.mixer = mixer

    def forward(self, hidden_states: Tensor, **_) -> tuple[Tensor, None, None]:
        return self.mixer(hidden_states, self.mixer.plan(hidden_states)), None, None


def _through_kda(q, k, v, g, beta, A_log, dt_bias, **_):
    """`chunk_gated_delta_rule` as FLA's layer calls it, the decay of a head given to all its channels."""
    from fla.ops.kda import chunk_kda

    decay = -A_log.float().exp() * F.softplus(g.float() + dt_bias)
    decay = decay[..., None].expand(k.shape).contiguous()
    inside = {"use_qk_l2norm_in_kernel": True, "use_beta_sigmoid_in_kernel": True}
    return chunk_kda(q, k, v, decay, beta, **inside)


def _scanned_mamba2(self, hidden_states: Tensor, **_) -> tuple[Tensor, None, None]:
    """The training path of FLA's Mamba2 with kernels that are there."""
    from fla.modules.causal_conv1d import causal_conv1d
    from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined

    shared = self.n_groups * self.ssm_state_size
    z, xBC, dt = self.in_proj(hidden_states).split(
        [self.intermediate_size, self.conv_dim, self.num_heads], -1
    )
    xBC = causal_conv1d(xBC, self.conv1d.weight[:, 0], self.conv1d.bias, activation=self.activation)[0]
    x, B, C = xBC.split([self.intermediate_size, shared, shared], -1)
    x = x.unflatten(-1, (self.num_heads, -1))
    B, C = (u.unflatten(-1, (self.n_groups, -1)) for u in (B, C))
    A = -self.A_log.float().exp()
    options = {"chunk_size": self.chunk_size, "D": self.D, "dt_bias": self.dt_bias, "dt_softplus": True}
    y = mamba_chunk_scan_combined(x, dt, A, B, C, **options)
    return self.out_proj(self.norm(y.flatten(-2), z)), None, None


class PeerStep:
    """An eager training step: forward, backward, clipping, AdamW."""

    def __init__(self, network: PeerNetwork, inputs: Tensor, targets: Tensor):
        self.network, self.inputs, self.targets = network, inputs, targets
        self.optimizer = torch.optim.AdamW(
            network.parameters(), lr=3e-4, betas=(0.9, 0.999), eps=1e-15, weight_decay=0.1, fused=True
        )

    def __call__(self) -> None:
        with torch.autocast(self.inputs.device.type, torch.bfloat16):
            forecast = self.network(self.inputs)
        F.mse_loss(forecast.float(), self.targets).backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
