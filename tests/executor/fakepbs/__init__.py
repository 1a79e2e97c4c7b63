# SPDX-License-Identifier: Apache-2.0
"""A test double of PBS: qsub, qstat, qselect, qdel and qrerun, after what OpenPBS 23.06.06 was seen to do.

There is no daemon. State lies in the folder $FAKEPBS; each job has a detached process of its own (`mom.py`),
which waits, runs the script with a clean environment in $HOME, and kills it at its walltime.

    store.py     jobs, lock, faults
    submit.py    qsub: options, mandatory ones, queues and their limits
    query.py     qstat, qselect
    control.py   qdel, qrerun
    mom.py       the life of a job
    site.py      what tests use: a fresh site, its faults, its jobs
"""
