# SPDX-License-Identifier: Apache-2.0
"""Kernels of `linear_attention`: values of a sample and head, through the matrix, the norm and the gate.

    o = W V,  out = o r w times an activation of the gate,  r = 1 / sqrt(mean(o^2) + eps)

Backward: D = do V^T, all that the matrices need of the values, and dV = W^T do.
"""

import triton
import triton.language as tl

from isohypse.kernels.fused.frames import (
    features,
    mixed_backward,
    mixed_frame,
    sigmoid,
    silu,
    silu_slope,
    store_frames,
    store_products,
)


@triton.jit
def values_kernel(
    v, gate, v_taps, gate_bias, norm, matrices, out, lengths, stride, gate_stride, eps, HEADS: tl.constexpr,
    T: tl.constexpr, V: tl.constexpr, TAPS: tl.constexpr, GATE: tl.constexpr, GATE_BIAS: tl.constexpr,
):  # fmt: skip
    """out; lengths `[sample, head, T]`: the factors of the norm."""
    sample, head = tl.program_id(0), tl.program_id(1)
    one = (sample * HEADS + head).to(tl.int64)
    columns = head * V + tl.arange(0, V)
    vs = features(v, v_taps, 0, sample, columns, stride, T, TAPS, False)
    w = tl.load(norm + tl.arange(0, V))
    for t in tl.static_range(T):
        o = mixed_frame(matrices + one * 4 * T * T, vs, t, T)
        r = tl.rsqrt(tl.sum(o * o, 0) / V + eps)
        tl.store(lengths + one * T + t, r)
        y = o * r * w
        row = (sample * T + t).to(tl.int64)
        if GATE:
            y *= _activation(_gate(gate, gate_bias, row, columns, gate_stride, GATE_BIAS), GATE)
        tl.store(out + row * HEADS * V + columns, y.to(out.dtype.element_ty))


@triton.jit
def values_backward_kernel(
    v, gate, v_taps, gate_bias, norm, matrices, lengths, dout, dv, dgate, dmatrix, dgate_bias, dnorm,
    padding, stride, gate_stride, sums_stride, PADDING: tl.constexpr, HEADS: tl.constexpr, T: tl.constexpr,
    V: tl.constexpr, TAPS: tl.constexpr, GATE: tl.constexpr, GATE_BIAS: tl.constexpr,
):  # fmt: skip
    """Of gate and activated values; dmatrix `[sample, head, T, T]`: D; this sample's part of the sums."""
    sample, head = tl.program_id(0), tl.program_id(1)
    one = (sample * HEADS + head).to(tl.int64)
    columns, mine = head * V + tl.arange(0, V), sample.to(tl.int64) * sums_stride
    w = tl.load(norm + tl.arange(0, V))
    vs = features(v, v_taps, 0, sample, columns, stride, T, TAPS, False)
    W = matrices + one * 4 * T * T
    dos, dw, dgb = (), tl.zeros([V], tl.float32), tl.zeros([V], tl.float32)
    for t in tl.static_range(T):
        row, r = (sample * T + t).to(tl.int64), tl.load(lengths + one * T + t)
        normed = mixed_frame(W, vs, t, T) * r
        dy = tl.load(dout + row * HEADS * V + columns).to(tl.float32)
        if GATE:
            z = _gate(gate, gate_bias, row, columns, gate_stride, GATE_BIAS)
            dz = dy * normed * w * _slope(z, GATE)
            tl.store(dgate + row * gate_stride + columns, dz.to(dgate.dtype.element_ty))
            dgb += dz
            dy *= _activation(z, GATE)
        dw += dy * normed
        dy *= w
        dos = dos + (r * (dy - normed * (tl.sum(dy * normed, 0) / V)),)
        if PADDING:
            _clear(padding + row * stride, head, PADDING)
    store_products(dmatrix + one * T * T, dos, vs, T)
    store_frames(dv, mixed_backward(W, dos, T), sample, columns, stride, T)
    tl.store(dnorm + mine + columns, dw)
    if GATE_BIAS:
        tl.store(dgate_bias + mine + columns, dgb)


@triton.jit
def _gate(gate, bias, row, columns, stride, GATE_BIAS: tl.constexpr):
    z = tl.load(gate + row * stride + columns).to(tl.float32)
    return z + tl.load(bias + columns) if GATE_BIAS else z


@triton.jit
def _activation(z, GATE: tl.constexpr):
    return silu(z) if GATE == 1 else sigmoid(z)


@triton.jit
def _slope(z, GATE: tl.constexpr):
    return silu_slope(z) if GATE == 1 else sigmoid(z) * sigmoid(-z)


@triton.jit
def _clear(padding, head, PADDING: tl.constexpr):
    columns = tl.arange(0, 64)
    zero = tl.zeros([64], padding.dtype.element_ty)
    tl.store(padding + columns, zero, mask=(columns < PADDING) & (head == 0))
