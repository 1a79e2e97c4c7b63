# SPDX-License-Identifier: Apache-2.0
"""What the kernels of the recurrent mixers share: a sample's frames as the registers of a thread.

A thread holds a channel (or a few) of a whole sample; its frames are a tuple of tensors `[channel]`,
unrolled when compiled. So a convolution over frames, a decay, a causal sum cost arithmetic alone: no thread
waits for another, nothing is laid out anew. Only sums over channels, the products of frames with frames,
cross threads.

A kernel of channels reads all it needs before it writes: behind a store, which might have changed it, each
operand would be loaded and waited for anew.

Matrices of frames are `[t, s]` in memory, float32, `FRAMES` wide at most.
"""

import triton
import triton.language as tl
from triton.language.extra import libdevice

FRAMES = 8
"""Longest sequence: its frames are registers, and its pairs of frames code."""

_INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)
"""Triton's interpreter has no functions of libdevice."""


@triton.jit
def load_frames(x, sample, columns, stride, T: tl.constexpr):
    """The frames of `sample` in float32, one tensor each."""
    frames = ()
    for t in tl.static_range(T):
        place = x + (sample * T + t).to(tl.int64) * stride
        frames = frames + (tl.load(place + columns).to(tl.float32),)
    return frames


@triton.jit
def store_frames(x, frames, sample, columns, stride, T: tl.constexpr):
    for t in tl.static_range(T):
        place = x + (sample * T + t).to(tl.int64) * stride
        tl.store(place + columns, frames[t].to(x.dtype.element_ty))


@triton.jit
def convolved(xs, taps, bias, columns, T: tl.constexpr, TAPS: tl.constexpr, BIAS: tl.constexpr):
    """Causal convolution; taps `[channel, tap]`, the last: the frame itself. Without taps: as it is."""
    if TAPS == 0:
        found = xs
    else:
        found = ()
        last = taps + columns * TAPS + TAPS - 1
        for t in tl.static_range(T):
            total = xs[t] * tl.load(last)
            for i in tl.static_range(1, TAPS):
                if i <= t:
                    total += xs[t - i] * tl.load(last - i)
            if BIAS:
                total += tl.load(bias + columns)
            found = found + (total,)
    return found


@triton.jit
def activated(before, T: tl.constexpr, TAPS: tl.constexpr):
    """silu behind a convolution, nothing without one."""
    if TAPS == 0:
        found = before
    else:
        found = ()
        for t in tl.static_range(T):
            found = found + (silu(before[t]),)
    return found


@triton.jit
def features(x, taps, bias, sample, columns, stride, T: tl.constexpr, TAPS: tl.constexpr, BIAS: tl.constexpr):
    """The frames of `sample`, convolved and activated."""
    before = convolved(load_frames(x, sample, columns, stride, T), taps, bias, columns, T, TAPS, BIAS)
    return activated(before, T, TAPS)


@triton.jit
def through_silu(dys, before, T: tl.constexpr, TAPS: tl.constexpr):
    """Gradient of what lies before the activation."""
    if TAPS == 0:
        found = dys
    else:
        found = ()
        for t in tl.static_range(T):
            found = found + (dys[t] * silu_slope(before[t]),)
    return found


@triton.jit
def convolved_backward(dbefore, taps, columns, T: tl.constexpr, TAPS: tl.constexpr):
    """The gradient of the convolution's input."""
    if TAPS == 0:
        found = dbefore
    else:
        found = ()
        last = taps + columns * TAPS + TAPS - 1
        for t in tl.static_range(T):
            total = dbefore[t] * tl.load(last)
            for i in tl.static_range(1, TAPS):
                if t + i < T:
                    total += dbefore[t + i] * tl.load(last - i)
            found = found + (total,)
    return found


@triton.jit
def no_taps(columns, TAPS: tl.constexpr):
    """Where the sums of `add_taps` begin."""
    found = ()
    for i in tl.static_range(TAPS + 1):
        found = found + (tl.zeros(columns.shape, tl.float32),)
    return found


@triton.jit
def add_taps(sums, dbefore, xs, T: tl.constexpr, TAPS: tl.constexpr):
    """Gradients of the taps, this frame's first, then of the bias, with this sample's part."""
    found = ()
    for i in tl.static_range(TAPS):
        total = sums[i]
        for t in tl.static_range(i, T):
            total += dbefore[t] * xs[t - i]
        found = found + (total,)
    total = sums[TAPS]
    for t in tl.static_range(T):
        total += dbefore[t]
    return found + (total,)


