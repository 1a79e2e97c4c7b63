# SPDX-License-Identifier: Apache-2.0
"""The mixers of GLA, DeltaNet, Gated DeltaNet and KDA between their projections, as one operation.

    q, k, v = silu(conv(...)), q and k of unit length        the delta rules; GLA takes them as they come
    beta = sigmoid(b)                                        the delta rules
    log decay g = -exp(A_log) softplus(z + bias)             Gated DeltaNet (a head), KDA (a channel)
                = logsigmoid(z + bias) / normalizer          GLA (a channel)
    (I + A) U = beta V,  o = M U                             the closed forms of `kernels/`; GLA: o = M V
    out = RMSNorm(o) times silu or sigmoid of a gate

What differs between the four is said by a `Setting`. Projections of low rank behind the joined one (decay
and gate of KDA, decay of GLA) belong to the operation, so that their gradients are written where they
belong in the gradient of the joined product. The kernels are in `keys`, `matrices` and `values`.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import triton
from torch import Tensor

from isohypse.kernels.fused.convolution import convolve_backward
from isohypse.kernels.fused.keys import keys_backward_kernel, keys_kernel
from isohypse.kernels.fused.linear import weight_gradient
from isohypse.kernels.fused.matrices import matrices_backward_kernel, matrices_kernel
from isohypse.kernels.fused.sums import Sums, parts_of, sums_over
from isohypse.kernels.fused.values import values_backward_kernel, values_kernel

KEYS, KEYS_BACKWARD, VALUES, VALUES_BACKWARD = (128, 1), (128, 4), (128, 1), (256, 1)
"""Channels of a piece and their warps; of values: channels for so many warps."""

NO_DECAY, HEAD_DECAY, CHANNEL_DECAY = 0, 1, 2
NO_GATE, SILU_GATE, SIGMOID_GATE = 0, 1, 2


@dataclass(frozen=True)
class Setting:
    """Which of the four, and its sizes. `columns`: what stands where in the joined product, in order."""

    heads: int
    key_dim: int
    value_dim: int
    frames: int
    columns: tuple[tuple[str, int], ...]
    """(name, width): q, k, v and of beta, decay, gate what there is; decay and gate may be of low rank."""
    delta: bool
    decay: int
    gate: int
    eps: float
    normalizer: float | None = None
    """Of GLA's log decay; None: the decay of Gated DeltaNet and KDA."""

    @property
    def width(self) -> int:
        return sum(width for _, width in self.columns)

    def place(self, name: str) -> slice:
        start = 0
        for column, width in self.columns:
            if column == name:
                return slice(start, start + width)
            start += width
        return slice(start, start)


class Weights(NamedTuple):
    """Parameters in float32 but for the two projections. None: the setting has no such."""

    q_taps: Tensor | None
    k_taps: Tensor | None
    v_taps: Tensor | None
    A_log: Tensor | None
    decay_bias: Tensor | None
    gate_bias: Tensor | None
    norm: Tensor
    decay_projection: Tensor | None
    gate_projection: Tensor | None


def linear_attention(joined: Tensor, setting: Setting, weights: Weights) -> Tensor:
    """joined `[batch * frame, columns (padded)]` -> `[batch * frame, head * value channel]`."""
    return _LinearAttention.apply(joined, setting, *weights)


class _LinearAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, joined: Tensor, setting: Setting, *weights: Tensor | None) -> Tensor:
        call = _Call(joined, setting, Weights(*weights))
        products = call.new(setting.heads, call.pieces(KEYS), 2, setting.frames + 1, setting.frames)
        matrices = call.new(setting.heads, 4, setting.frames, setting.frames)
        factors, lengths = call.new(setting.heads, 2, setting.frames), call.new(setting.heads, setting.frames)
        out = joined.new_empty(len(joined), setting.heads * setting.value_dim)
        call.run_keys(products)
        call.run_matrices(products, matrices, factors)
        call.run_values(matrices, out, lengths)
        ctx.save_for_backward(joined, call.decay, call.gate, matrices, factors, lengths, *weights)
        ctx.setting = setting
        return out

    @staticmethod
    def backward(ctx, dout: Tensor) -> tuple[Tensor | None, ...]:
        joined, decay, gate, matrices, factors, lengths, *weights = ctx.saved_tensors
        call = _Call(joined, ctx.setting, Weights(*weights), decay, gate)
        back = _Gradients(call)
        frames, heads = ctx.setting.frames, ctx.setting.heads
        dmatrix, dproducts = call.new(heads, frames, frames), call.new(heads, 2, frames + 1, frames)
        back.run_values(matrices, lengths, dout.contiguous(), dmatrix)
        back.run_matrices(dmatrix, matrices, factors, dproducts)
        back.run_keys(dproducts)
        return back.djoined, None, *back.sums(), *back.projections()


