# SPDX-License-Identifier: Apache-2.0
"""Stage `publication`: the paper's figures and tables, from the tidy tables of the earlier stages only.

Files in: metrics.csv, run.json, examples.nc, scores.csv, costs.csv, statistics.json. Files out: Fig. 2 and 5
(`curves`), 3 and 4 (`maps`), 6 (`costs`); Tables 1 to 3 (`tables`) and 4 (`results`). Each says which data,
protocol, seeds and lead time it shows; `paper` decides when the paper's own numbers may stand beside ours.
"""
