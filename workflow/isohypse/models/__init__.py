# SPDX-License-Identifier: Apache-2.0
"""The six backbones under one harness: projection, residual blocks, head.

    catalogue   names and sizes of the backbones; imports no torch: a configuration can be checked anywhere
    registry    `build(model, flavour, ...)`: the one door to a network
    network     frames in, frames out: projection, backbone, head
    backbone    residual blocks
    mixer       what a mixer owes to its block
    transformer, gla, deltanet, gated_deltanet, kda, mamba2   one mixer a file, its mathematics whole
    exchange    weights as files that flash-linear-attention reads and writes
    sizes       what each flavour weighs

Parameter names are those of flash-linear-attention's layers, so that weights move both ways.
"""
