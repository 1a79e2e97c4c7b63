# SPDX-License-Identifier: Apache-2.0
"""The embedded data source: a three-level quasi-geostrophic model, for use without any download.

Settings and the restart of the year before in; `hgt.YYYY.nc` in NCEP's format and a restart out.
sphere -> forcing -> dynamics -> balance -> heights -> simulate; model_mean computes a constant of heights.
Not a reanalysis: everything made of it is synthetic.
"""

from isohypse.data.quasigeostrophic.simulate import QuasigeostrophicSettings, Trajectory, simulate_year

__all__ = ["QuasigeostrophicSettings", "Trajectory", "simulate_year"]
