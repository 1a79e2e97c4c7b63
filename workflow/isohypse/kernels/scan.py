# SPDX-License-Identifier: Apache-2.0
"""Walking along time with a carried state: frame by frame, or chunk by chunk."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

CHUNK = 64
"""Frames of a chunk: inside, work grows with its square; between chunks, steps wait for each other."""


def zero_state(k: Tensor, v: Tensor) -> Tensor:
    """Nothing written yet: k `[batch, frame, head, K]`, v `[..., V]` -> `[batch, head, K, V]`."""
    batch, _, heads, _ = v.shape
    return v.new_zeros(batch, heads, k.shape[-1], v.shape[-1])


def over_frames(step: Callable, sequences: Sequence[Tensor], state: Tensor) -> tuple[Tensor, Tensor]:
    """Apply `step(*frame, state=state) -> (output, state)` along axis 1 of the sequences."""
    outputs = []
    for frame in zip(*(x.unbind(1) for x in sequences)):
        output, state = step(*frame, state=state)
        outputs.append(output)
    return torch.stack(outputs, 1), state


def over_chunks(
    chunk: Callable, sequences: Sequence[Tensor], state: Tensor, *, size: int, recompute: bool = False
) -> tuple[Tensor, Tensor]:
    """Apply `chunk(*piece, state) -> (output, state)` to pieces of at most `size` frames.

    Sequences come as `[batch, frame, head, ...]` and reach `chunk` as `[batch, head, frame, ...]`. With
    `recompute` a backward pass keeps one state a chunk and computes the chunk's inside again: for forms whose
    temporaries are many times their inputs.
    """
    heads_first = [x.transpose(1, 2) for x in sequences]
    outputs = []
    for start in range(0, heads_first[0].shape[2], size):
        piece = [x[:, :, start : start + size] for x in heads_first]
        if recompute and torch.is_grad_enabled():
            output, state = checkpoint(chunk, *piece, state, use_reentrant=False, preserve_rng_state=False)
        else:
            output, state = chunk(*piece, state)
        outputs.append(output)
    return torch.cat(outputs, 2).transpose(1, 2), state
