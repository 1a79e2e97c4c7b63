# SPDX-License-Identifier: Apache-2.0
"""Tiles of whole samples: rows that make a product of the tensor cores, and the mask that keeps samples apart.

`rows` are rows in memory, `there` whether they exist: a tile at the end of a batch, or one whose samples do not
fill it, has rows that are read as zero and never written.
"""

import torch
import triton
import triton.language as tl

ROWS = 16
"""Rows of a tile: the side of a tensor core's product, and so the longest sequence."""


def precision_of(dtype: torch.dtype) -> str:
    """Of products in the tensor cores. bf16 operands fit in a factor of ten bits; float32 takes three of them."""
    return "tf32" if dtype == torch.bfloat16 else "tf32x3"


def tiles_of(samples: int, frames: int) -> int:
    """How many tiles hold `samples` sequences of `frames` frames."""
    return -(-samples // (ROWS // frames))


@triton.jit
def rows_of(tile, total, T: tl.constexpr, ROWS: tl.constexpr):
    """Rows in memory, their frame numbers, whether they exist."""
    row = tl.arange(0, ROWS)
    rows = tile * (ROWS // T * T) + row
    return rows, row % T, (row < ROWS // T * T) & (rows < total)


@triton.jit
def product(a, b, PRECISION: tl.constexpr):
    return tl.dot(a, b, input_precision=PRECISION)


@triton.jit
def causal(T: tl.constexpr, ROWS: tl.constexpr):
    """Bool `[t, s]`: frames of one sample, s not after t."""
    t, s = tl.arange(0, ROWS)[:, None], tl.arange(0, ROWS)[None, :]
    return (t // T == s // T) & (s <= t)
