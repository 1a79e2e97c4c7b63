# SPDX-License-Identifier: Apache-2.0
"""The backbones on fused kernels: what runs in the captured step of a GPU.

The same layers with the same parameters, taken from a network whose projections have been joined
(`training/working_copy.py`); only what lies between two matrix products is done by kernels of its own
(`kernels/fused`) instead of the operations of the model's own file, which stay the definition. For the mixers
there are such kernels for short sequences; at other lengths they are compiled (`compiled_mixer.py`). After
the last mixer only the last frame of each sample goes on, since the head reads no other.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn

from isohypse.kernels.fused import linear_attention as settings
from isohypse.kernels.fused import ssd
from isohypse.kernels.fused.frames import FRAMES
from isohypse.kernels.fused.gated_mlp import gated_mlp
from isohypse.kernels.fused.linear import linear
from isohypse.kernels.fused.linear_attention import Setting, Weights, linear_attention
from isohypse.kernels.fused.residual import add_norm
from isohypse.kernels.fused.rotary_attention import rotary_attention
from isohypse.kernels.fused.tile import ROWS
from isohypse.models.backbone import Backbone, ResidualBlock
from isohypse.models.compiled_mixer import CompiledMixer
from isohypse.models.deltanet import DeltaNet
from isohypse.models.gated_deltanet import GatedDeltaNet
from isohypse.models.gla import GatedLinearAttention
from isohypse.models.kda import KimiDeltaAttention
from isohypse.models.mamba2 import Mamba2
from isohypse.models.mixer import Mixer
from isohypse.models.network import Network
from isohypse.models.transformer import Attention

NAME = "fused"
"""Of this way to run a mixer, in results."""
INDUCTOR = {"unroll_reductions_threshold": 17}
"""For the compiler: sums over the frames of a short sequence become plain additions that fuse with their
surroundings."""


def fuse(network: Network, frames: int) -> bool:
    """Let `network`, its projections joined, run on fused kernels; whether its mixers do, too."""
    network.backbone = FusedBackbone(network.backbone, frames)
    if not network.backbone.mixers_fused:
        compile_mixers(network.backbone)
    return network.backbone.mixers_fused


def compile_mixers(backbone: "FusedBackbone") -> None:
    """Compile what lies between the products of its mixers."""
    leave_autocast()
    for mixer in backbone.mixing:
        mixer.compile(options=INDUCTOR)


def leave_autocast() -> None:
    """A recurrence leaves autocast (kernels/precision.py): so must its compiled backward pass.

    Eagerly it does.
    """
    import torch._functorch.config  # with the compiler, which a step on the fused kernels never loads

    torch._functorch.config.backward_pass_autocast = "off"


def serves(backbone: Backbone, frames: int) -> bool:
    """Whether there are kernels for its mixers at these sizes: few frames, channels by powers of two.

    A form that was asked for by name is never replaced.
    """
    mixer = backbone.mixers[0]
    if mixer.backend != "auto":
        return False
    dims = (mixer.key_dim, mixer.value_dim)
    attends = isinstance(mixer, Attention)
    smallest = 2 * ROWS if attends else ROWS  # a head's halves are factors of products
    sizes = all(dim >= smallest and dim & (dim - 1) == 0 for dim in dims)
    fits = frames <= (ROWS if attends else FRAMES)
    return fits and sizes and type(mixer) in _MIXERS and getattr(mixer, "groups", 1) == 1


class FusedBackbone(nn.Module):
    """Takes the place of a `Backbone`: `[batch, frame, d_model]` -> `[batch, 1, d_model]`, the last frame.

    frames: of the sequences that it is made for. `mixers_fused`: whether the mixers have kernels for them.
    `mixing`: of each layer, (n `[batch * frame, d_model]`, plan, frames) -> the factors of the mixer's last
    product.
    """

    def __init__(self, backbone: Backbone, frames: int):
        super().__init__()
        self.layers, self.norm = backbone.layers, backbone.norm
        self.d_model, self.mixers = backbone.d_model, backbone.mixers
        self.mixers_fused = serves(backbone, frames)
        self.mixing = [partial(mix, m) if self.mixers_fused else CompiledMixer(m) for m in self.mixers]

    def forward(self, x: Tensor) -> Tensor:
        batch, frames, width = x.shape
        plan = self.mixers[0].plan(x)
        branch, stream = x.reshape(-1, width), None
        for layer, mixing in zip(self.layers, self.mixing):
            only = batch if layer is self.layers[-1] else None
            stream, branch = _layer(layer, partial(mixing, plan=plan, frames=frames), stream, branch, only)
        return add_norm(stream, branch, self.norm.weight, self.norm.eps)[1].unflatten(0, (batch, 1))


def _layer(
    layer: nn.Module,
    mixing: Callable[[Tensor], tuple[Tensor, Tensor]],
    stream: Tensor | None,
    branch: Tensor,
    only: int | None,
) -> tuple[Tensor, Tensor]:
    """The residual stream without the last branch, and that branch.

    mixing: the mixer but for its last product. only: go on with the last frame of so many samples.
    """
    residual = isinstance(layer, ResidualBlock)
    norm = layer.attn_norm if residual else layer.norm
    stream, n = add_norm(stream, branch, norm.weight, norm.eps)
    out, last_weight = mixing(n)
    if only is not None:
        stream, out = (z.unflatten(0, (only, -1))[:, -1] for z in (stream, out))
    branch = linear(out, last_weight)
    if residual:
        stream, n = add_norm(stream, branch, layer.mlp_norm.weight, layer.mlp_norm.eps)
        branch = gated_mlp(n, layer.mlp.gate_proj.joined, layer.mlp.down_proj.weight)
    return stream, branch


def mix(mixer: Mixer, n: Tensor, plan: Any, frames: int) -> tuple[Tensor, Tensor]:
    """A mixer of `[batch * frame, d_model]` but for its last product: the factors of that."""
    return _MIXERS[type(mixer)](mixer, n, plan, frames)


def _attention(mixer: Attention, n: Tensor, plan: Any, frames: int) -> tuple[Tensor, Tensor]:
    return rotary_attention(linear(n, mixer.q_proj.joined), plan.turns, mixer.heads), mixer.o_proj.weight


def _linear(
    mixer: Mixer,
    n: Tensor,
    frames: int,
    names: tuple[str, ...],
    norm: nn.Module,
    *,
    decay: int = settings.NO_DECAY,
    gate: int = settings.NO_GATE,
    decay_bias: Tensor | None = None,
    decay_projection: Tensor | None = None,
    gate_projection: nn.Linear | None = None,
) -> tuple[Tensor, Tensor]:
    """A mixer of linear attention. names: of its projections' roles, in the order of `shared_input`."""
    delta = "beta" in names
    columns = tuple((name, p.out_features) for name, p in zip(names, mixer.shared_input))
    setting = Setting(
        mixer.heads,
        mixer.key_dim,
        mixer.value_dim,
        frames,
        columns,
        delta,
        decay,
        gate,
        norm.eps,
        getattr(mixer, "gate_normalizer", None),
    )
    taps = [mixer.q_conv1d.weight, mixer.k_conv1d.weight, mixer.v_conv1d.weight] if delta else [None] * 3
    weights = Weights(
        *taps,
        getattr(mixer, "A_log", None),
        decay_bias,
        None if gate_projection is None else gate_projection.bias,
        norm.weight,
        decay_projection,
        None if gate_projection is None else gate_projection.weight,
    )
    return linear_attention(linear(n, mixer.q_proj.joined), setting, weights), mixer.o_proj.weight


