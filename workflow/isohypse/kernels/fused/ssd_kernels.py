# SPDX-License-Identifier: Apache-2.0
"""The kernels of `ssd`.

    answers_kernel            a sample and piece of the state    C B^T
    matrices_kernel           a sample and some heads            W = C B^T P dt, and D on the diagonal
    heads_kernel              a sample and some heads            u = (W x) * silu(z), the sums of its squares
    normalise_kernel          a row                              out = u r w, in place
    means_kernel              a row                              mean of out * dout
    heads_backward_kernel     some samples and a head            gradients of z, x, W, of norm and taps
    matrices_backward_kernel  a sample, all heads                gradients of dt, C B^T and a head's numbers
    answers_backward_kernel   some samples, a piece              gradients of B, C and their taps

What a head does with its frames is a matrix, made once by threads that share its entries, so that the threads
of its channels only read it. Forward, two heads in a warp: a sum over a head's channels crosses half of the
threads.
"""

import triton
import triton.language as tl

from isohypse.kernels.fused.frames import (
    activated,
    add_taps,
    convolved,
    convolved_backward,
    features,
    load_frames,
    mixed,
    mixed_backward,
    mixed_frame,
    no_taps,
    sigmoid,
    silu,
    silu_slope,
    softplus,
    square,
    store_frames,
    store_products,
    store_taps,
    through_silu,
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
def matrices_kernel(
    dt, dt_bias, A_log, D, answers, matrices, stride, HEADS: tl.constexpr, BLOCK: tl.constexpr, T:
    tl.constexpr, SIDE: tl.constexpr, PIECES: tl.constexpr,
):  # fmt: skip
    """matrices `[sample, head, T, T]`: W, its lower triangle."""
    sample, heads = tl.program_id(0), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    t, s, there = square(T, SIDE)
    _, steps, _, P = _decays(dt, dt_bias, A_log, sample, heads, heads < HEADS, stride, T, SIDE)
    answer = _answer(answers, sample, T, SIDE, PIECES)
    W = answer[None, :, :] * P * steps[:, None, :]
    W += tl.where((t == s)[None, :, :], tl.load(D + heads)[:, None, None], 0.0)
    place = matrices + (sample * HEADS + heads).to(tl.int64)[:, None, None] * T * T + (t * T + s)[None, :, :]
    tl.store(place, W, mask=there[None, :, :])


@triton.jit
def heads_kernel(
    z, xBC, taps, tap_bias, matrices, u, squares, stride, rows, HEADS: tl.constexpr, BLOCK: tl.constexpr, T:
    tl.constexpr, P: tl.constexpr, TAPS: tl.constexpr,
):  # fmt: skip
    """squares `[head, row]`."""
    sample, heads = tl.program_id(0), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    columns = heads[None, :] * P + tl.arange(0, P)[:, None]
    xs = features(xBC, taps, tap_bias, sample, columns, stride, T, TAPS, True)
    W = matrices + (sample * HEADS + heads).to(tl.int64) * T * T
    gates, us = load_frames(z, sample, columns, stride, T), ()
    for t in tl.static_range(T):
        us = us + ((mixed_frame(W, xs, t, T) * silu(gates[t])).to(u.dtype.element_ty),)
    store_frames(u, us, sample, columns, HEADS * P, T)
    for t in tl.static_range(T):
        kept = us[t].to(tl.float32)
        tl.store(squares + heads * rows + sample * T + t, tl.sum(kept * kept, 0))


@triton.jit
def normalise_kernel(
    u, squares, norm, reciprocal, rows, heads, width, eps, BLOCK: tl.constexpr, HEAD_BLOCK: tl.constexpr
):
    row = tl.program_id(0)
    head, columns = tl.arange(0, HEAD_BLOCK), tl.arange(0, BLOCK)
    square_sum = tl.sum(tl.load(squares + head * rows + row, mask=head < heads, other=0.0))
    r = tl.rsqrt(square_sum / width + eps)
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
    z, xBC, taps, tap_bias, norm, matrices, reciprocal, means, dout, dz, dxBC, dmatrices, dtaps, dtap_bias,
    dnorm, stride, sums_stride, samples, rounds, HEADS: tl.constexpr, BLOCK: tl.constexpr, T: tl.constexpr,
    P: tl.constexpr, TAPS: tl.constexpr,
):  # fmt: skip
    """dmatrices as matrices; the sums are of this program's samples."""
    part, heads = tl.program_id(0), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    columns = heads[None, :] * P + tl.arange(0, P)[:, None]
    w, dw, of_taps = tl.load(norm + columns), tl.zeros([P, BLOCK], tl.float32), no_taps(columns, TAPS)
    for turn in range(rounds):
        sample = part + turn * tl.num_programs(0)
        if sample < samples:
            matrix = (sample * HEADS + heads).to(tl.int64) * T * T
            raw = load_frames(xBC, sample, columns, stride, T)
            before = convolved(raw, taps, tap_bias, columns, T, TAPS, True)
            xs, W = activated(before, T, TAPS), matrices + matrix
            dys, dzs, dw = _gate_backward(
                W, xs, load_frames(z, sample, columns, stride, T), load_frames(dout, sample, columns, HEADS *
                P, T), w, reciprocal + sample * T, means + sample * T, dw, dz.dtype.element_ty, T,
            )  # fmt: skip
            dbefore = through_silu(mixed_backward(W, dys, T), before, T, TAPS)
            dxs = convolved_backward(dbefore, taps, columns, T, TAPS)
            store_frames(dz, dzs, sample, columns, stride, T)
            store_frames(dxBC, dxs, sample, columns, stride, T)
            store_products(dmatrices + matrix, dys, xs, T)
            of_taps = add_taps(of_taps, dbefore, raw, T, TAPS)
    mine = part.to(tl.int64) * sums_stride
    store_taps(dtaps, mine, of_taps, columns, TAPS)
    tl.store(dtap_bias + mine + columns, of_taps[TAPS])
    tl.store(dnorm + mine + columns, dw)


