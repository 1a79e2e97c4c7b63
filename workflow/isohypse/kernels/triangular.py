# SPDX-License-Identifier: Apache-2.0
"""The unit lower triangular system (I + A) U = X that the delta rules solve within a chunk.

Row t reads U[t] = X[t] - sum_{s<t} A[t, s] U[s]: what frame t writes is corrected by what the frames before
it wrote. Substitution is exact in any dtype. LAPACK and cuBLAS do it for matrices; for the few frames of a
short sequence it is written out while compiling, since the rows of all channels are then one fused kernel.
The matrix-product-only series (I - A)(I + A^2)(I + A^4)... is exact on paper too, but when keys resemble each
other its terms grow with the number of frames and cancel: at 64 frames it is wrong by ten orders of
magnitude. It is not offered.

The backward pass is the solution of the transposed system, W = (I + A)^-T dU, dX = W, dA = -W U^T below the
diagonal.
"""

import torch
from torch import Tensor

from isohypse.kernels.products import scores, written_out


def solve_unit_lower(A: Tensor, X: Tensor) -> Tensor:
    """U of (I + A) U = X. A `[..., t, s]` strictly lower triangular, X `[..., t, channel]`."""
    if written_out(A.shape[-1]):
        return _Substitution.apply(A, X)
    return torch.linalg.solve_triangular(A, X, upper=False, unitriangular=True)


class _Substitution(torch.autograd.Function):
    @staticmethod
    def forward(ctx, A: Tensor, X: Tensor) -> Tensor:
        rows: list[Tensor] = []
        for t in range(A.shape[-1]):
            known = (A[..., t, s, None] * row for s, row in enumerate(rows))
            rows.append(X[..., t, :] - sum(known))
        U = torch.stack(rows, -2)
        ctx.save_for_backward(A, U)
        return U

    @staticmethod
    def backward(ctx, dU: Tensor) -> tuple[Tensor, Tensor]:
        A, U = ctx.saved_tensors
        last = A.shape[-1] - 1
        rows: list[Tensor] = []  # from the last to the first
        for t in range(last, -1, -1):
            known = (A[..., last - i, t, None] * row for i, row in enumerate(rows))
            rows.append(dU[..., t, :] - sum(known))
        W = torch.stack(rows[::-1], -2)
        return -scores(W, U).tril(-1), W
