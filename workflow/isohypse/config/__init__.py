# SPDX-License-Identifier: Apache-2.0
"""The typed experiment: the one place where a value is checked. Imports neither torch nor xarray."""

from isohypse.config.experiment import FIELDS_PATTERN, RUN_PATTERN, TASK_PATTERN, Experiment, Run, Task
from isohypse.config.layout import Layout
from isohypse.config.loading import export_execution, load_experiment
from isohypse.config.settings import BASELINES, StageBook

__all__ = [
    "BASELINES",
    "FIELDS_PATTERN",
    "RUN_PATTERN",
    "TASK_PATTERN",
    "Experiment",
    "Layout",
    "Run",
    "StageBook",
    "Task",
    "export_execution",
    "load_experiment",
]
