# SPDX-License-Identifier: Apache-2.0
"""What a backward pass leaves aside: gradients of weights, on a stream beside the one that goes on.

The chain of gradients from block to block is what a backward pass waits for. The gradients of the weights
hang on it as leaves: nobody asks for them before the clipping. `leave` starts such work on a second stream
while a `Backward` is open, and at once otherwise. A matrix product rarely fills the GPU to its last tile, and
the kernels between two products hardly use its arithmetic, so that the two streams fill each other's gaps.

Autograd lets go of what such work reads while it may still be waiting, and the first stream would have the
memory for its next tensor. It is therefore held here until the first stream has waited for the work, in
turn, `DEPTH` pieces later; so is what the work writes, which a weight without gradient would not keep. That
must be allocated before, on the first stream, and belong to nobody else, so that autograd takes it for the
parameter's `grad` as it is: adding it to another or copying it would not wait. Hence `open` is for backward
passes that begin without gradients.
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property

import torch
from torch import Tensor

DEPTH = 4
"""Pieces of work whose tensors are held at most."""


class Backward:
    """The second stream of a device. One backward pass at a time is open in a process."""

    current: "Backward | None" = None  # not a thread's own: autograd runs backward passes in other threads

    def __init__(self, device: torch.device):
        self.device = device
        self.used = False
        self.held: deque[tuple[torch.cuda.Event, tuple[Tensor, ...]]] = deque()

    @cached_property
    def stream(self) -> torch.cuda.Stream:
        return torch.cuda.Stream(self.device)

    @contextmanager
    def open(self) -> Iterator[None]:
        """All that is left aside within has been done for what comes after, on the current stream."""
        Backward.current = self
        try:
            yield
        finally:
            Backward.current = None
            if self.used:  # a capture may not wait for a stream that has no part in it
                torch.cuda.current_stream().wait_stream(self.stream)
                self.used = False
                self.held.clear()

    def start(self, work: Callable[[Tensor], object], out: Tensor, inputs: tuple[Tensor, ...]) -> None:
        """Run `work(out)` on the second stream, after all that the current one has been given so far."""
        with self.follow():
            work(out)
            done = self.stream.record_event()
        alias = out.detach()  # the tensor `out` itself is autograd's alone
        self.held.append((done, (alias, *inputs)))
        if len(self.held) > DEPTH:
            oldest, _ = self.held[0]
            torch.cuda.current_stream().wait_event(oldest)
            self.held.popleft()

    def follow(self) -> AbstractContextManager:
        """Makes the second stream the current one, after all that this one has been given so far."""
        self.used = True
        self.stream.wait_stream(torch.cuda.current_stream())
        return torch.cuda.stream(self.stream)


def leave(work: Callable[[Tensor], object], out: Tensor, *inputs: Tensor) -> Tensor:
    """`work(out)`, which reads `inputs` and writes `out`, aside if a backward pass is open. Returns `out`."""
    if Backward.current is None:
        work(out)
    else:
        Backward.current.start(work, out, inputs)
    return out


def after_what_was_left() -> AbstractContextManager:
    """Where what waits for such work is started, e.g. the reduction of gradients over ranks."""
    return nullcontext() if Backward.current is None else Backward.current.follow()
