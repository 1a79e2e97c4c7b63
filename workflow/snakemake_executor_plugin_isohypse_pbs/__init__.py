# SPDX-License-Identifier: Apache-2.0
"""Snakemake executor for PBS Professional and OpenPBS: `snakemake --executor isohypse-pbs`.

Snakemake finds this package by its name and reads three names from it: `ExecutorSettings`, `common_settings`
and `Executor`. It stands alone: beside the standard library it imports Snakemake's executor interface only.

    settings.py    what a user can set
    executor.py    Snakemake's side: run, poll, cancel
    checks.py      refusals before anything starts
    submission.py  one submission, its second tries, and the server's moods
    recovery.py    jobs that an earlier client left behind: adopted, or settled
    verification.py  what PBS says of a job's end, against what the job left
    deletion.py    qdel that forgets no job
    identity.py    which job is the same job
    resources.py   Snakemake's resources -> qsub's options, limits of queues
    jobscript.py   what runs on the node before Snakemake
    registry.py    one file a PBS job, so that no job is forgotten
    pbs.py         qsub, qstat, qselect, qdel
    states.py      what a record of qstat means
    names.py       job names and log folders
"""

from .executor import Executor
from .settings import ExecutorSettings, common_settings

__all__ = ["Executor", "ExecutorSettings", "common_settings"]