@triton.jit
def _gate_backward(W, xs, gates, dys, w, reciprocal, means, dw, dtype: tl.constexpr, T: tl.constexpr):
    """Through norm and gate: gradients of y and z, frame by frame, and `dw` with this sample's part."""
    found, dzs = (), ()
    for t in tl.static_range(T):
        r, y = tl.load(reciprocal + t), mixed_frame(W, xs, t, T)
        normed = y * silu(gates[t]) * r
        dw += dys[t] * normed
        du = r * (w * dys[t] - normed * tl.load(means + t))
        dzs = dzs + ((du * y * silu_slope(gates[t])).to(dtype),)
        found = found + (du * silu(gates[t]),)
    return found, dzs, dw


@triton.jit
def matrices_backward_kernel(
    dmatrices, dt, dt_bias, A_log, answers, danswers, ddt, dA_log, ddt_bias, dD, stride, sums_stride, HEADS:
    tl.constexpr, BLOCK: tl.constexpr, T: tl.constexpr, SIDE: tl.constexpr, PIECES: tl.constexpr,
):  # fmt: skip
    """danswers `[sample, T, T]`; BLOCK: all heads. With W = S P dt, P = exp(G[t] - G[s]), G the sums of g."""
    sample, heads = tl.program_id(0), tl.arange(0, BLOCK)
    here = heads < HEADS
    t, s, there = square(T, SIDE)
    raw, steps, g, P = _decays(dt, dt_bias, A_log, sample, heads, here, stride, T, SIDE)
    place = dmatrices + (sample * HEADS + heads).to(tl.int64)[:, None, None] * T * T + (t * T + s)[None, :, :]
    dW = tl.load(place, mask=(there & (s <= t))[None, :, :] & here[:, None, None], other=0.0)
    share = dW * P
    of_answers = tl.sum(share * steps[:, None, :], 0)
    tl.store(danswers + sample.to(tl.int64) * T * T + t * T + s, of_answers, mask=there)
    share *= _answer(answers, sample, T, SIDE, PIECES)[None, :, :]
    of_steps = tl.sum(share, 1)
    share *= steps[:, None, :]
    dG = tl.sum(share, 2) - tl.sum(share, 1)  # of a pair: the later frame gains, the earlier one loses
    dg = tl.sum(tl.where((s <= t)[None, :, :], dG[:, :, None], 0.0), 1)
    rate = -tl.exp(tl.load(A_log + heads, mask=here, other=0.0))
    draw = (of_steps + dg * rate[:, None]) * sigmoid(raw)
    frame = tl.arange(0, SIDE)
    seen = here[:, None] & (frame < T)[None, :]
    target = ddt + (sample * T + frame).to(tl.int64)[None, :] * stride + heads[:, None]
    tl.store(target, draw.to(ddt.dtype.element_ty), mask=seen)
    mine = sample.to(tl.int64) * sums_stride + heads
    tl.store(dA_log + mine, tl.sum(dg * g, 1), mask=here)
    tl.store(ddt_bias + mine, tl.sum(tl.where(seen, draw, 0.0), 1), mask=here)
    own = tl.where((t == s)[None, :, :], dW, 0.0)
    tl.store(dD + mine, tl.sum(tl.sum(own, 2), 1), mask=here)