class _Call:
    """The operands of one forward or backward pass, and its kernels."""

    def __init__(
        self,
        joined: Tensor,
        setting: Setting,
        weights: Weights,
        decay: Tensor | None = None,
        gate: Tensor | None = None,
    ):
        self.joined, self.setting, self.weights = joined, setting, weights
        self.samples = len(joined) // setting.frames
        self.decay = self._projected("decay", weights.decay_projection) if decay is None else decay
        self.gate = self._projected("gate", weights.gate_projection) if gate is None else gate
        self.taps = 0 if weights.q_taps is None else weights.q_taps.shape[-1]
        self.channels = setting.decay == CHANNEL_DECAY
        self.side = triton.next_power_of_2(setting.frames)

    def _projected(self, name: str, projection: Tensor | None) -> Tensor:
        x = self.part(name)
        return x if projection is None else x @ projection.t()

    def part(self, name: str) -> Tensor:
        return self.joined[:, self.setting.place(name)]

    def new(self, *shape: int) -> Tensor:
        """float32 [sample, *shape]."""
        return torch.empty(self.samples, *shape, device=self.joined.device)

    def pieces(self, shape: tuple[int, int]) -> int:
        """Pieces of a head's keys."""
        return self.setting.key_dim // min(shape[0], self.setting.key_dim)

    def key_constants(self, shape: tuple[int, int]) -> tuple:
        s = self.setting
        chunk = min(shape[0], s.key_dim)
        return (
            s.heads,
            s.frames,
            s.key_dim,
            chunk,
            self.taps,
            s.delta,
            self.channels,
            s.normalizer is not None,
        )

    def value_constants(self) -> tuple:
        s = self.setting
        return s.heads, s.frames, s.value_dim, self.taps, s.gate, self.weights.gate_bias is not None

    def warps(self, shape: tuple[int, int]) -> int:
        return max(1, self.setting.value_dim * shape[1] // shape[0])

    def run_keys(self, products: Tensor) -> None:
        s, w = self.setting, self.weights
        keys_kernel[(self.samples, s.heads * self.pieces(KEYS))](
            self.part("q"), self.part("k"), self.decay, w.q_taps, w.k_taps, w.A_log, w.decay_bias, products,
            self.joined.stride(0), self.decay.stride(0), s.normalizer or 1.0, *self.key_constants(KEYS),
            num_warps=KEYS[1],
        )  # fmt: skip

    def run_matrices(self, products: Tensor, matrices: Tensor, factors: Tensor) -> None:
        s, w = self.setting, self.weights
        matrices_kernel[(self.samples, s.heads)](
            products, self.part("beta"), self.decay, w.A_log, w.decay_bias, matrices, factors,
            self.joined.stride(0), self.decay.stride(0), s.key_dim**-0.5, products.shape[2],
            *self.matrix_constants(), num_warps=1,
        )  # fmt: skip

    def matrix_constants(self) -> tuple:
        s = self.setting
        return s.heads, s.frames, self.side, s.delta, s.decay == HEAD_DECAY

    def run_values(self, matrices: Tensor, out: Tensor, lengths: Tensor) -> None:
        s, w = self.setting, self.weights
        values_kernel[(self.samples, s.heads)](
            self.part("v"), self.gate, w.v_taps, w.gate_bias, w.norm, matrices, out, lengths,
            self.joined.stride(0), self.gate.stride(0), s.eps, *self.value_constants(),
            num_warps=self.warps(VALUES),
        )  # fmt: skip


class _Gradients:
    """The gradients of a call, and the kernels that write them."""

    def __init__(self, call: _Call):
        self.call, s, device = call, call.setting, call.joined.device
        self.djoined = torch.empty_like(call.joined)
        self.ddecay = self._like(call.decay, "decay", call.weights.decay_projection)
        self.dgate = self._like(call.gate, "gate", call.weights.gate_projection)
        keys, values = s.heads * s.key_dim, s.heads * s.value_dim
        of_parts = {"q_taps": keys * call.taps, "k_taps": keys * call.taps}
        if call.channels:
            of_parts |= {"A_log": keys * (s.normalizer is None), "decay_bias": keys}
        of_samples = {"gate_bias": values * (call.weights.gate_bias is not None), "norm": values}
        if s.decay == HEAD_DECAY:
            of_samples |= {"A_log": s.heads, "decay_bias": s.heads}
        self.of_parts = Sums(parts_of(call.samples), of_parts, device)
        self.of_samples = Sums(call.samples, of_samples, device)
        self.v_taps: Tensor | None = None

    def _like(self, x: Tensor, name: str, projection: Tensor | None) -> Tensor:
        """Where the gradient of x is written: in that of the joined product, or before its projection."""
        return self.part(name) if projection is None else torch.empty_like(x)

    def part(self, name: str) -> Tensor:
        return self.djoined[:, self.call.setting.place(name)]

    def run_values(self, matrices: Tensor, lengths: Tensor, dout: Tensor, dmatrix: Tensor) -> None:
        call, w = self.call, self.call.weights
        padding, sums = self.djoined[:, call.setting.width :], self.of_samples
        values_backward_kernel[(call.samples, call.setting.heads)](
            call.part("v"), call.gate, w.v_taps, w.gate_bias, w.norm, matrices, lengths, dout,
            self.part("v"), self.dgate, dmatrix, sums.place("gate_bias"), sums.place("norm"), padding,
            call.joined.stride(0), call.gate.stride(0), sums.stride, padding.shape[1],
            *call.value_constants(), num_warps=call.warps(VALUES_BACKWARD),
        )  # fmt: skip
        if w.v_taps is not None:
            self.v_taps = convolve_backward(call.part("v"), self.part("v"), w.v_taps, call.setting.frames)

    def run_matrices(self, dmatrix: Tensor, matrices: Tensor, factors: Tensor, dproducts: Tensor) -> None:
        call, w, s = self.call, self.call.weights, self.call.setting
        sums = self.of_samples
        matrices_backward_kernel[(call.samples, s.heads)](
            dmatrix, call.part("beta"), call.decay, w.A_log, w.decay_bias, matrices, factors, dproducts,
            self.part("beta"), self.ddecay, sums.place("A_log"), sums.place("decay_bias"),
            call.joined.stride(0), call.decay.stride(0), sums.stride, s.key_dim**-0.5,
            *call.matrix_constants(), num_warps=1,
        )  # fmt: skip

    def run_keys(self, dproducts: Tensor) -> None:
        call, w, s, sums = self.call, self.call.weights, self.call.setting, self.of_parts
        parts = len(sums.partial)
        keys_backward_kernel[(parts, s.heads * call.pieces(KEYS_BACKWARD))](
            call.part("q"), call.part("k"), call.decay, w.q_taps, w.k_taps, w.A_log, w.decay_bias,
            dproducts, self.part("q"), self.part("k"), self.ddecay, sums.place("q_taps"),
            sums.place("k_taps"), sums.place("A_log"), sums.place("decay_bias"), call.joined.stride(0),
            call.decay.stride(0), sums.stride, s.normalizer or 1.0, call.samples, triton.cdiv(call.samples,
            parts), *call.key_constants(KEYS_BACKWARD), num_warps=KEYS_BACKWARD[1],
        )  # fmt: skip

    def sums(self) -> list[Tensor | None]:
        """The gradients of the first seven weights, in their order."""
        heads, found = self.call.setting.heads, self.of_samples.whole() | self.of_parts.whole()
        found["v_taps"] = self.v_taps
        for name in ("q_taps", "k_taps"):
            if name in found:
                found[name] = found[name].view(getattr(self.call.weights, name).shape)
        if self.call.channels and "A_log" in found:
            found["A_log"] = sums_over(found["A_log"].view(heads, -1), 1)
        found["norm"] = sums_over(found["norm"].view(heads, -1), 0)
        return [found.get(name) for name in Weights._fields[:7]]

    def projections(self) -> list[Tensor | None]:
        """The gradients of the projections of low rank; those of their inputs go where they belong."""
        w = self.call.weights
        of = (("decay", self.ddecay, w.decay_projection), ("gate", self.dgate, w.gate_projection))
        return [self._project_back(name, gradient, projection) for name, gradient, projection in of]

    def _project_back(self, name: str, gradient: Tensor, projection: Tensor | None) -> Tensor | None:
        if projection is None:
            return None
        torch.mm(gradient, projection, out=self.part(name))
        return weight_gradient(gradient, self.call.part(name))
