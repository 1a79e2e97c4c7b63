# SPDX-License-Identifier: Apache-2.0
"""The unit lower triangular system (I + A) U = X that the delta rules solve within a chunk.

Row t reads U[t] = X[t] - sum_{s<t} A[t, s] U[s]: what frame t writes is corrected by what the frames before
it wrote. Substitution is exact in any dtype; for short chunks it is done by blocks. With the inverses of two
neighbouring diagonal blocks at hand, that of the block which holds both is

    [ I + A11           ]^-1     [  L11                 ]
    [   A21     I + A22 ]     =  [ -L22 A21 L11    L22  ],         L11, L22: the inverses at hand

so that 1, 2, 4 and 8 frames take three rounds. The matrix-product-only series (I - A)(I + A^2)(I + A^4)... is
exact on paper too, but when keys resemble each other its terms grow with the number of frames and cancel: at
64 frames it is wrong by ten orders of magnitude. It is not offered.

The backward pass is the solution of the transposed system, W = (I + A)^-T dU, dX = W, dA = -W U^T below the
diagonal, from the same inverse.
"""

import torch
from torch import Tensor

from isohypse.kernels.products import scores, weighted_sum

BLOCK_FRAMES = 16
"""Up to here blocks are inverted; above, LAPACK or cuBLAS solves."""


def solve_unit_lower(A: Tensor, X: Tensor) -> Tensor:
    """U of (I + A) U = X. A `[..., t, s]` strictly lower triangular, X `[..., t, channel]`."""
    if A.shape[-1] > BLOCK_FRAMES:
        return torch.linalg.solve_triangular(A, X, upper=False, unitriangular=True)
    return _Solution.apply(A, X)


class _Solution(torch.autograd.Function):
    @staticmethod
    def forward(ctx, A: Tensor, X: Tensor) -> Tensor:
        inverse = _inverse_by_blocks(A)
        U = weighted_sum(inverse, X)
        ctx.save_for_backward(inverse, U)
        return U

    @staticmethod
    def backward(ctx, dU: Tensor) -> tuple[Tensor, Tensor]:
        inverse, U = ctx.saved_tensors
        W = weighted_sum(inverse.transpose(-1, -2), dU)
        return -scores(W, U).tril(-1), W


def _inverse_by_blocks(A: Tensor) -> Tensor:
    """(I + A)^-1. Frames after the last full block count as a block that is cut off."""
    frames = A.shape[-1]
    t = torch.arange(frames, device=A.device)
    inverse, size = torch.eye(frames, dtype=A.dtype, device=A.device).expand_as(A), 1
    while size < frames:
        block = t // size
        left_of_pair = (block[:, None] == block + 1) & (block % 2 == 0)  # [t, s]: A21 of every pair of blocks
        between = A * left_of_pair
        inverse = inverse - (between if size == 1 else _around(inverse, between))
        size *= 2
    return inverse


def _around(inverse: Tensor, between: Tensor) -> Tensor:
    """L22 A21 L11 of every pair of blocks."""
    return weighted_sum(weighted_sum(inverse, between), inverse)
