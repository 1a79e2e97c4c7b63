# SPDX-License-Identifier: Apache-2.0
"""How fast a training step and a forecast are: against flash-linear-attention's layers and the hardware.

`isohypse benchmark step` runs one process a model (`trial`): our step and the same stack of FLA's own blocks
(`peers`), turn by turn, beside the ceilings of the card measured in the same process (`ceilings`). Files out:
one JSON a model and `table.md` (`report`). Nothing here is a result of the study.
"""
