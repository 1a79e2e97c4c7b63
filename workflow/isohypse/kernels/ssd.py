# SPDX-License-Identifier: Apache-2.0
"""State space duality (SSD), the recurrence of Mamba2: a linear system with one decay per head.

    S_t = exp(dt_t A) S_{t-1} + dt_t B_t x_t^T            S [state, channel] per head
    y_t = S_t^T C_t + D x_t

Source: Dao, Gu, Transformers are SSMs, arXiv:2405.21060.
Differs from its sisters: it is `gla` with C for q, B for k, dt x for v, no scale, and a decay that is one
number per head and tied to the step dt with which the frame is written. Heads of a group share B and C.

Arguments of all forms: x `[batch, frame, head, P]`; dt > 0 `[batch, frame, head]`; A < 0 `[head]` (a rate,
not its logarithm); B, C `[batch, frame, group, N]`, `head` a multiple of `group`; D `[head]` or None.
Output `[batch, frame, head, P]`, state `[batch, head, N, P]` (mamba-ssm keeps it transposed).
"""

import torch
from torch import Tensor

from isohypse.kernels.decay import pairwise_decay
from isohypse.kernels.precision import full_precision
from isohypse.kernels.products import running_sum, scores, weighted_sum
from isohypse.kernels.scan import CHUNK, over_chunks, over_frames, zero_state


@full_precision
def step(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None = None, *, state: Tensor
) -> tuple[Tensor, Tensor]:
    """One frame, as in the paper: sequences without their frame axis -> (y_t, S_t)."""
    B, C = (_for_each_head(z, x.shape[-2]) for z in (B, C))
    S = (dt * A).exp()[..., None, None] * state + (dt[..., None] * B)[..., None] * x[..., None, :]
    y = torch.einsum("bhnp,bhn->bhp", S, C)
    return _with_feedthrough(y, D, x), S


@full_precision
def recurrent(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    *,
    initial_state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The definition: `step` for every frame -> (y, final state)."""
    state = zero_state(B, x) if initial_state is None else initial_state
    return over_frames(lambda x, dt, B, C, state: step(x, dt, A, B, C, D, state=state), (x, dt, B, C), state)


@full_precision
def closed(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None = None) -> Tensor:
    """One chunk from an empty state -> y.

    y_t = sum_{s<=t} (C_t . B_s) P[t, s] dt_s x_s + D x_t with P[t, s] = exp(A (dt_{s+1} + ... + dt_t)): the
    1-semiseparable matrix of the paper.
    """
    heads = x.shape[2]
    xs, steps, Bs, Cs = (z.transpose(1, 2) for z in (x, dt, B, C))
    P = pairwise_decay(running_sum((steps * A[:, None])[..., None])[..., 0])
    answers = scores(Cs, Bs).repeat_interleave(heads // Bs.shape[1], 1)
    y = weighted_sum(answers * P, steps[..., None] * xs)
    return _with_feedthrough(y.transpose(1, 2), D, x)


@full_precision
def chunkwise(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    *,
    initial_state: Tensor | None = None,
    chunk: int = CHUNK,
) -> tuple[Tensor, Tensor]:
    """Any length -> (y, final state)."""
    state = zero_state(B, x) if initial_state is None else initial_state
    y, state = over_chunks(_chunk, (dt[..., None] * x, dt * A, B, C), state, size=chunk)
    return _with_feedthrough(y, D, x), state


def _chunk(v: Tensor, log_decay: Tensor, B: Tensor, C: Tensor, S: Tensor) -> tuple[Tensor, Tensor]:
    """The closed form of v = dt x with a state S before the chunk; `[batch, head, frame, ...]`."""
    B, C = (z.repeat_interleave(v.shape[1] // z.shape[1], 1) for z in (B, C))
    G = log_decay.cumsum(-1)[..., None]
    end = G[..., -1:, :]
    answers = (C @ B.transpose(-1, -2)) * pairwise_decay(G[..., 0])
    y = G.exp() * (C @ S) + answers @ v
    S = end.exp() * S + (B * (end - G).exp()).transpose(-1, -2) @ v
    return y, S


def _for_each_head(z: Tensor, heads: int) -> Tensor:
    """`[..., group, N]` -> `[..., head, N]`: neighbouring heads share a group."""
    return z.repeat_interleave(heads // z.shape[-2], -2)


def _with_feedthrough(y: Tensor, D: Tensor | None, x: Tensor) -> Tensor:
    return y if D is None else y + D[:, None] * x
