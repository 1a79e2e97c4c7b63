# SPDX-License-Identifier: Apache-2.0
"""Windows of frames gathered, converted and normalised: each height is read once and written once.

The division is rounded to nearest, as IEEE 754 and numpy do it; Triton's own `/` is not.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

POINTS = 2048  # of a program: 16 a thread


def gather_windows(
    heights: Tensor, frames: Tensor, mean_m: Tensor, std_m: Tensor, dtype: torch.dtype
) -> Tensor:
    """As `training.gathering.gather`."""
    levels, points = heights.shape[1], heights.shape[2] * heights.shape[3]
    out = heights.new_empty((*frames.shape, *heights.shape[1:]), dtype=dtype)
    parts = triton.cdiv(points, POINTS)
    grid = (frames.numel() * levels * parts,)  # neighbours in time are neighbours in memory
    _gather[grid](heights, frames.contiguous(), mean_m, std_m, out, levels, points, parts, POINTS)
    return out


@triton.jit
def _gather(heights, frames, mean_m, std_m, out, levels, points, parts, POINTS: tl.constexpr):
    row = tl.program_id(0) // parts  # a level of a frame of a window
    level = row % levels
    source = (tl.load(frames + row // levels) * levels + level) * points
    columns = tl.program_id(0) % parts * POINTS + tl.arange(0, POINTS)
    there = columns < points
    height = tl.load(heights + source + columns, mask=there, other=0.0).to(tl.float32)
    normalised = tl.div_rn(height - tl.load(mean_m + level), tl.load(std_m + level))
    tl.store(out + row.to(tl.int64) * points + columns, normalised.to(out.dtype.element_ty), mask=there)
