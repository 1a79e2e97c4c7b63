# SPDX-License-Identifier: Apache-2.0
"""How long a GPU communicates, and how long it does nothing else: from the profiler's account of its kernels.

seconds: one of NCCL's kernels runs. exposed_seconds: one of them runs and no other work does. A kernel of
NCCL that waits for another rank counts as running, so that uneven ranks show here. The communication share of
a step is exposed_seconds over the step's seconds. Communication behind computation still takes processors and
memory traffic from it; that is not counted.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

KERNELS = ("ncclDevKernel", "ncclKernel")
ANNOTATION = "nccl:"  # of c10d, around the kernels
MARK = "spin_kernel"  # the name of `torch.cuda._sleep`'s
Span = tuple[float, float]


@dataclass(frozen=True)
class Communication:
    seconds: float
    exposed_seconds: float


def measure_communication(work: Callable[[], None], meet: Callable[[], None]) -> Communication:
    """Of all that `work` does on the current GPU. meet: returns when all ranks have come to it.

    A profiler takes a while to start, and another while on another rank: the account begins behind `meet`.
    """
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        meet()
        torch.cuda._sleep(1)
        work()
        torch.cuda.synchronize()
    events = [event for event in profiler.events() if event.device_type == DeviceType.CUDA]
    begin = next(event.time_range.end for event in events if MARK in event.name)
    communicating, other = [], []
    for event in events:
        if event.time_range.start < begin or event.name.startswith(ANNOTATION):
            continue
        kind = communicating if any(name in event.name for name in KERNELS) else other
        kind.append((event.time_range.start * 1e-6, event.time_range.end * 1e-6))
    return communication_of(communicating, other)


def communication_of(communicating: Iterable[Span], other: Iterable[Span]) -> Communication:
    """From the spans of NCCL's kernels and of all other work, in seconds."""
    ours, theirs = merged(communicating), merged(other)
    total, together = length(ours), length(ours) + length(theirs) - length(merged([*ours, *theirs]))
    return Communication(total, total - together)


def merged(spans: Iterable[Span]) -> list[Span]:
    """The same time as spans that do not overlap, in order."""
    found: list[Span] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found


def length(spans: Iterable[Span]) -> float:
    return sum(end - start for start, end in spans)
