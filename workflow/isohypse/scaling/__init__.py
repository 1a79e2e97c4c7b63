# SPDX-License-Identifier: Apache-2.0
"""Stage `scaling`: what a sequence costs as it grows longer (Fig. 6 of the paper).

Files out: one JSON a model and length (`measure.measure`), gathered in costs.csv (`costs.tabulate_costs`).
"""
