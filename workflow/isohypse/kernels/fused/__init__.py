# SPDX-License-Identifier: Apache-2.0
"""Triton kernels for everything that stands between the matrix products of a block, for short sequences.

At the paper's shape (8 frames a sample, 2,048 rows a step) a recurrence is little arithmetic and much
traffic: what counts is that each operand crosses the memory once, and that no thread waits.

    linear              products with weights, whose gradients are left aside (`kernels/aside.py`)
    residual            residual sum and RMSNorm
    gated_mlp           the activation of SwiGLU
    rotary_attention    the Transformer's mixer, on `tile`s of the tensor cores
    linear_attention    the mixers of GLA and the delta rules, by `keys`, `matrices` and `values`
    ssd                 the mixer of Mamba2, by `ssd_kernels`
    convolution         the backward pass of the values' short convolution
    long_convolution    short convolutions over sequences of any length
    windows             batches gathered and normalised
    frames, sums        what they share: frames as a thread's registers; gradients of small parameters

Everything is computed in float32 from the operands as they come; the mixers' backward passes compute again
what they need rather than read it. Sums over the batch are partial sums that are added in a fixed order: no
atomics, so that two runs are equal to the bit.

The mixers' sequences have up to `frames.FRAMES` frames (attention: `tile.ROWS`); longer ones are
`choice.choose`'s.
"""
