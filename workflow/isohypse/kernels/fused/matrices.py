# SPDX-License-Identifier: Apache-2.0
"""Kernels of `linear_attention`: the matrices of frames of a sample and head.

Unit length only scales rows: with raw features q^ = q / r,

    M[t, s] = r_q[t] r_k[s] M^[t, s],        sum_d dq^[t, d] q^[t, d] = sum_s dM[t, s] M[t, s]

where dq^ is the gradient at fixed r (Euler: M is linear in q^), and dq^ - q^ r^2 (that sum) the whole one.
With I the inverse of one plus A = B KK, W = M I B and B the diagonal of beta, the values leave D = do V^T:

    dM = D B I^T,    dA = -(M I)^T dM,    dbeta = columns of (M I) D, and what A adds
"""

import triton
import triton.language as tl

from isohypse.kernels.fused.frames import sigmoid, softplus, square


@triton.jit
def matrices_kernel(
    products, beta, decay, A_log, bias, matrices, factors, stride, decay_stride, scale, pieces, HEADS:
    tl.constexpr, T: tl.constexpr, SIDE: tl.constexpr, DELTA: tl.constexpr, HEAD_DECAY: tl.constexpr,
):  # fmt: skip
    """matrices `[sample, head, 4, T, T]`: W, M, KK, inverse; factors `[sample, head, 2, T]`: unit length."""
    sample, head = tl.program_id(0), tl.program_id(1)
    one = (sample * HEADS + head).to(tl.int64)
    t, s, there = square(T, SIDE)
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
def matrices_backward_kernel(
    dmatrix, beta, decay, A_log, bias, matrices, factors, dproducts, dbeta, ddecay, dA_log, dbias, stride,
    decay_stride, sums_stride, scale, HEADS: tl.constexpr, T: tl.constexpr, SIDE: tl.constexpr, DELTA:
    tl.constexpr, HEAD_DECAY: tl.constexpr,
):  # fmt: skip
    """dproducts `[sample, head, 2, T + 1, T]`: of the raw products; last rows: what unit length takes."""
    sample, head = tl.program_id(0), tl.program_id(1)
    one = (sample * HEADS + head).to(tl.int64)
    t, s, there = square(T, SIDE)
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
    t, s, there = square(T, SIDE)
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
    t, s, _ = square(T, SIDE)
    power = -A
    inverse = tl.where(t == s, 1.0, power)
    if T > 2:
        power = _product(power, power)
        inverse += _product(inverse, power)
    if T > 4:
        power = _product(power, power)
        inverse += _product(inverse, power)
    return inverse
