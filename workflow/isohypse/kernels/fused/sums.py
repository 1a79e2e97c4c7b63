# SPDX-License-Identifier: Apache-2.0
"""Gradients of small parameters: programs leave partial sums, which are then added in a fixed order.

No atomics, so that two runs are equal to the bit. The sums of several parameters lie beside each other, so
that one kernel adds them all.
"""

from collections.abc import Mapping

import torch
import triton
import triton.language as tl
from torch import Tensor

from isohypse.kernels.aside import leave

PARTS = 128
"""Over how many programs the samples are dealt out where many sums would be written."""


class Sums:
    """Partial sums float32 `[row, element]`, one row a program, the parameters one after the other."""

    def __init__(self, rows: int, sizes: Mapping[str, int], device: torch.device):
        """sizes: elements of each parameter; one of none has no place."""
        self.sizes = {name: size for name, size in sizes.items() if size}
        self.partial = torch.empty(rows, sum(self.sizes.values()), device=device)

    @property
    def stride(self) -> int:
        return self.partial.shape[1]

    def place(self, name: str) -> Tensor | None:
        """Where the sums of a parameter begin."""
        if name not in self.sizes:
            return None
        names = list(self.sizes)
        return self.partial[:, sum(self.sizes[n] for n in names[: names.index(name)]) :]

    def whole(self) -> dict[str, Tensor]:
        """The sums, done when the backward pass ends."""
        if not self.sizes:
            return {}
        return dict(zip(self.sizes, gradient_sums(self.partial).split(list(self.sizes.values()))))


def parts_of(samples: int) -> int:
    return min(PARTS, samples)


def gradient_sums(partial: Tensor) -> Tensor:
    """float32 `[part, element]` -> `[element]` in a fixed order, done when the backward pass ends."""
    return leave(lambda out: _add(partial, out), partial.new_empty(partial.shape[1]), partial)


def column_sums(partial: Tensor) -> Tensor:
    """As `gradient_sums`, done when it returns."""
    total = partial.new_empty(partial.shape[1])
    _add(partial, total)
    return total


def sums_over(x: Tensor, dim: int) -> Tensor:
    """The sum over an axis of a matrix that `gradient_sums` has made."""
    return leave(lambda out: torch.sum(x, dim, out=out), x.new_empty(x.shape[1 - dim]), x)


def _add(partial: Tensor, total: Tensor) -> None:
    parts, elements = partial.shape
    rows = min(512, triton.next_power_of_2(parts))
    block = 4096 // rows  # few programs would leave the GPU idle, so that rows are not read in turns
    _column_sums[(triton.cdiv(elements, block),)](
        partial, total, parts, elements, partial.stride(0), rows, block
    )


@triton.jit
def _column_sums(partial, total, parts, elements, stride, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    columns = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    rows = tl.arange(0, ROWS)
    sums = tl.zeros([ROWS, BLOCK], tl.float32)
    for start in range(0, parts, ROWS):
        there = (start + rows < parts)[:, None] & (columns < elements)[None, :]
        sums += tl.load(partial + (start + rows)[:, None] * stride + columns[None, :], mask=there, other=0.0)
    tl.store(total + columns, tl.sum(sums, 0), mask=columns < elements)
