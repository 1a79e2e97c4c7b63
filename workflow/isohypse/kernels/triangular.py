# SPDX-License-Identifier: Apache-2.0
"""The unit lower triangular system (I + A) U = X that the delta rules solve within a chunk.

Row t reads U[t] = X[t] - sum_{s<t} A[t, s] U[s]: what frame t writes is corrected by what the frames before
it wrote. Substitution is exact in any dtype. The matrix-product-only series (I - A)(I + A^2)(I + A^4)... is
exact on paper too, but when keys resemble each other its terms grow with the number of frames and cancel: at
64 frames it is wrong by ten orders of magnitude. It is not offered.
"""

import torch
from torch import Tensor

from isohypse.kernels.products import weighted_sum

SUBSTITUTION_FRAMES = 16
"""Up to here substitution is unrolled over rows; above, LAPACK or cuBLAS solves."""


def solve_unit_lower(A: Tensor, X: Tensor) -> Tensor:
    """U of (I + A) U = X. A `[..., t, s]` strictly lower triangular, X `[..., t, channel]`."""
    if A.shape[-1] > SUBSTITUTION_FRAMES:
        return torch.linalg.solve_triangular(A, X, upper=False, unitriangular=True)
    return weighted_sum(_inverse_by_substitution(A), X)


def _inverse_by_substitution(A: Tensor) -> Tensor:
    """(I + A)^-1, column by column of A: once row t is final, its share is taken from all rows below.

    Substituting on the identity, not on X, keeps every temporary `[t, s]`: X is many times as wide.
    """
    frames = A.shape[-1]
    below = torch.eye(frames, dtype=A.dtype, device=A.device).expand_as(A)
    rows = [below[..., 0, :]]
    for t in range(frames - 1):
        below = torch.addcmul(below[..., 1:, :], A[..., t + 1 :, t, None], rows[-1][..., None, :], value=-1)
        rows.append(below[..., 0, :])
    return torch.stack(rows, -2)