def _gla(mixer: GatedLinearAttention, n: Tensor, plan: Any, frames: int) -> tuple[Tensor, Tensor]:
    low_rank = mixer.gk_proj[1]
    return _linear(
        mixer,
        n,
        frames,
        ("q", "k", "v", "gate", "decay"),
        mixer.g_norm_swish_gate,
        decay=settings.CHANNEL_DECAY,
        gate=settings.SILU_GATE,
        decay_bias=low_rank.bias,
        decay_projection=low_rank.weight,
    )


def _deltanet(mixer: DeltaNet, n: Tensor, plan: Any, frames: int) -> tuple[Tensor, Tensor]:
    return _linear(mixer, n, frames, ("q", "k", "v", "beta"), mixer.o_norm)


def _gated_deltanet(mixer: GatedDeltaNet, n: Tensor, plan: Any, frames: int) -> tuple[Tensor, Tensor]:
    return _linear(
        mixer,
        n,
        frames,
        ("q", "k", "v", "gate", "decay", "beta"),
        mixer.o_norm,
        decay=settings.HEAD_DECAY,
        gate=settings.SILU_GATE,
        decay_bias=mixer.dt_bias,
    )


def _kda(mixer: KimiDeltaAttention, n: Tensor, plan: Any, frames: int) -> tuple[Tensor, Tensor]:
    return _linear(
        mixer,
        n,
        frames,
        ("q", "k", "v", "decay", "gate", "beta"),
        mixer.o_norm,
        decay=settings.CHANNEL_DECAY,
        gate=settings.SIGMOID_GATE,
        decay_bias=mixer.dt_bias,
        decay_projection=mixer.f_proj[1].weight,
        gate_projection=mixer.g_proj[1],
    )


def _mamba2(mixer: Mamba2, n: Tensor, plan: Any, frames: int) -> tuple[Tensor, Tensor]:
    sizes = ssd.Sizes(mixer.heads, mixer.key_dim, mixer.value_dim, frames, mixer.norm.eps)
    convolution = mixer.conv1d.weight, mixer.conv1d.bias
    weights = ssd.Weights(*convolution, mixer.A_log, mixer.dt_bias, mixer.D, mixer.norm.weight)
    return ssd.gated_ssd(linear(n, mixer.in_proj.weight), sizes, weights), mixer.out_proj.weight


_MIXERS: dict[type[Mixer], Callable[..., tuple[Tensor, Tensor]]] = {
    Attention: _attention,
    GatedLinearAttention: _gla,
    DeltaNet: _deltanet,
    GatedDeltaNet: _gated_deltanet,
    KimiDeltaAttention: _kda,
    Mamba2: _mamba2,
}
