# SPDX-License-Identifier: Apache-2.0
"""Isohypse: sequence architectures compared at forecasting geopotential height.

Sub-packages are the stages of the study, in the order in which data flows:
data -> training (models -> kernels) -> evaluation -> scaling -> publication.
"""

__version__ = "0.1.0"
