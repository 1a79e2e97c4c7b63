# SPDX-License-Identifier: Apache-2.0
"""Sequence recurrences in plain PyTorch: the definition and its fast forms, side by side.

One file a recurrence (`gla`, `delta_rule`, `gated_delta_rule`, `kda`, `ssd`), each with the same four
functions:

    step       one frame: the equation of the paper, state in, state out
    recurrent  `step` over a whole sequence: the definition that the other forms are tested against
    closed     the exact closed form of one short sequence (up to 64 frames, no initial state)
    chunkwise  any length: the closed form inside a chunk, the state from chunk to chunk

Sequences are `[batch, frame, head, channel]`, states `[batch, head, key channel, value channel]`. Decays are
given as natural logarithms, never positive. Every form computes in float32 at least (`precision`), and
`choice.choose` is the one door that says which form serves a length. Around them: `attention`, `rotary`,
`convolution` and `normalisation`. Nothing here knows of models, data or training.
"""
