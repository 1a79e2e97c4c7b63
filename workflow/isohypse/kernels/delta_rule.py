# SPDX-License-Identifier: Apache-2.0
"""The delta rule (DeltaNet): a memory that is corrected, not only added to.

    S_t = S_{t-1} + beta_t k_t (v_t - S_{t-1}^T k_t)^T            S [key, value] per head
    o_t = scale * S_t^T q_t

Source: Yang et al., Parallelizing Linear Transformers with the Delta Rule over Sequence Length,
arXiv:2406.06484.
Differs from its sisters: what is written is the difference between the value and what the memory recalls
under k_t, by the share beta_t in (0, 1). Nothing fades; `gated_delta_rule` adds one decay per head, `kda` one
per key channel.

Arguments of all forms: q, k (of unit length, or the memory can grow) `[batch, frame, head, K]`;
v `[batch, frame, head, V]`; beta `[batch, frame, head]`; `scale` 1 / sqrt(K) by default.
Output `[batch, frame, head, V]`, state `[batch, head, K, V]`.
"""

import functools

import torch
from torch import Tensor

from isohypse.kernels.precision import full_precision
from isohypse.kernels.products import scores, weighted_sum
from isohypse.kernels.scan import CHUNK, over_chunks, over_frames, zero_state
from isohypse.kernels.triangular import solve_unit_lower


@full_precision
def step(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, *, state: Tensor, scale: float | None = None
) -> tuple[Tensor, Tensor]:
    """One frame, as in the paper: arguments without their frame axis -> (o_t, S_t)."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    recalled = torch.einsum("bhkv,bhk->bhv", state, k)
    u = beta[..., None] * (v - recalled)
    S = state + k[..., None] * u[..., None, :]
    o = torch.einsum("bhkv,bhk->bhv", S, q) * scale
    return o, S


@full_precision
def recurrent(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    *,
    scale: float | None = None,
    initial_state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The definition: `step` for every frame -> (o, final state)."""
    state = zero_state(k, v) if initial_state is None else initial_state
    return over_frames(functools.partial(step, scale=scale), (q, k, v, beta), state)


@full_precision
def closed(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, *, scale: float | None = None) -> Tensor:
    """One chunk from an empty state -> o.

    The memory is the sum of what was written, S_t = sum_{s<=t} k_s u_s^T. Putting that into the recurrence,
    u_t = beta_t (v_t - sum_{s<t} (k_t . k_s) u_s): a triangular system (I + A) U = beta V with
    A[t, s] = beta_t k_t . k_s below the diagonal. Then o_t = scale * sum_{s<=t} (q_t . k_s) u_s.
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    q, k, v, beta = (x.transpose(1, 2) for x in (q, k, v, beta))
    A = (beta[..., None] * scores(k, k)).tril(-1)
    U = solve_unit_lower(A, beta[..., None] * v)
    return weighted_sum(scores(q * scale, k).tril(), U).transpose(1, 2)


@full_precision
def chunkwise(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    *,
    scale: float | None = None,
    initial_state: Tensor | None = None,
    chunk: int = CHUNK,
) -> tuple[Tensor, Tensor]:
    """Any length -> (o, final state)."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    state = zero_state(k, v) if initial_state is None else initial_state
    return over_chunks(_chunk, (q * scale, k, v, beta), state, size=chunk)


def _chunk(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, S: Tensor) -> tuple[Tensor, Tensor]:
    """The closed form with a state S before the chunk: it is recalled too; `[batch, head, frame, ...]`."""
    keys = k.transpose(-1, -2)
    A = (beta[..., None] * (k @ keys)).tril(-1)
    U = solve_unit_lower(A, beta[..., None] * (v - k @ S))
    o = q @ S + (q @ keys).tril() @ U
    return o, S + keys @ U