@triton.jit
def answers_backward_kernel(
    xBC, taps, tap_bias, danswers, dxBC, dtaps, dtap_bias, stride, sums_stride, samples, rounds, first:
    tl.constexpr, T: tl.constexpr, N: tl.constexpr, CHUNK: tl.constexpr, TAPS: tl.constexpr,
):  # fmt: skip
    part, of_B = tl.program_id(0), first + tl.program_id(1) * CHUNK + tl.arange(0, CHUNK)
    of_C, sums_B, sums_C = of_B + N, no_taps(of_B, TAPS), no_taps(of_B, TAPS)
    for turn in range(rounds):
        sample = part + turn * tl.num_programs(0)
        if sample < samples:
            raw_B, raw_C = (
                load_frames(xBC, sample, of_B, stride, T),
                load_frames(xBC, sample, of_C, stride, T),
            )
            before_B = convolved(raw_B, taps, tap_bias, of_B, T, TAPS, True)
            before_C = convolved(raw_C, taps, tap_bias, of_C, T, TAPS, True)
            matrix = danswers + sample.to(tl.int64) * T * T
            dBs = mixed_backward(matrix, activated(before_C, T, TAPS), T)
            dCs = mixed(matrix, activated(before_B, T, TAPS), T)
            dBs, dCs = through_silu(dBs, before_B, T, TAPS), through_silu(dCs, before_C, T, TAPS)
            sums_B, sums_C = add_taps(sums_B, dBs, raw_B, T, TAPS), add_taps(sums_C, dCs, raw_C, T, TAPS)
            dBs = convolved_backward(dBs, taps, of_B, T, TAPS)
            dCs = convolved_backward(dCs, taps, of_C, T, TAPS)
            store_frames(dxBC, dBs, sample, of_B, stride, T)
            store_frames(dxBC, dCs, sample, of_C, stride, T)
    mine = part.to(tl.int64) * sums_stride
    store_taps(dtaps, mine, sums_B, of_B, TAPS)
    store_taps(dtaps, mine, sums_C, of_C, TAPS)
    tl.store(dtap_bias + mine + of_B, sums_B[TAPS])
    tl.store(dtap_bias + mine + of_C, sums_C[TAPS])


@triton.jit
def _decays(dt, dt_bias, A_log, sample, heads, here, stride, T: tl.constexpr, SIDE: tl.constexpr):
    """Of each head and frame: what softplus sees, dt, the log decay g; and P `[head, t, s]`."""
    frame = tl.arange(0, SIDE)
    t, s, there = square(T, SIDE)
    seen = here[:, None] & (frame < T)[None, :]
    places = dt + (sample * T + frame).to(tl.int64)[None, :] * stride + heads[:, None]
    raw = tl.load(places, mask=seen, other=0.0).to(tl.float32)
    raw += tl.load(dt_bias + heads, mask=here, other=0.0)[:, None]
    steps = softplus(raw)
    g = -tl.exp(tl.load(A_log + heads, mask=here, other=0.0))[:, None] * steps
    later = tl.sum(tl.where((s <= t)[None, :, :], g[:, None, :], 0.0), 2)
    sooner = tl.sum(tl.where((t <= s)[None, :, :], g[:, :, None], 0.0), 1)  # the same sums, along s
    pair = (there & (s <= t))[None, :, :]
    P = tl.where(pair, tl.exp(tl.where(pair, later[:, :, None] - sooner[:, None, :], 0.0)), 0.0)
    return raw, steps, g, P


@triton.jit
def _answer(answers, sample, T: tl.constexpr, SIDE: tl.constexpr, PIECES: tl.constexpr):
    """C B^T `[t, s]`, its lower triangle."""
    t, s, there = square(T, SIDE)
    place = answers + sample.to(tl.int64) * PIECES * T * T + t * T + s
    total = tl.zeros([SIDE, SIDE], tl.float32)
    for piece in tl.static_range(PIECES):
        total += tl.load(place + piece * T * T, mask=there & (s <= t), other=0.0)
    return total
