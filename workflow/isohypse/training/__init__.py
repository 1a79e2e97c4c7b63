# SPDX-License-Identifier: Apache-2.0
"""Stage `training`: from the archive and its statistics to the weights of one run.

Files in: the yearly Zarr stores, statistics.json. Files out, in the run's folder: weights.safetensors,
metrics.csv, run.json, tensorboard/ (`trainer.train`). `forecaster.load_forecaster` reads them back.
"""
