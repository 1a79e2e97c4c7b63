# SPDX-License-Identifier: Apache-2.0
"""Gated linear attention (GLA): a fading memory with one decay per key channel.

    S_t = Diag(alpha_t) S_{t-1} + k_t v_t^T            S [key, value] per head
    o_t = scale * S_t^T q_t

Source: Yang et al., Gated Linear Attention Transformers with Hardware-Efficient Training, arXiv:2312.06635.
Differs from its sisters: it only adds to the memory and lets it fade; the delta rules (`delta_rule`, `kda`)
first take out what the memory already holds under k_t. `ssd` is the same with one decay for the whole head.

Arguments of all forms: q, k, log_decay (ln alpha, <= 0) `[batch, frame, head, K]`;
v `[batch, frame, head, V]`; `scale` 1 / sqrt(K) by default.
Output `[batch, frame, head, V]`, state `[batch, head, K, V]`.
"""

import functools

import torch
from torch import Tensor

from isohypse.kernels.decay import channel_scores
from isohypse.kernels.precision import full_precision
from isohypse.kernels.products import running_sum, weighted_sum
from isohypse.kernels.scan import CHUNK, over_chunks, over_frames, zero_state


@full_precision
def step(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, *, state: Tensor, scale: float | None = None
) -> tuple[Tensor, Tensor]:
    """One frame, as in the paper: arguments without their frame axis -> (o_t, S_t)."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    alpha = log_decay.exp()
    S = alpha[..., None] * state + k[..., None] * v[..., None, :]
    o = torch.einsum("bhkv,bhk->bhv", S, q) * scale
    return o, S


@full_precision
def recurrent(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    *,
    scale: float | None = None,
    initial_state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The definition: `step` for every frame -> (o, final state)."""
    state = zero_state(k, v) if initial_state is None else initial_state
    return over_frames(functools.partial(step, scale=scale), (q, k, v, log_decay), state)


@full_precision
def closed(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, *, scale: float | None = None) -> Tensor:
    """One chunk from an empty state -> o.

    Unrolling the recurrence, frame t reads every value written so far, weighted by how its key, faded,
    answers q_t: o_t = scale * sum_{s<=t} A[t, s] v_s with A[t, s] = sum_d q_td k_sd exp(G_td - G_sd), G the
    running sum of ln alpha.
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    q, k, v, log_decay = (x.transpose(1, 2) for x in (q, k, v, log_decay))
    (A,) = channel_scores(k, running_sum(log_decay), q * scale)
    return weighted_sum(A, v).transpose(1, 2)


@full_precision
def chunkwise(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    *,
    scale: float | None = None,
    initial_state: Tensor | None = None,
    chunk: int = CHUNK,
) -> tuple[Tensor, Tensor]:
    """Any length -> (o, final state); a backward pass keeps one state a chunk."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    state = zero_state(k, v) if initial_state is None else initial_state
    return over_chunks(_chunk, (q * scale, k, v, log_decay), state, size=chunk, recompute=True)


def _chunk(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, S: Tensor) -> tuple[Tensor, Tensor]:
    """The closed form with a state S before the chunk; `[batch, head, frame, ...]`."""
    G = log_decay.cumsum(-2)
    end = G[..., -1:, :]
    (A,) = channel_scores(k, G, q)
    o = (q * G.exp()) @ S + A @ v
    S = end.exp().transpose(-1, -2) * S + (k * (end - G).exp()).transpose(-1, -2) @ v
    return o, S
