# SPDX-License-Identifier: Apache-2.0
"""The short causal convolution before a recurrence: every channel sees its own last few frames.

    y[t] = silu(bias + sum_i weight[i] x[t - (W - 1) + i])        frames before the first count as 0

With W = 4 taps it is four shifted products; no convolution library is needed, and a compiler fuses them. Over
many frames of a GPU it has a kernel (`fused/long_convolution.py`).
"""

from importlib.util import find_spec

import torch
from torch import Tensor
from torch.nn import functional as F

from isohypse.kernels.products import WRITTEN_OUT_FRAMES

HAS_TRITON = find_spec("triton") is not None


def short_convolution(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x `[batch, frame, channel]`, weight `[channel, tap]` (the last: the frame itself), bias `[channel]`."""
    if _has_kernel(x):
        from isohypse.kernels.fused.long_convolution import convolved_silu

        return convolved_silu(x, weight, bias)
    y = _Convolution.apply(x, weight.t())
    return F.silu(y if bias is None else y + bias).to(x.dtype)


def _has_kernel(x: Tensor) -> bool:
    return HAS_TRITON and x.is_cuda and x.shape[1] > WRITTEN_OUT_FRAMES and x.dtype != torch.float64


class _Convolution(torch.autograd.Function):
    """y = sum_i later(x, i) taps[-1 - i], with taps `[tap, channel]`; later: moved by i frames.

    dx = sum_i earlier(dy, i) taps[-1 - i], dtaps[-1 - i] = sum over batch and frame of earlier(dy, i) x. The
    sums over frames come first and those over the batch for all taps at once: a compiler fuses the former
    and launches the latter once, where differentiation tap by tap would launch several kernels for each.
    """

    @staticmethod
    def forward(ctx, x: Tensor, taps: Tensor) -> Tensor:
        ctx.save_for_backward(x, taps)
        return sum(_moved(x, i) * taps[-1 - i] for i in range(len(taps)))

    @staticmethod
    def backward(ctx, dy: Tensor) -> tuple[Tensor, Tensor]:
        x, taps = ctx.saved_tensors
        earlier = [_moved(dy, -i) for i in range(len(taps))]
        dx = sum(moved * taps[-1 - i] for i, moved in enumerate(earlier))
        dtaps = torch.stack([(moved * x).sum(1) for moved in reversed(earlier)]).sum(1)
        return dx.to(x.dtype), dtaps.to(taps.dtype)


def _moved(x: Tensor, frames: int) -> Tensor:
    """x moved to later frames (earlier if negative): zeros come in, what passes the end is lost."""
    frames = max(-x.shape[1], min(x.shape[1], frames))
    return F.pad(x, (0, 0, frames, -frames))


def step(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """One frame x `[batch, channel]` -> (y, state); state `[batch, W - 1, channel]`: the frames before."""
    if state is None:
        state = x.new_zeros(x.shape[0], weight.shape[-1] - 1, x.shape[-1])
    window = torch.cat([state, x[:, None]], 1)
    y = (window * weight.t()).sum(1)
    return F.silu(y if bias is None else y + bias).to(x.dtype), window[:, 1:]
