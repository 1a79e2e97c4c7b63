# SPDX-License-Identifier: Apache-2.0
"""Rotary position embedding (RoPE): positions as rotations, so that a score depends on the distance alone.

Channel pairs (i, i + dim / 2) turn by t / base^(2 i / dim) at frame t (the half-split pairing of LLaMA and
flash-linear-attention; the interleaved pairing of the original is a permutation of it).
Source: Su et al., RoFormer, arXiv:2104.09864.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from isohypse.kernels.precision import at_least_float32


class Turns(NamedTuple):
    """Cosine and sine of the angle of every frame and channel pair, `[frame, 1, dim / 2]`."""

    cosine: Tensor
    sine: Tensor


def rotate(x: Tensor, turns: Turns) -> Tensor:
    """Turn x `[batch, frame, head, dim]` (queries or keys)."""
    cosine, sine = turns
    first, second = at_least_float32(x).chunk(2, -1)
    turned = torch.cat([first * cosine - second * sine, second * cosine + first * sine], -1)
    return turned.to(x.dtype)


def turns(
    frames: int,
    dim: int,
    base: float = 10000.0,
    *,
    offset: int = 0,
    device: torch.device | None = None,
    dtype: torch.dtype = torch.float32,
) -> Turns:
    """For `frames` frames, the first of them number `offset`.

    All layers turn alike: computed once a forward pass. dtype: float32 at least, since bfloat16 cannot count
    past 256.
    """
    t = torch.arange(offset, offset + frames, device=device, dtype=dtype)
    rate = base ** -(torch.arange(0, dim, 2, device=device, dtype=dtype) / dim)
    angle = (t[:, None] * rate)[:, None]
    return Turns(angle.cos(), angle.sin())
