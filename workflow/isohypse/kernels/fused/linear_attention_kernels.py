# SPDX-License-Identifier: Apache-2.0
"""The kernels of `linear_attention`: of keys, of matrices, of values, and the same backward.

    keys_kernel              a sample, head and piece of its key channels    products of frames with frames
    matrices_kernel          a sample and head                               M, KK, the inverse, W
    values_kernel            a sample and head                               o = W V, norm, gate
    values_backward_kernel   some samples and a head                         gradients of gate and values, D = do V^T
    matrices_backward_kernel a sample and head                               gradients of the products
    keys_backward_kernel     some samples, a head and piece                  gradients of q, k and their decay

Unit length only scales rows: with raw features q^ = q / r,

    M[t, s] = r_q[t] r_k[s] M^[t, s],        sum_d dq^[t, d] q^[t, d] = sum_s dM[t, s] M[t, s]

where dq^ is the gradient at fixed r (Euler: M is linear in q^), and dq^ - q^ r^2 (that sum) the whole one. With
I the inverse, W = M I B and o = W V, B the diagonal of beta, the values leave one matrix, D = do V^T:

    dM = D B I^T,    dA = -(M I)^T dM,    dV = W^T do,    dbeta = columns of (M I) D, and what A adds

A decay never divides: what frame s wrote is multiplied by one frame's decay after the other on its way to t.
"""

import triton
import triton.language as tl

from isohypse.kernels.fused.frames import (
    activated,
    add_taps,
    convolved,
    load_frames,
    mixed,
    mixed_backward,
    no_taps,
    sigmoid,
    silu,
    silu_slope,
    softplus,
    store_convolved_backward,
    store_frames,
    store_products,
    store_taps,
    through_silu,
)


