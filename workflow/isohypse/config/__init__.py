# SPDX-License-Identifier: Apache-2.0
"""The typed experiment: the one place where a value is checked. Imports neither torch nor xarray."""

from isohypse.config.experiment import METHOD_PATTERN, RUN_PATTERN, TASK_PATTERN, Experiment, Run, Task
from isohypse.config.loading import load_experiment
from isohypse.config.settings import BASELINES, StageBook

__all__ = [
    "BASELINES",
    "METHOD_PATTERN",
    "RUN_PATTERN",
    "TASK_PATTERN",
    "Experiment",
    "Run",
    "StageBook",
    "Task",
    "load_experiment",
]
