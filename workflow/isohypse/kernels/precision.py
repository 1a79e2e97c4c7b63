# SPDX-License-Identifier: Apache-2.0
"""Which precision a recurrence is computed in: float32 at least, whatever autocast says.

A state sums hundreds of frames and a decay is the exponential of a sum; both lose what matters in bfloat16.
The large matrix products (the projections around a recurrence) are the caller's and stay in the autocast
dtype.
"""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """`x` in float32, or as it is when it is float64 already."""
    return x if x.dtype == torch.float64 else x.float()


def full_precision(form: Callable) -> Callable:
    """Run a form of a recurrence in float32 (float64 inputs: in float64) and outside autocast.

    The output comes back in the dtype of the first argument; a final state stays in the computing dtype, so
    that carrying it from call to call loses nothing.
    """

    @functools.wraps(form)
    def wrapper(first: Tensor, *others, **options):
        others = [_raised(x) for x in others]
        options = {name: _raised(x) for name, x in options.items()}
        with _without_autocast(first.device.type):
            result = form(_raised(first), *others, **options)
        if isinstance(result, tuple):
            output, state = result
            return output.to(first.dtype), state
        return result.to(first.dtype)

    return wrapper


def _raised(x):
    return at_least_float32(x) if isinstance(x, Tensor) else x


def _without_autocast(device_type: str) -> AbstractContextManager:
    if device_type == "meta":  # which has none
        return nullcontext()
    return torch.autocast(device_type, enabled=False)
