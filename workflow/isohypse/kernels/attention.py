# SPDX-License-Identifier: Apache-2.0
"""Causal softmax attention: every frame reads all frames up to itself.

    o_t = sum_{s<=t} softmax_s(q_t . k_s / sqrt(dim)) v_s

Its state is the whole past (keys and values of every frame), where the recurrences keep one matrix.
Source: Vaswani et al., arXiv:1706.03762; computed by PyTorch's `scaled_dot_product_attention`.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

NAME = "sdpa"
"""The kernel's name in results."""


def causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """q, k, v `[batch, frame, head, dim]` -> as v."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)


def step(
    q: Tensor, k: Tensor, v: Tensor, *, state: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """One frame `[batch, head, dim]` -> (o_t, (keys, values)); past `[batch, head, frame, dim]`."""
    keys, values = k[:, :, None], v[:, :, None]
    if state is not None:
        keys, values = torch.cat([state[0], keys], 2), torch.cat([state[1], values], 2)
    output = F.scaled_dot_product_attention(q[:, :, None], keys, values)
    return output[:, :, 0], (keys, values)
