# SPDX-License-Identifier: Apache-2.0
"""The short causal convolution before a recurrence: every channel sees its own last few frames.

    y[t] = silu(bias + sum_i weight[i] x[t - (W - 1) + i])        frames before the first count as 0

With W = 4 taps it is four shifted products; no convolution library is needed, and a compiler fuses them.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def short_convolution(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x `[batch, frame, channel]`, weight `[channel, tap]` (the last: the frame itself), bias `[channel]`."""
    frames, taps = x.shape[1], weight.shape[-1]
    padded = F.pad(x, (0, 0, taps - 1, 0))
    y = sum(padded[:, i : i + frames] * weight[:, i] for i in range(taps))
    return F.silu(y if bias is None else y + bias).to(x.dtype)


def step(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """One frame x `[batch, channel]` -> (y, state); state `[batch, W - 1, channel]`: the frames before."""
    if state is None:
        state = x.new_zeros(x.shape[0], weight.shape[-1] - 1, x.shape[-1])
    window = torch.cat([state, x[:, None]], 1)
    y = (window * weight.t()).sum(1)
    return F.silu(y if bias is None else y + bias).to(x.dtype), window[:, 1:]
