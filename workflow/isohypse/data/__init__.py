# SPDX-License-Identifier: Apache-2.0
"""Stage `data`: yearly files of a source -> Zarr archive -> statistics and climatology -> windows.

contract          the dataset every source must deliver
sources           NOAA's files, the user's own files
quasigeostrophic  the embedded model, which writes NOAA's format (ncep_format)
archive           one Zarr store a year, opened together
statistics        mean, std and extremes of each level
climatology       mean by day of the year and hour, from training frames
windows           which frames a sample is made of, and which may be seen when
area              weights of the grid cells
"""
