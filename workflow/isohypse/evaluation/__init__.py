# SPDX-License-Identifier: Apache-2.0
"""Evaluation: Zarr archive, climatology and a Forecaster in; scores.nc, examples.nc and scores.csv out.

cases (who sees which frames) -> baselines -> scoring (metrics) -> tables (significance). Heights in metres,
lead times in hours. Knows nothing of networks or their training: only `forecasting.Forecaster`.
"""
