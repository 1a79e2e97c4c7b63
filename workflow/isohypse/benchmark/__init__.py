# SPDX-License-Identifier: Apache-2.0
"""Measures Isohypse side by side with what else does the work, and its model climate with the real one."""
