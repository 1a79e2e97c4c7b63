# SPDX-License-Identifier: Apache-2.0
"""The kernels of `ssd`.

    answers_kernel           a sample and piece of the state     C B^T
    heads_kernel             a sample and head                   u = y * silu(z) and the sums of its squares
    normalise_kernel         a row                               out = u r w, in place
    means_kernel             a row                               mean of out * dout
    heads_backward_kernel    a sample and head                   gradients of z, x, dt and of C B^T
    answers_backward_kernel  a sample and piece                  gradients of B and C

What a head does with its frames is a matrix M[t, s] = (C B^T)[t, s] P[t, s] dt[s]; its entries are numbers
that all threads of a program hold, in the order of s, then t >= s.
"""

import triton
import triton.language as tl

from isohypse.kernels.fused.frames import (
    exponential,
    features,
    mixed,
    mixed_backward,
    sigmoid,
    silu,
    silu_slope,
    softplus,
    store_frames,
    store_products,
)


@triton.jit
def answers_kernel(
    xBC, taps, tap_bias, answers, stride, first: tl.constexpr, T: tl.constexpr, N: tl.constexpr, CHUNK:
    tl.constexpr, TAPS: tl.constexpr,
):  # fmt: skip
    sample, piece = tl.program_id(0), tl.program_id(1)
    columns = first + piece * CHUNK + tl.arange(0, CHUNK)
    Bs = features(xBC, taps, tap_bias, sample, columns, stride, T, TAPS, True)
    columns += N
    Cs = features(xBC, taps, tap_bias, sample, columns, stride, T, TAPS, True)
    store_products(answers + (sample * (N // CHUNK) + piece).to(tl.int64) * T * T, Cs, Bs, T)


@triton.jit
def heads_kernel(
    z, xBC, dt, taps, tap_bias, A_log, dt_bias, D, answers, u, squares, stride, rows, HEADS: tl.constexpr,
    T: tl.constexpr, P: tl.constexpr, PIECES: tl.constexpr, TAPS: tl.constexpr,
):  # fmt: skip
    sample, head = tl.program_id(0), tl.program_id(1)
    columns = head * P + tl.arange(0, P)
    xs = features(xBC, taps, tap_bias, sample, columns, stride, T, TAPS, True)
    _, steps, gs = _steps(dt, dt_bias, A_log, sample, head, stride, T)
    faded, _ = _faded(answers + sample.to(tl.int64) * PIECES * T * T, gs, T, PIECES)
    ys = _through(faded, steps, xs, tl.load(D + head), T)
    for t in tl.static_range(T):
        row = (sample * T + t).to(tl.int64)
        gated = ys[t] * silu(tl.load(z + row * stride + columns).to(tl.float32))
        kept = gated.to(u.dtype.element_ty)
        tl.store(u + row * HEADS * P + columns, kept)
        tl.store(squares + head * rows + row, tl.sum(kept.to(tl.float32) * kept.to(tl.float32), 0))


@triton.jit
def normalise_kernel(
    u, squares, norm, reciprocal, rows, heads, width, eps, BLOCK: tl.constexpr, HEAD_BLOCK: tl.constexpr
):
    row = tl.program_id(0)
    head, columns = tl.arange(0, HEAD_BLOCK), tl.arange(0, BLOCK)
    square = tl.sum(tl.load(squares + head * rows + row, mask=head < heads, other=0.0))
    r = tl.rsqrt(square / width + eps)
    places, there = row.to(tl.int64) * width + columns, columns < width
    value = tl.load(u + places, mask=there).to(tl.float32) * r * tl.load(norm + columns, mask=there)
    tl.store(u + places, value.to(u.dtype.element_ty), mask=there)
    tl.store(reciprocal + row, r)


@triton.jit
def means_kernel(out, dout, means, width, BLOCK: tl.constexpr):
    row, columns = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    a = tl.load(out + row * width + columns, mask=columns < width, other=0.0).to(tl.float32)
    b = tl.load(dout + row * width + columns, mask=columns < width, other=0.0).to(tl.float32)
    tl.store(means + row, tl.sum(a * b) / width)


@triton.jit
def heads_backward_kernel(
    z, xBC, dt, taps, tap_bias, A_log, dt_bias, D, norm, answers, reciprocal, means, dout, dz, dxBC, ddt,
    danswers, dA_log, ddt_bias, dD, dnorm, stride, sums_stride, HEADS: tl.constexpr, T: tl.constexpr, P:
    tl.constexpr, PIECES: tl.constexpr, TAPS: tl.constexpr,
):  # fmt: skip
    """dxBC: of the activated x, as yet. danswers `[head, sample, T, T]`."""
    sample, head = tl.program_id(0), tl.program_id(1)
    columns, mine = head * P + tl.arange(0, P), sample.to(tl.int64) * sums_stride
    w, d, rate = tl.load(norm + columns), tl.load(D + head), -tl.exp(tl.load(A_log + head))
    dw, dd = tl.zeros([P], tl.float32), tl.zeros([P], tl.float32)
    xs = features(xBC, taps, tap_bias, sample, columns, stride, T, TAPS, True)
    raw, steps, gs = _steps(dt, dt_bias, A_log, sample, head, stride, T)
    faded, decays = _faded(answers + sample.to(tl.int64) * PIECES * T * T, gs, T, PIECES)
    ys = _through(faded, steps, xs, d, T)
    dys = ()
    for t in tl.static_range(T):
        row = (sample * T + t).to(tl.int64)
        r, mean = tl.load(reciprocal + row), tl.load(means + row)
        gate = tl.load(z + row * stride + columns).to(tl.float32)
        dy = tl.load(dout + row * HEADS * P + columns).to(tl.float32)
        normed = ys[t] * silu(gate) * r
        dw += dy * normed
        du = r * (w * dy - normed * mean)
        tl.store(dz + row * stride + columns, (du * ys[t] * silu_slope(gate)).to(dz.dtype.element_ty))
        dys = dys + (du * silu(gate),)
        dd += dys[t] * xs[t]
    place = danswers + (head * tl.num_programs(0) + sample).to(tl.int64) * T * T
    dsteps, dGs = _faded_backward(dys, xs, faded, decays, steps, place, T)
    dg, of_rate, of_bias = 0.0, 0.0, 0.0
    for i in tl.static_range(1, T + 1):  # from the last frame: every later pair has passed this one
        dg += dGs[T - i]
        of_rate += dg * gs[T - i]
        draw = (dsteps[T - i] + dg * rate) * sigmoid(raw[T - i])
        of_bias += draw
        target = ddt + (sample * T + T - i).to(tl.int64) * stride + head
        tl.store(target, draw.to(ddt.dtype.element_ty))
    store_frames(dxBC, _through_backward(faded, steps, dys, d, T), sample, columns, stride, T)
    tl.store(dnorm + mine + columns, dw)
    tl.store(dD + mine + head, tl.sum(dd, 0))
    tl.store(dA_log + mine + head, of_rate)
    tl.store(ddt_bias + mine + head, of_bias)


@triton.jit
def answers_backward_kernel(
    xBC, taps, tap_bias, danswers, dxBC, stride, first: tl.constexpr, T: tl.constexpr, N: tl.constexpr,
    CHUNK: tl.constexpr, TAPS: tl.constexpr,
):  # fmt: skip
    """Of the activated B and C, as yet."""
    sample, of_B = tl.program_id(0), first + tl.program_id(1) * CHUNK + tl.arange(0, CHUNK)
    of_C = of_B + N
    Bs = features(xBC, taps, tap_bias, sample, of_B, stride, T, TAPS, True)
    Cs = features(xBC, taps, tap_bias, sample, of_C, stride, T, TAPS, True)
    matrix = danswers + sample.to(tl.int64) * T * T
    store_frames(dxBC, mixed_backward(matrix, Cs, T), sample, of_B, stride, T)
    store_frames(dxBC, mixed(matrix, Bs, T), sample, of_C, stride, T)


@triton.jit
def _steps(dt, dt_bias, A_log, sample, head, stride, T: tl.constexpr):
    """Of each frame: what softplus sees, dt, the log decay."""
    raw, steps, gs = (), (), ()
    for t in tl.static_range(T):
        value = tl.load(dt + (sample * T + t).to(tl.int64) * stride + head).to(tl.float32) + tl.load(
            dt_bias + head
        )
        step = softplus(value)
        raw, steps, gs = raw + (value,), steps + (step,), gs + (-tl.exp(tl.load(A_log + head)) * step,)
    return raw, steps, gs


@triton.jit
def _faded(answers, gs, T: tl.constexpr, PIECES: tl.constexpr):
    """(C B^T)[t, s] P[t, s] and P[t, s], in the order of s, then t."""
    found, decays = (), ()
    for s in tl.static_range(T):
        decay = 1.0
        for t in tl.static_range(s, T):
            if t > s:
                decay *= exponential(gs[t])
            answer = tl.load(answers + t * T + s)
            for piece in tl.static_range(1, PIECES):
                answer += tl.load(answers + piece * T * T + t * T + s)
            found, decays = found + (answer * decay,), decays + (decay,)
    return found, decays


@triton.jit
def _through(faded, steps, xs, d, T: tl.constexpr):
    """y of x."""
    ys = ()
    for t in tl.static_range(T):
        total = d * xs[t]
        for s in tl.static_range(t + 1):
            total += faded[s * T - s * (s - 1) // 2 + t - s] * steps[s] * xs[s]
        ys = ys + (total,)
    return ys


@triton.jit
def _through_backward(faded, steps, dys, d, T: tl.constexpr):
    """dx of dy."""
    dxs = ()
    for s in tl.static_range(T):
        total = tl.zeros(dys[s].shape, tl.float32)
        for t in tl.static_range(s, T):
            total += faded[s * T - s * (s - 1) // 2 + t - s] * dys[t]
        dxs = dxs + (d * dys[s] + steps[s] * total,)
    return dxs


@triton.jit
def _faded_backward(dys, xs, faded, decays, steps, danswers, T: tl.constexpr):
    """Writes the gradient of C B^T; returns those of dt (beside the decay) and of the running sums of g."""
    dsteps, shares = (), ()
    for s in tl.static_range(T):
        dstep = 0.0
        for t in tl.static_range(s, T):
            dM = tl.sum(dys[t] * xs[s], 0)
            tl.store(danswers + t * T + s, dM * decays[s * T - s * (s - 1) // 2 + t - s] * steps[s])
            share = dM * faded[s * T - s * (s - 1) // 2 + t - s]
            dstep += share
            shares = shares + (share * steps[s],)
        dsteps = dsteps + (dstep,)
    dGs = ()
    for t in tl.static_range(T):  # of a pair: the later frame gains, the earlier one loses
        dG = 0.0
        for s in tl.static_range(t):
            dG += shares[s * T - s * (s - 1) // 2 + t - s]
        for later in tl.static_range(t + 1, T):
            dG -= shares[t * T - t * (t - 1) // 2 + later - t]
        dGs = dGs + (dG,)
    return dsteps, dGs
