# SPDX-License-Identifier: Apache-2.0
"""Rotary position embedding (RoPE): positions as rotations, so that a score depends on the distance alone.

Channel pairs (i, i + dim / 2) turn by t / base^(2 i / dim) at frame t (the half-split pairing of LLaMA and
flash-linear-attention; the interleaved pairing of the original is a permutation of it).
Source: Su et al., RoFormer, arXiv:2104.09864.
"""

import torch
from torch import Tensor

from isohypse.kernels.precision import at_least_float32


def rotate(x: Tensor, base: float = 10000.0, *, offset: int = 0) -> Tensor:
    """Turn x `[batch, frame, head, dim]` (queries or keys); its first frame is number `offset`."""
    raised = at_least_float32(x)
    first, second = raised.chunk(2, -1)
    cosine, sine = _angles(x.shape[1], x.shape[-1], base, offset, raised)
    turned = torch.cat([first * cosine - second * sine, second * cosine + first * sine], -1)
    return turned.to(x.dtype)


def _angles(frames: int, dim: int, base: float, offset: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine `[frame, 1, dim / 2]`; in float32 at least: bfloat16 cannot count past 256."""
    t = torch.arange(offset, offset + frames, device=like.device, dtype=like.dtype)
    rate = base ** -(torch.arange(0, dim, 2, device=like.device, dtype=like.dtype) / dim)
    angle = (t[:, None] * rate)[:, None]
    return angle.cos(), angle.sin()
