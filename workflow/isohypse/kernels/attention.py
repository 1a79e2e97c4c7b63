# SPDX-License-Identifier: Apache-2.0
"""Causal softmax attention: every frame reads all frames up to itself.

    o_t = sum_{s<=t} softmax_s(q_t . k_s / sqrt(dim)) v_s

Its state is the whole past (keys and values of every frame), where the recurrences keep one matrix.
Source: Vaswani et al., arXiv:1706.03762.

Two forms: PyTorch's `scaled_dot_product_attention`, and `closed`, the equation written out in float32, for
the few frames of a short sequence on a GPU. The kernels behind the first work on tiles of 64 frames and more
there: at 8 frames they took a quarter of a training step on an H100 (4.7 of 19.4 ms). On a CPU the first is
no slower from 1 to 256 frames: at 8, forward and backward, 2.7 against 3.2 ms (`isohypse benchmark forms`).
That is in float32; under bf16 autocast it took 33 ms, and 5.6 if it left autocast (16 frames).
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from isohypse.kernels.precision import full_precision
from isohypse.kernels.products import WRITTEN_OUT_FRAMES, future, scores, weighted_sum


def name(frames: int, device: torch.device) -> str:
    """The name in results of the form for a sequence of `frames` on `device`: `closed` or `sdpa`."""
    return "closed" if frames <= WRITTEN_OUT_FRAMES and device.type != "cpu" else "sdpa"


def form(frames: int, device: torch.device) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """That form. On a CPU and for few frames it computes in float32, whatever autocast says."""
    if device.type == "cpu":
        return _sdpa_in_float32
    return {"closed": closed, "sdpa": sdpa}[name(frames, device)]


def sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """q, k, v `[batch, frame, head, dim]` -> as v."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)


_sdpa_in_float32 = full_precision(sdpa)


@full_precision
def closed(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """q, k, v `[batch, frame, head, dim]` -> as v."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    S = scores(q, k) * q.shape[-1] ** -0.5
    S = S.masked_fill(future(S.shape[-1], S.device), -torch.inf)
    return weighted_sum(S.softmax(-1), v).transpose(1, 2)


def step(
    q: Tensor, k: Tensor, v: Tensor, *, state: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """One frame `[batch, head, dim]` -> (o_t, (keys, values)); past `[batch, head, frame, dim]`."""
    keys, values = k[:, :, None], v[:, :, None]
    if state is not None:
        keys, values = (torch.cat([past.to(x.dtype), x], 2) for past, x in zip(state, (keys, values)))
    output = F.scaled_dot_product_attention(q[:, :, None], keys, values)
    return output[:, :, 0], (keys, values)
