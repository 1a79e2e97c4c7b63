# SPDX-License-Identifier: Apache-2.0
"""Kernels of `linear_attention`: q and k of a sample and a piece of a head's channels.

    products[t, s] = sum_d q[t, d] k[s, d] a[s+1, d] ... a[t, d],    and of k with k for the delta rules

A decay never divides: what frame s wrote is multiplied by one decay after the other on its way to frame t.
"""

import triton
import triton.language as tl

from isohypse.kernels.fused.frames import (
    activated,
    add_taps,
    convolved,
    convolved_backward,
    exponential,
    features,
    load_frames,
    no_taps,
    sigmoid,
    softplus,
    store_frames,
    store_taps,
    through_silu,
)


@triton.jit
def keys_kernel(
    q, k, decay, q_taps, k_taps, A_log, bias, products, stride, decay_stride, normalizer, HEADS:
    tl.constexpr, T: tl.constexpr, K: tl.constexpr, CHUNK: tl.constexpr, TAPS: tl.constexpr, DELTA:
    tl.constexpr, CHANNELS: tl.constexpr, LOGSIGMOID: tl.constexpr,
):  # fmt: skip
    """products `[sample, head, piece, 2, T + 1, T]`: of q and of k with the faded keys; last: squares."""
    sample, piece = tl.program_id(0), tl.program_id(1)
    columns = piece * CHUNK + tl.arange(0, CHUNK)
    qs = features(q, q_taps, 0, sample, columns, stride, T, TAPS, False)
    ks = features(k, k_taps, 0, sample, columns, stride, T, TAPS, False)
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
                faded *= exponential(gs[t])
            tl.store(place + t * T + s, tl.sum(qs[t] * faded, 0))
            if DELTA:
                tl.store(other + t * T + s, tl.sum(ks[t] * faded, 0))


@triton.jit
def keys_backward_kernel(
    q, k, decay, q_taps, k_taps, A_log, bias, dproducts, dq, dk, ddecay, dq_taps, dk_taps, dA_log, dbias,
    stride, decay_stride, sums_stride, normalizer, samples, rounds, HEADS: tl.constexpr, T: tl.constexpr, K:
    tl.constexpr, CHUNK: tl.constexpr, TAPS: tl.constexpr, DELTA: tl.constexpr, CHANNELS: tl.constexpr,
    LOGSIGMOID: tl.constexpr,
):  # fmt: skip
    part, piece = tl.program_id(0), tl.program_id(1)
    columns, head = piece * CHUNK + tl.arange(0, CHUNK), piece * CHUNK // K
    mine = part.to(tl.int64) * sums_stride
    of_q, of_k, rate = no_taps(columns, TAPS), no_taps(columns, TAPS), tl.zeros([CHUNK], tl.float32)
    sum_z = tl.zeros([CHUNK], tl.float32)
    for turn in range(rounds):
        sample = part + turn * tl.num_programs(0)
        if sample < samples:
            dS = dproducts + (sample * HEADS + head).to(tl.int64) * (2 * (T + 1) * T)
            raw_q = load_frames(q, sample, columns, stride, T)
            raw_k = load_frames(k, sample, columns, stride, T)
            before_q = convolved(raw_q, q_taps, 0, columns, T, TAPS, False)
            before_k = convolved(raw_k, k_taps, 0, columns, T, TAPS, False)
            qs, ks = activated(before_q, T, TAPS), activated(before_k, T, TAPS)
            gs = qs
            if CHANNELS:
                zs, gs = _channel_decay(
                    load_frames(decay, sample, columns, decay_stride, T), A_log, bias, columns, head,
                    normalizer, T, LOGSIGMOID,
                )  # fmt: skip
            dqs, dks, dGs = _products_backward(qs, ks, gs, dS, T, DELTA, CHANNELS)
            dqs, dks = through_silu(dqs, before_q, T, TAPS), through_silu(dks, before_k, T, TAPS)
            of_q, of_k = add_taps(of_q, dqs, raw_q, T, TAPS), add_taps(of_k, dks, raw_k, T, TAPS)
            dqs = convolved_backward(dqs, q_taps, columns, T, TAPS)
            dks = convolved_backward(dks, k_taps, columns, T, TAPS)
            if CHANNELS:
                dzs, dg = (), tl.zeros([CHUNK], tl.float32)
                for i in tl.static_range(1, T + 1):  # from the last frame: later pairs have passed this one
                    dg += dGs[T - i]
                    dz = _through_decay(dg, zs[T - i], A_log, head, normalizer, LOGSIGMOID)
                    dzs, rate, sum_z = (dz,) + dzs, rate + dg * gs[T - i], sum_z + dz
                store_frames(ddecay, dzs, sample, columns, decay_stride, T)
            store_frames(dq, dqs, sample, columns, stride, T)
            store_frames(dk, dks, sample, columns, stride, T)
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
                decay *= exponential(gs[t])
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
