# SPDX-License-Identifier: Apache-2.0
"""Kimi delta attention (KDA): the delta rule on a memory that fades, one decay per key channel.

    S_t = (I - beta_t k_t k_t^T) Diag(alpha_t) S_{t-1} + beta_t k_t v_t^T            S [key, value] per head
    o_t = scale * S_t^T q_t

Source: Kimi Team, Kimi Linear: An Expressive, Efficient Attention Architecture, arXiv:2510.26692.
Differs from its sisters: `gated_delta_rule` has one alpha_t for the whole head, `gla` has the same decay but
no correction. A decay per channel cannot be factored out of k_t . k_s, so both score matrices need
`channel_scores`.

Arguments of all forms: q, k (of unit length), log_decay (ln alpha, <= 0) `[batch, frame, head, K]`;
v `[batch, frame, head, V]`; beta `[batch, frame, head]`; `scale` 1 / sqrt(K) by default.
Output `[batch, frame, head, V]`, state `[batch, head, K, V]`.
"""

import functools

import torch
from torch import Tensor

from isohypse.kernels.decay import channel_scores
from isohypse.kernels.precision import full_precision
from isohypse.kernels.products import running_sum, weighted_sum
from isohypse.kernels.scan import CHUNK, over_chunks, over_frames, zero_state
from isohypse.kernels.triangular import solve_unit_lower


@full_precision
def step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    beta: Tensor,
    *,
    state: Tensor,
    scale: float | None = None,
) -> tuple[Tensor, Tensor]:
    """One frame, as in the paper: arguments without their frame axis -> (o_t, S_t)."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    faded = log_decay.exp()[..., None] * state
    recalled = torch.einsum("bhkv,bhk->bhv", faded, k)
    u = beta[..., None] * (v - recalled)
    S = faded + k[..., None] * u[..., None, :]
    o = torch.einsum("bhkv,bhk->bhv", S, q) * scale
    return o, S


@full_precision
def recurrent(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    beta: Tensor,
    *,
    scale: float | None = None,
    initial_state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The definition: `step` for every frame -> (o, final state)."""
    state = zero_state(k, v) if initial_state is None else initial_state
    return over_frames(functools.partial(step, scale=scale), (q, k, v, log_decay, beta), state)


@full_precision
def closed(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor, *, scale: float | None = None
) -> Tensor:
    """One chunk from an empty state -> o.

    As `gated_delta_rule.closed`, the decay inside the sum over key channels d: (I + A) U = beta V with
    A[t, s] = beta_t sum_d k_td k_sd P_d[t, s] below the diagonal, o_t = scale * sum_{s<=t} M[t, s] u_s with
    M[t, s] = sum_d q_td k_sd P_d[t, s].
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    q, k, v, log_decay, beta = (x.transpose(1, 2) for x in (q, k, v, log_decay, beta))
    M, A = channel_scores(k, running_sum(log_decay), q * scale, beta[..., None] * k)
    U = solve_unit_lower(A.tril(-1), beta[..., None] * v)
    return weighted_sum(M, U).transpose(1, 2)


@full_precision
def chunkwise(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    beta: Tensor,
    *,
    scale: float | None = None,
    initial_state: Tensor | None = None,
    chunk: int = CHUNK,
) -> tuple[Tensor, Tensor]:
    """Any length -> (o, final state); a backward pass keeps one state a chunk."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    state = zero_state(k, v) if initial_state is None else initial_state
    return over_chunks(_chunk, (q * scale, k, v, log_decay, beta), state, size=chunk, recompute=True)


def _chunk(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor, S: Tensor
) -> tuple[Tensor, Tensor]:
    """The closed form with a state S before the chunk; `[batch, head, frame, ...]`."""
    G = log_decay.cumsum(-2)
    end = G[..., -1:, :]
    M, A = channel_scores(k, G, q, beta[..., None] * k)
    U = solve_unit_lower(A.tril(-1), beta[..., None] * (v - (k * G.exp()) @ S))
    o = (q * G.exp()) @ S + M @ U
    S = end.exp().transpose(-1, -2) * S + (k * (end - G).exp()).transpose(-1, -2) @ U
    return o, S
