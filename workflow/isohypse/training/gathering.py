# SPDX-License-Identifier: Apache-2.0
"""Windows from heights that lie on the device in metres: one pass that gathers, converts and normalises.

(z - mean) / std is rounded as `frames.Normalisation` does it, so that batches are the same to the bit from
int16 or float32 metres, on a GPU or a CPU. On a GPU it is one kernel (`kernels/fused/windows.py`), since
with 17 levels a batch is gigabytes and every pass over it counts.
"""

from importlib.util import find_spec

import torch
from torch import Tensor


def gather(heights: Tensor, frames: Tensor, mean_m: Tensor, std_m: Tensor, dtype: torch.dtype) -> Tensor:
    """Normalised `[batch, frame, level, latitude, longitude]` in `dtype`, rounded from float32.

    heights: int16 or float32 metres [time, level, latitude, longitude]. frames: int64 [batch, frame], times.
    mean_m, std_m: float32 [level, 1, 1]. Fixed shapes, no synchronisation: it can be captured.
    """
    if heights.is_cuda and find_spec("triton"):
        from isohypse.kernels.fused.windows import gather_windows

        return gather_windows(heights, frames, mean_m, std_m, dtype)
    taken = heights.index_select(0, frames.flatten()).float()  # a copy, whatever the type
    return taken.sub_(mean_m).div_(std_m).to(dtype).unflatten(0, frames.shape)
