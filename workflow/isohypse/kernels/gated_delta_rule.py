# SPDX-License-Identifier: Apache-2.0
"""The gated delta rule (Gated DeltaNet): the delta rule on a memory that fades, one decay per head.

    S_t = (I - beta_t k_t k_t^T) alpha_t S_{t-1} + beta_t k_t v_t^T            S [key, value] per head
    o_t = scale * S_t^T q_t

Source: Yang, Kautz, Hatamizadeh, Gated Delta Networks: Improving Mamba2 with Delta Rule, arXiv:2412.06464.
Differs from its sisters: the old state fades by the number alpha_t before it is recalled and corrected.
Without the fading it is `delta_rule`; with a decay per key channel it is `kda`; without the correction it is
`ssd`.

Arguments of all forms: q, k (of unit length) `[batch, frame, head, K]`; v `[batch, frame, head, V]`;
log_decay (ln alpha, <= 0) and beta `[batch, frame, head]`; `scale` 1 / sqrt(K) by default.
Output `[batch, frame, head, V]`, state `[batch, head, K, V]`.
"""

import functools

import torch
from torch import Tensor

from isohypse.kernels.decay import pairwise_decay
from isohypse.kernels.precision import full_precision
from isohypse.kernels.products import running_sum, scores, weighted_sum
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
    faded = log_decay.exp()[..., None, None] * state
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

    As `delta_rule.closed`, with what frame s wrote faded by P[t, s] = alpha_{s+1} ... alpha_t when frame t
    recalls it (in A) or reads it (in the output): (I + A) U = beta V with A[t, s] = beta_t (k_t . k_s) P[t,
    s] below the diagonal.
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    q, k, v, log_decay, beta = (x.transpose(1, 2) for x in (q, k, v, log_decay, beta))
    P = pairwise_decay(running_sum(log_decay[..., None])[..., 0])
    A = (beta[..., None] * scores(k, k) * P).tril(-1)
    U = solve_unit_lower(A, beta[..., None] * v)
    return weighted_sum(scores(q * scale, k) * P, U).transpose(1, 2)


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
    """Any length -> (o, final state)."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    state = zero_state(k, v) if initial_state is None else initial_state
    return over_chunks(_chunk, (q * scale, k, v, log_decay, beta), state, size=chunk)


def _chunk(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor, S: Tensor
) -> tuple[Tensor, Tensor]:
    """The closed form with a state S before the chunk; `[batch, head, frame, ...]`."""
    G = log_decay.cumsum(-1)[..., None]
    end = G[..., -1:, :]
    P = pairwise_decay(G[..., 0])
    keys = k.transpose(-1, -2)
    A = (beta[..., None] * (k @ keys) * P).tril(-1)
    U = solve_unit_lower(A, beta[..., None] * (v - G.exp() * (k @ S)))
    o = G.exp() * (q @ S) + ((q @ keys) * P) @ U
    S = end.exp() * S + (k * (end - G).exp()).transpose(-1, -2) @ U
    return o, S