@triton.jit
def keys_kernel(
    q, k, decay, q_taps, k_taps, A_log, bias, products, stride, decay_stride, normalizer, HEADS: tl.constexpr,
    T: tl.constexpr, K: tl.constexpr, CHUNK: tl.constexpr, TAPS: tl.constexpr, DELTA: tl.constexpr,
    CHANNELS: tl.constexpr, LOGSIGMOID: tl.constexpr,
):  # fmt: skip
    """products `[sample, head, piece, 2, T + 1, T]`: of q and of k with the faded keys, last rows: squares."""
    sample, piece = tl.program_id(0), tl.program_id(1)
    columns = piece * CHUNK + tl.arange(0, CHUNK)
    qs = activated(
        convolved(load_frames(q, sample, columns, stride, T), q_taps, 0, columns, T, TAPS, False), T, TAPS
    )
    ks = activated(
        convolved(load_frames(k, sample, columns, stride, T), k_taps, 0, columns, T, TAPS, False), T, TAPS
    )
    if CHANNELS:
        _, gs = _channel_decay(
            load_frames(decay, sample, columns, decay_stride, T), A_log, bias, columns, piece * CHUNK // K,
            normalizer, T, LOGSIGMOID,
        )  # fmt: skip
    place = products + (sample * (HEADS * K // CHUNK) + piece).to(tl.int64) * (2 * (T + 1) * T)
    other = place + (T + 1) * T
    for s in tl.static_range(T):
        faded = ks[s]
        tl.store(place + s * T + s, tl.sum(qs[s] * faded, 0))
        if DELTA:
            tl.store(place + T * T + s, tl.sum(qs[s] * qs[s], 0))
            tl.store(other + T * T + s, tl.sum(ks[s] * ks[s], 0))
        for t in tl.static_range(s + 1, T):
            if CHANNELS:
                faded *= tl.exp(gs[t])
            tl.store(place + t * T + s, tl.sum(qs[t] * faded, 0))
            if DELTA:
                tl.store(other + t * T + s, tl.sum(ks[t] * faded, 0))


@triton.jit
def matrices_kernel(
    products, beta, decay, A_log, bias, matrices, factors, stride, decay_stride, scale, pieces, HEADS: tl.constexpr,
    T: tl.constexpr, SIDE: tl.constexpr, DELTA: tl.constexpr, HEAD_DECAY: tl.constexpr,
):  # fmt: skip
    """matrices `[sample, head, 4, T, T]`: W, M, KK, the inverse. factors `[sample, head, 2, T]`: to unit length."""
    sample, head = tl.program_id(0), tl.program_id(1)
    one = (sample * HEADS + head).to(tl.int64)
    t, s, there = _square(T, SIDE)
    M = _sum_of(products, one, pieces, t * T + s, there & (s <= t), T, 0)
    KK = tl.zeros([SIDE, SIDE], tl.float32)
    W = scale * M
    if HEAD_DECAY:
        _, g = _head_decay(decay, A_log, bias, sample, head, decay_stride, T, SIDE)
        W *= _pairwise(g, T, SIDE)
    if DELTA:
        KK = _sum_of(products, one, pieces, t * T + s, there & (s < t), T, 1)
        if HEAD_DECAY:
            KK *= _pairwise(g, T, SIDE)
        row = tl.arange(0, SIDE)
        rq = tl.rsqrt(_sum_of(products, one, pieces, T * T + row, row < T, T, 0) + 1e-6)
        rk = tl.rsqrt(_sum_of(products, one, pieces, T * T + row, row < T, T, 1) + 1e-6)
        tl.store(factors + one * 2 * T + row, rq, mask=row < T)
        tl.store(factors + one * 2 * T + T + row, rk, mask=row < T)
        W *= rq[:, None] * rk[None, :]
        KK *= rk[:, None] * rk[None, :]
    place = matrices + one * 4 * T * T + t * T + s
    tl.store(place + T * T, W, mask=there)
    if DELTA:
        b = _share(beta, sample, head, stride, T, SIDE)
        inverse = _inverse(b[:, None] * KK, T, SIDE)
        W = _product(W, inverse) * b[None, :]
        tl.store(place + 2 * T * T, KK, mask=there)
        tl.store(place + 3 * T * T, inverse, mask=there)
    tl.store(place, W, mask=there)


@triton.jit
def values_kernel(
    v, gate, v_taps, gate_bias, norm, matrices, out, lengths, stride, gate_stride, eps, HEADS: tl.constexpr,
    T: tl.constexpr, V: tl.constexpr, TAPS: tl.constexpr, GATE: tl.constexpr, GATE_BIAS: tl.constexpr,
):  # fmt: skip
    """out; lengths `[sample, head, T]`: the factors of the norm."""
    sample, head = tl.program_id(0), tl.program_id(1)
    one = (sample * HEADS + head).to(tl.int64)
    columns = head * V + tl.arange(0, V)
    vs = activated(
        convolved(load_frames(v, sample, columns, stride, T), v_taps, 0, columns, T, TAPS, False), T, TAPS
    )
    os = mixed(matrices + one * 4 * T * T, vs, T)
    w = tl.load(norm + tl.arange(0, V))
    for t in tl.static_range(T):
        r = tl.rsqrt(tl.sum(os[t] * os[t], 0) / V + eps)
        tl.store(lengths + one * T + t, r)
        y = os[t] * r * w
        row = (sample * T + t).to(tl.int64)
        if GATE:
            y *= _activation(_gate(gate, gate_bias, row, columns, gate_stride, GATE_BIAS), GATE)
        tl.store(out + row * HEADS * V + columns, y.to(out.dtype.element_ty))


@triton.jit
def values_backward_kernel(
    v, gate, v_taps, gate_bias, norm, matrices, lengths, dout, dv, dgate, dmatrix, dv_taps, dgate_bias, dnorm, padding,
    stride, gate_stride, sums_stride, samples, rounds, PADDING: tl.constexpr, HEADS: tl.constexpr,
    T: tl.constexpr, V: tl.constexpr, TAPS: tl.constexpr, GATE: tl.constexpr, GATE_BIAS: tl.constexpr,
):  # fmt: skip
    """Gradients of values and gate; dmatrix `[sample, head, T, T]`: D; sums over the samples of a program."""
    part, head = tl.program_id(0), tl.program_id(1)
    columns, mine = head * V + tl.arange(0, V), part.to(tl.int64) * sums_stride
    w = tl.load(norm + tl.arange(0, V))
    taps, dw, dgb = no_taps(columns, TAPS), tl.zeros([V], tl.float32), tl.zeros([V], tl.float32)
    for turn in range(rounds):
        sample = part + turn * tl.num_programs(0)
        if sample < samples:
            one = (sample * HEADS + head).to(tl.int64)
            xs = load_frames(v, sample, columns, stride, T)
            before = convolved(xs, v_taps, 0, columns, T, TAPS, False)
            vs = activated(before, T, TAPS)
            os = mixed(matrices + one * 4 * T * T, vs, T)
            dos = ()
            for t in tl.static_range(T):
                row, r = (sample * T + t).to(tl.int64), tl.load(lengths + one * T + t)
                normed = os[t] * r
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
            dbefore = through_silu(mixed_backward(matrices + one * 4 * T * T, dos, T), before, T, TAPS)
            store_convolved_backward(dv, dbefore, v_taps, sample, columns, stride, T, TAPS)
            taps = add_taps(taps, dbefore, xs, T, TAPS)
    store_taps(dv_taps, mine, taps, columns, TAPS)
    tl.store(dnorm + mine + columns, dw)
    if GATE_BIAS:
        tl.store(dgate_bias + mine + columns, dgb)


@triton.jit
def matrices_backward_kernel(
    dmatrix, beta, decay, A_log, bias, matrices, factors, dproducts, dbeta, ddecay, dA_log, dbias, stride, decay_stride,
    sums_stride, scale, HEADS: tl.constexpr, T: tl.constexpr, SIDE: tl.constexpr, DELTA: tl.constexpr,
    HEAD_DECAY: tl.constexpr,
):  # fmt: skip
    """dproducts `[sample, head, 2, T + 1, T]`: gradients of the raw products, last rows: what unit length takes."""
    sample, head = tl.program_id(0), tl.program_id(1)
    one = (sample * HEADS + head).to(tl.int64)
    t, s, there = _square(T, SIDE)
    row = tl.arange(0, SIDE)
    place = matrices + one * 4 * T * T + t * T + s
    dM = tl.load(dmatrix + one * T * T + t * T + s, mask=there & (s <= t), other=0.0)
    M = tl.load(place + T * T, mask=there, other=0.0)
    exponents, target = dM * M, dproducts + one * 2 * (T + 1) * T
    dKK = tl.zeros([SIDE, SIDE], tl.float32)
    if DELTA:
        b = _share(beta, sample, head, stride, T, SIDE)
        KK = tl.load(place + 2 * T * T, mask=there, other=0.0)
        inverse = tl.load(place + 3 * T * T, mask=there, other=0.0)
        MI = _product(M, inverse)
        D = dM
        dM = tl.where(s <= t, _product(D * b[None, :], tl.trans(inverse)), 0.0)
        dA = tl.where(s < t, -_product(tl.trans(MI), dM), 0.0)
        db = (tl.sum(MI * D, 0) + tl.sum(dA * KK, 1)) * b * (1 - b)
        places = dbeta + (sample * T + row).to(tl.int64) * stride + head
        tl.store(places, db.to(dbeta.dtype.element_ty), mask=row < T)
        dKK = b[:, None] * dA
        rq = tl.load(factors + one * 2 * T + row, mask=row < T, other=0.0)
        rk = tl.load(factors + one * 2 * T + T + row, mask=row < T, other=0.0)
        answers, corrections = dM * M, dKK * KK
        exponents = answers + corrections
        along_k = tl.sum(exponents, 0) + tl.sum(corrections, 1)
        tl.store(target + T * T + row, tl.sum(answers, 1) * rq * rq, mask=row < T)
        tl.store(target + (T + 1) * T + T * T + row, along_k * rk * rk, mask=row < T)
        dM *= rq[:, None] * rk[None, :]
        dKK *= rk[:, None] * rk[None, :]
    if HEAD_DECAY:
        z, g = _head_decay(decay, A_log, bias, sample, head, decay_stride, T, SIDE)
        P = _pairwise(g, T, SIDE)
        dM *= P
        dKK *= P
        dG = tl.sum(exponents, 1) - tl.sum(exponents, 0)
        dg = tl.sum(tl.where(s <= t, dG[:, None], 0.0), 0)  # of frame s: the pairs that it lies between
        dz = tl.where(row < T, -dg * tl.exp(tl.load(A_log + head)) * sigmoid(z), 0.0)
        places = ddecay + (sample * T + row).to(tl.int64) * decay_stride + head
        tl.store(places, dz.to(ddecay.dtype.element_ty), mask=row < T)
        tl.store(dA_log + sample.to(tl.int64) * sums_stride + head, tl.sum(dg * g, 0))
        tl.store(dbias + sample.to(tl.int64) * sums_stride + head, tl.sum(dz, 0))
    tl.store(target + t * T + s, scale * dM, mask=there)
    tl.store(target + (T + 1) * T + t * T + s, dKK, mask=there)


@triton.jit
def keys_backward_kernel(
    q, k, decay, q_taps, k_taps, A_log, bias, dproducts, dq, dk, ddecay, dq_taps, dk_taps, dA_log, dbias, stride,
    decay_stride, sums_stride, normalizer, samples, rounds, HEADS: tl.constexpr, T: tl.constexpr,
    K: tl.constexpr, CHUNK: tl.constexpr, TAPS: tl.constexpr, DELTA: tl.constexpr, CHANNELS: tl.constexpr,
    LOGSIGMOID: tl.constexpr,
):  # fmt: skip
    part, piece = tl.program_id(0), tl.program_id(1)
    columns, head, mine = (
        piece * CHUNK + tl.arange(0, CHUNK),
        piece * CHUNK // K,
        part.to(tl.int64) * sums_stride,
    )
    of_q, of_k, rate = no_taps(columns, TAPS), no_taps(columns, TAPS), tl.zeros([CHUNK], tl.float32)
    sum_z = tl.zeros([CHUNK], tl.float32)
    for turn in range(rounds):
        sample = part + turn * tl.num_programs(0)
        if sample < samples:
            dS = dproducts + (sample * HEADS + head).to(tl.int64) * (2 * (T + 1) * T)
            raw_q, raw_k = (
                load_frames(q, sample, columns, stride, T),
                load_frames(k, sample, columns, stride, T),
            )
            before_q = convolved(raw_q, q_taps, 0, columns, T, TAPS, False)
            before_k = convolved(raw_k, k_taps, 0, columns, T, TAPS, False)
            qs, ks = activated(before_q, T, TAPS), activated(before_k, T, TAPS)
            gs = qs
            if CHANNELS:
                zs, gs = _channel_decay(
                    load_frames(decay, sample, columns, decay_stride, T), A_log, bias, columns, head, normalizer, T,
                    LOGSIGMOID,
                )  # fmt: skip
            dqs, dks, dGs = _products_backward(qs, ks, gs, dS, T, DELTA, CHANNELS)
            if CHANNELS:
                dg = tl.zeros([CHUNK], tl.float32)
                for i in tl.static_range(
                    1, T + 1
                ):  # from the last frame: every later pair has passed this one
                    dg += dGs[T - i]
                    dz = _through_decay(dg, zs[T - i], A_log, head, normalizer, LOGSIGMOID)
                    place = ddecay + (sample * T + T - i).to(tl.int64) * decay_stride + columns
                    tl.store(place, dz.to(ddecay.dtype.element_ty))
                    rate += dg * gs[T - i]
                    sum_z += dz
            dqs, dks = through_silu(dqs, before_q, T, TAPS), through_silu(dks, before_k, T, TAPS)
            store_convolved_backward(dq, dqs, q_taps, sample, columns, stride, T, TAPS)
            store_convolved_backward(dk, dks, k_taps, sample, columns, stride, T, TAPS)
            of_q, of_k = add_taps(of_q, dqs, raw_q, T, TAPS), add_taps(of_k, dks, raw_k, T, TAPS)
    store_taps(dq_taps, mine, of_q, columns, TAPS)
    store_taps(dk_taps, mine, of_k, columns, TAPS)
    if CHANNELS:
        tl.store(dbias + mine + columns, sum_z)
        if not LOGSIGMOID:
            tl.store(dA_log + mine + columns, rate)


@triton.jit
def _products_backward(qs, ks, gs, dS, T: tl.constexpr, DELTA: tl.constexpr, CHANNELS: tl.constexpr):
    """Gradients of q, k and (CHANNELS) of the running sums of g, from those of the products at dS."""
    dqs, dks, dGs = (), (), ()
    dC = dS + (T + 1) * T
    for t in tl.static_range(T):
        own = tl.load(dS + t * T + t)
        dq, dk = own * ks[t], own * qs[t]
        if DELTA:
            dq -= tl.load(dS + T * T + t) * qs[t]
            dk -= tl.load(dC + T * T + t) * ks[t]
        dqs, dks, dGs = dqs + (dq,), dks + (dk,), dGs + (tl.zeros(ks[t].shape, tl.float32),)
    for s in tl.static_range(T):
        decay = tl.full(ks[s].shape, 1.0, tl.float32)
        for t in tl.static_range(s + 1, T):
            if CHANNELS:
                decay *= tl.exp(gs[t])
            faded, towards = decay * ks[s], tl.load(dS + t * T + s) * qs[t]
            dq = tl.load(dS + t * T + s) * faded
            if DELTA:
                correction = tl.load(dC + t * T + s)
                towards += correction * ks[t]
                dks = _with(dks, t, correction * faded, T)
            dqs, dks = _with(dqs, t, dq, T), _with(dks, s, towards * decay, T)
            if CHANNELS:
                dGs = _with(_with(dGs, t, towards * faded, T), s, -towards * faded, T)
    return dqs, dks, dGs


@triton.jit
def _with(values, place: tl.constexpr, more, T: tl.constexpr):
    """`values` with `more` added to one of them."""
    found = ()
    for t in tl.static_range(T):
        if t == place:
            found = found + (values[t] + more,)
        else:
            found = found + (values[t],)
    return found


@triton.jit
def _square(T: tl.constexpr, SIDE: tl.constexpr):
    t, s = tl.arange(0, SIDE)[:, None], tl.arange(0, SIDE)[None, :]
    return t, s, (t < T) & (s < T)


@triton.jit
def _sum_of(products, one, pieces, place, there, T: tl.constexpr, which: tl.constexpr):
    """Of the products of all pieces of a head."""
    total = tl.zeros(place.shape, tl.float32)
    for piece in range(pieces):
        start = products + ((one * pieces + piece) * 2 + which) * (T + 1) * T
        total += tl.load(start + place, mask=there, other=0.0)
    return total


@triton.jit
def _share(beta, sample, head, stride, T: tl.constexpr, SIDE: tl.constexpr):
    row = tl.arange(0, SIDE)
    places = beta + (sample * T + row).to(tl.int64) * stride + head
    return sigmoid(tl.load(places, mask=row < T, other=0.0).to(tl.float32))


@triton.jit
def _head_decay(decay, A_log, bias, sample, head, stride, T: tl.constexpr, SIDE: tl.constexpr):
    """What softplus sees and ln alpha, `[frame]`."""
    row = tl.arange(0, SIDE)
    places = decay + (sample * T + row).to(tl.int64) * stride + head
    z = tl.load(places, mask=row < T, other=0.0).to(tl.float32) + tl.load(bias + head)
    return z, -tl.exp(tl.load(A_log + head)) * softplus(z)


@triton.jit
def _pairwise(g, T: tl.constexpr, SIDE: tl.constexpr):
    """exp(g[s+1] + ... + g[t])."""
    t, s, there = _square(T, SIDE)
    G = tl.sum(tl.where(s <= t, g[None, :], 0.0), 1)
    seen = there & (s <= t)
    return tl.where(seen, tl.exp(tl.where(seen, G[:, None] - tl.trans(G[:, None]), 0.0)), 0.0)


@triton.jit
def _product(a, b):
    return tl.sum(a[:, :, None] * b[None, :, :], 1)


@triton.jit
def _inverse(A, T: tl.constexpr, SIDE: tl.constexpr):
    """(I + A)^-1 = (I - A)(I + A^2)(I + A^4) of a strictly lower triangle: exact, A^8 = 0.

    With 8 frames its terms stay small enough for float32; `kernels/triangular.py` says why that ends.
    """
    t, s, _ = _square(T, SIDE)
    power = -A
    inverse = tl.where(t == s, 1.0, power)
    if T > 2:
        power = _product(power, power)
        inverse += _product(inverse, power)
    if T > 4:
        power = _product(power, power)
        inverse += _product(inverse, power)
    return inverse


@triton.jit
def _channel_decay(raw, A_log, bias, columns, head, normalizer, T: tl.constexpr, LOGSIGMOID: tl.constexpr):
    """What softplus sees and ln alpha, one tensor a frame."""
    zs, gs = (), ()
    for t in tl.static_range(T):
        z = raw[t] + tl.load(bias + columns)
        if LOGSIGMOID:
            g = -softplus(-z) / normalizer
        else:
            g = -tl.exp(tl.load(A_log + head)) * softplus(z)
        zs, gs = zs + (z,), gs + (g,)
    return zs, gs


@triton.jit
def _through_decay(dg, z, A_log, head, normalizer, LOGSIGMOID: tl.constexpr):
    if LOGSIGMOID:
        dz = dg * sigmoid(-z) / normalizer
    else:
        dz = -dg * tl.exp(tl.load(A_log + head)) * sigmoid(z)
    return dz


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
