# SPDX-License-Identifier: Apache-2.0
"""Measures Isohypse side by side with what else does the work; nothing here is a result of the study.

step     a training step and a forecast against flash-linear-attention's layers and the hardware: one
         process a model (`trial`), our step and the same stack of FLA's own blocks (`peers`) turn by turn,
         beside the ceilings of the card measured in the same process (`ceilings`); `report` writes them
parity   each mixer against flash-linear-attention's layer and against float64 (`parity`): outputs and all
         gradients by every way to them (`mixers`)
losses   whether the fast step learns what the plain one learns, and whether it resumes to the same bits;
         `endurance`: how long a whole training takes; both on made-up fields (`smooth`)
         All four measure each model in a process of its own (`isolation`).
scaling  `scaling-out`: the same step on several GPUs (`scaling_out`): one process group a measurement
         (`process_group`), in it the step of every rank (`rank_trial`) with the profiler's account of its
         communication (`communication`); `scaling_report` writes them
forms    the forms of each recurrence against each other on a CPU
data     conversion and statistics against xarray, dask and cdo
loader   what feeding the step costs
climate  the embedded model's climate against the real one
"""
