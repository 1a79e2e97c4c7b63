# SPDX-License-Identifier: Apache-2.0
"""What the card at hand can do at best, and the time that a training step cannot fall below.

    floor = 6 N tokens / (FLOP/s of a large bf16 product) + 28 N / (bytes/s of a copy)

N parameters; 6 N operations a token for forward and backward pass; 28 bytes a parameter for AdamW, which
reads and writes weight and two moments in float32 and reads the gradient. The head works on one token of a
sequence only and activations move too: the first makes the floor a little high, the second far too low.
"""

import time
from dataclasses import dataclass

import torch

SIDE = 8192
"""Rows and columns of the matrices."""
COPY_BYTES = 4 << 30


@dataclass(frozen=True)
class Ceilings:
    """Measured on the card, with nothing else running."""

    matmul_flops_per_second: float
    copy_bytes_per_second: float
    """Bytes read and bytes written, both counted."""

    def floor_seconds(self, parameters: int, tokens: int) -> float:
        arithmetic = 6 * parameters * tokens / self.matmul_flops_per_second
        return arithmetic + 28 * parameters / self.copy_bytes_per_second


def measure_ceilings(device: torch.device) -> Ceilings:
    """Best of several repeats of each; takes about a second."""
    a, b = (torch.randn(SIDE, SIDE, device=device, dtype=torch.bfloat16) for _ in range(2))
    product = torch.empty_like(a)
    seconds = _best(lambda: torch.mm(a, b, out=product), device)
    source = torch.empty(COPY_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copying = _best(lambda: target.copy_(source), device)
    return Ceilings(2 * SIDE**3 / seconds, 2 * COPY_BYTES / copying)


def _best(work, device: torch.device, repeats: int = 5, each: int = 10) -> float:
    """Seconds of one call: the least of `repeats` means over `each` calls."""
    means = []
    for _ in range(repeats + 1):
        torch.cuda.synchronize(device)
        start = time.perf_counter()
        for _ in range(each):
            work()
        torch.cuda.synchronize(device)
        means.append((time.perf_counter() - start) / each)
    return min(means[1:])
