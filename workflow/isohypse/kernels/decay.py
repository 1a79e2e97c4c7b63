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

    k, G, lefts: `[..., frame, channel]` -> one `[..., t, s]` for each of `lefts`; they share the decays.
    """
    frames = k.shape[-2]
    bands = [_band(start, min(start + BLOCK, frames), k, G, lefts) for start in range(0, frames, BLOCK)]
    return tuple(torch.cat(rows, -2) if len(rows) > 1 else rows[0] for rows in zip(*bands))


def _band(start: int, stop: int, k: Tensor, G: Tensor, lefts: tuple[Tensor, ...]) -> list[Tensor]:
    """Rows `start` to `stop` of the scores, one `[..., stop - start, frame]` for each of `lefts`."""
    here = G[..., start:stop, :]
    difference = here[..., :, None, :] - here[..., None, :, :]
    P = difference.masked_fill(future(stop - start, G.device)[..., None], -torch.inf).exp()
    faded = P * k[..., None, start:stop, :]  # [..., t, s, channel]: key s as seen from t
    rows = [left[..., start:stop, :] for left in lefts]
    scores = [(row[..., :, None, :] * faded).sum(-1) for row in rows]
    if start > 0:
        reference = G[..., start : start + 1, :]
        past = (k[..., :start, :] * (reference - G[..., :start, :]).exp()).transpose(-1, -2)
        since = (here - reference).exp()
        scores = [torch.cat([(row * since) @ past, score], -1) for row, score in zip(rows, scores)]
    after = k.shape[-2] - stop
    return [F.pad(score, (0, after)) for score in scores] if after else scores
