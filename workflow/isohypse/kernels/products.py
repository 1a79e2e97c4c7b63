# SPDX-License-Identifier: Apache-2.0
"""Products of the few frames of one short sequence, in the form that its compiler likes.

A closed form multiplies `[frame, channel]` with `[channel, frame]` and `[frame, frame]` with `[frame,
channel]` for every head of every sample: at 8 frames thousands of tiny matrices. As batched matrix products
each is a kernel of its own that reads and writes memory; written out as multiplications and sums, a compiler
fuses them with what stands around. Eagerly the written-out form would only fill memory, so that it is used
while compiling and up to `WRITTEN_OUT_FRAMES` alone. Both are the same sums in another order.
"""

import torch
from torch import Tensor

WRITTEN_OUT_FRAMES = 16


def scores(left: Tensor, right: Tensor) -> Tensor:
    """left `[..., t, channel]`, right `[..., s, channel]` -> their dot products `[..., t, s]`."""
    if written_out(left.shape[-2]):
        return (left[..., :, None, :] * right[..., None, :, :]).sum(-1)
    return left @ right.transpose(-1, -2)


def weighted_sum(weights: Tensor, values: Tensor) -> Tensor:
    """weights `[..., t, s]`, values `[..., s, channel]` -> `[..., t, channel]`."""
    if written_out(weights.shape[-1]):
        return (weights[..., None] * values[..., None, :, :]).sum(-2)
    return weights @ values


def running_sum(x: Tensor) -> Tensor:
    """Sum over the frames up to each: `[..., frame, channel]` -> the same."""
    frames = x.shape[-2]
    if written_out(frames):
        return weighted_sum(torch.ones(frames, frames, dtype=x.dtype, device=x.device).tril(), x)
    return x.cumsum(-2)


def future(frames: int, device: torch.device) -> Tensor:
    """Bool `[t, s]`: whether s comes after t."""
    return torch.ones(frames, frames, dtype=torch.bool, device=device).triu(1)


def written_out(frames: int) -> bool:
    """Whether sums over this many frames are written out: while compiling, for a few."""
    return torch.compiler.is_compiling() and frames <= WRITTEN_OUT_FRAMES