@triton.jit
def store_taps(dtaps, mine, sums, columns, TAPS: tl.constexpr):
    """In the order of the taps `[channel, tap]`, from element `mine`."""
    for i in tl.static_range(TAPS):
        tl.store(dtaps + mine + columns * TAPS + TAPS - 1 - i, sums[i])


@triton.jit
def square(T: tl.constexpr, SIDE: tl.constexpr):
    """Rows t, columns s of a matrix of frames, and which of the SIDE x SIDE places it has."""
    t, s = tl.arange(0, SIDE)[:, None], tl.arange(0, SIDE)[None, :]
    return t, s, (t < T) & (s < T)


@triton.jit
def _entry(place):
    """Of a matrix, or of one matrix a head if there are several: then `[1, head]`."""
    value = tl.load(place)
    if place.type.is_block():
        value = value[None, :]
    return value


@triton.jit
def mixed(W, vs, T: tl.constexpr):
    """o[t] = sum over s <= t of W[t, s] v[s]."""
    found = ()
    for t in tl.static_range(T):
        found = found + (mixed_frame(W, vs, t, T),)
    return found


@triton.jit
def mixed_frame(W, vs, t: tl.constexpr, T: tl.constexpr):
    """o[t] alone."""
    total = _entry(W + t * T) * vs[0]
    for s in tl.static_range(1, t + 1):
        total += _entry(W + t * T + s) * vs[s]
    return total


@triton.jit
def mixed_backward(W, dos, T: tl.constexpr):
    """dv[s] = sum over t >= s of W[t, s] do[t]."""
    found = ()
    for s in tl.static_range(T):
        total = _entry(W + s * T + s) * dos[s]
        for t in tl.static_range(s + 1, T):
            total += _entry(W + t * T + s) * dos[t]
        found = found + (total,)
    return found


@triton.jit
def store_products(out, a, b, T: tl.constexpr):
    """out[t, s] = a[t] . b[s] over the channels, the first axis, for s <= t."""
    for t in tl.static_range(T):
        for s in tl.static_range(t + 1):
            tl.store(out + t * T + s, tl.sum(a[t] * b[s], 0))


@triton.jit
def store_joined_products(out, a, b, T: tl.constexpr):
    """As `store_products`, four at a time: where channels lie in several warps, each sum is a barrier."""
    one = tl.arange(0, 2)[:, None] + 2 * tl.arange(0, 2)[None, :]
    for t in tl.static_range(T):
        for s in tl.static_range(0, t + 1, 4):
            four = joined_sums(
                a[t] * b[s], a[t] * b[min(s + 1, t)], a[t] * b[min(s + 2, t)], a[t] * b[min(s + 3, t)]
            )
            tl.store(out + t * T + s + one, four, mask=s + one <= t)


@triton.jit
def joined_sums(a, b, c, d):
    """Their sums over the channels, `[2, 2]`: a, c in the first row, b, d in the second."""
    return tl.sum(tl.join(tl.join(a, b), tl.join(c, d)), 0)


@triton.jit
def exponential(x):
    """exp by the GPU's own instruction, with zero for what lies below 1e-38 (`tl.exp` keeps such numbers).

    Error: 2 + |1.2 x| units of the last place (CUDA C++ Programming Guide, `__expf`).
    """
    if _INTERPRETED:
        found = tl.exp(x)
    else:
        found = libdevice.fast_expf(x)
    return found


@triton.jit
def sigmoid(x):
    """By the GPU's approximate division, off by two units of the last place at most."""
    if _INTERPRETED:
        found = 1 / (1 + tl.exp(-x))
    else:
        found = libdevice.fast_dividef(1.0, 1 + libdevice.fast_expf(-x))
    return found


@triton.jit
def silu(x):
    return x * sigmoid(x)


@triton.jit
def silu_slope(x):
    s = sigmoid(x)
    return s * (1 + x * (1 - s))


@triton.jit
def softplus(x):
    """log(1 + exp(x)), also where exp(x) is lost beside 1 (Kahan's log1p)."""
    e = tl.exp(-tl.abs(x))
    u = 1 + e
    small = tl.where(u == 1, e, tl.log(u) * e / tl.where(u == 1, 1.0, u - 1))
    return tl.maximum(x, 0.0) + small
