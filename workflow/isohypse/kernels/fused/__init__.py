# SPDX-License-Identifier: Apache-2.0
"""Triton kernels for everything that stands between the matrix products of a block, for short sequences.

At the paper's shape (8 frames a sample, 2,048 rows a step) a recurrence is little arithmetic and much
traffic: what counts is that each operand crosses the memory once. So there is one kernel, forward and
backward, for all that lies between two products: convolutions, activations, norms, decays, scores, the
triangular system, the output gate.

    residual            residual sum and RMSNorm
    gated_mlp           the activation of SwiGLU
    rotary_attention    the Transformer's mixer
    linear_attention    the mixers of GLA, DeltaNet, Gated DeltaNet and KDA: one kernel, four settings
    ssd                 the mixer of Mamba2
    tile                what they share

A program treats a tile: 16 neighbouring rows `[batch * frame]`, which are as many whole samples as fit, so
that a product of frames with frames is one 16 x 16 product on the tensor cores, with a mask that keeps
samples apart. Everything is computed in float32 from the operands as they come; backward passes compute again
what they need rather than read it. Sums over the batch (gradients of norms, taps and biases) are partial sums
that torch adds up in a fixed order: no atomics, so that two runs are equal to the bit.

Sequences have up to `tile.ROWS` frames; longer ones are `choice.choose`'s.
"""
