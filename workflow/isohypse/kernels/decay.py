# SPDX-License-Identifier: Apache-2.0
"""Decay between two frames of one chunk, without overflow.

With G[t] the sum of the log decays up to and including frame t, what frame s wrote has faded at t >= s to

    P[t, s] = exp(G[t] - G[s])        (0 for s > t)

The tempting factors exp(G[t]) * exp(-G[s]) overflow as soon as -G passes 88 in float32, which strong decay
reaches in a few frames; moving the reference to the middle of the chunk only doubles the range. Here no
exponent is ever positive: differences are taken first, and what lies above the diagonal is masked before the
exponential, so that neither it nor its gradient can be infinite.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from isohypse.kernels.products import future

BLOCK = 16
"""Frames of a diagonal block of `channel_scores`: the width of its largest temporary."""


def pairwise_decay(G: Tensor) -> Tensor:
    """P of a scalar decay per head: G `[..., frame]` -> `[..., t, s]`."""
    return (G[..., :, None] - G[..., None, :]).masked_fill(future(G.shape[-1], G.device), -torch.inf).exp()


def channel_scores(k: Tensor, G: Tensor, *lefts: Tensor) -> tuple[Tensor, ...]:
    """Scores sum_d left[t, d] k[s, d] exp(G[t, d] - G[s, d]) for s <= t, 0 above the diagonal.

    A decay per channel cannot leave the sum over channels, so the plain way needs a `[t, s, channel]` tensor.
    It is built for diagonal blocks of `BLOCK` frames only. Left of a block everything goes through the
    block's first frame r: exp(G[t] - G[r]) * exp(G[r] - G[s]) with s < r <= t, where again no exponent is
    positive, is a matrix product (the secondary chunks of GLA, arXiv:2312.06635).

    k, G, lefts: `[..., frame, channel]` -> one `[..., t, s]` for each of `lefts`.
    """
    frames = k.shape[-2]
    bands = [_band(start, min(start + BLOCK, frames), k, G, lefts) for start in range(0, frames, BLOCK)]
    return tuple(torch.cat(rows, -2) if len(rows) > 1 else rows[0] for rows in zip(*bands))


def _band(start: int, stop: int, k: Tensor, G: Tensor, lefts: tuple[Tensor, ...]) -> list[Tensor]:
    """Rows `start` to `stop` of the scores, one `[..., stop - start, frame]` for each of `lefts`."""
    here = G[..., start:stop, :]
    rows = [left[..., start:stop, :] for left in lefts]
    scores = [_Diagonal.apply(row, k[..., start:stop, :], here) for row in rows]
    if start > 0:
        reference = G[..., start : start + 1, :]
        past = (k[..., :start, :] * (reference - G[..., :start, :]).exp()).transpose(-1, -2)
        since = (here - reference).exp()
        scores = [torch.cat([(row * since) @ past, score], -1) for row, score in zip(rows, scores)]
    after = k.shape[-2] - stop
    return [F.pad(score, (0, after)) for score in scores] if after else scores


class _Diagonal(torch.autograd.Function):
    """`channel_scores` of one left within one block.

    With dS the gradient of the scores,

        dleft[t] = sum_s dS[t, s] k[s] P[t, s]        dk[s] = sum_t dS[t, s] left[t] P[t, s]
        dG[t] = left[t] dleft[t] - k[t] dk[t]

    Only the arguments are kept for it. Differentiated operation by operation, `[t, s, channel]` tensors would
    be, and at 8 frames they are most of what a step of KDA has to move through memory.
    """

    @staticmethod
    def forward(ctx, left: Tensor, k: Tensor, G: Tensor) -> Tensor:
        ctx.save_for_backward(left, k, G)
        return (left[..., :, None, :] * (_channel_decay(G) * k[..., None, :, :])).sum(-1)

    @staticmethod
    def backward(ctx, dS: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        left, k, G = ctx.saved_tensors
        P, dS = _channel_decay(G), dS[..., None]
        dleft = (dS * (P * k[..., None, :, :])).sum(-2)
        dk = (dS * (P * left[..., :, None, :])).sum(-3)
        return dleft, dk, left * dleft - k * dk


def _channel_decay(G: Tensor) -> Tensor:
    """P of a decay per channel: G `[..., frame, channel]` -> `[..., t, s, channel]`."""
    difference = G[..., :, None, :] - G[..., None, :, :]
    return difference.masked_fill(future(G.shape[-2], G.device)[..., None], -torch.inf).exp()
