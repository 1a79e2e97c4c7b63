# SPDX-License-Identifier: Apache-2.0
"""What PBS says about a job's end, checked against what the job left.

Snakemake marks outputs as incomplete. The client writes our name into that mark before qsub, Snakemake on the
node takes the name out when it begins the job, and the mark away when it has ended it.
"""

from collections.abc import Iterable

from .recovery import outputs_exist
from .states import State, Verdict

NOT_RUN = State(Verdict.FAILED, "Exit_status 0, but Snakemake on the node did not run the job")
LATE_BUT_DONE = State(Verdict.DONE, "unknown to PBS by now, with its outputs in place")
LOST = State(
    Verdict.FAILED,
    "unknown to PBS: dropped after submission, as a routing queue does with a job that fits none of its"
    " queues (Polaris's prod takes 10 nodes or more), or deleted from its history",
)
DOUBTFUL = (NOT_RUN, LOST)  # a file system, or a server, may only be late to tell


async def verify(state: State, name: str, jobs: Iterable, persistence) -> State:
    """The state, or a better one.

    Exit_status 0 is no success while the mark still holds our name. A job that PBS has forgotten is one if
    the mark is gone and the outputs are there.
    """
    jobs = [job for job in jobs if job.output]
    untouched = any(name in persistence.external_jobids(job) for job in jobs)
    if state.verdict is Verdict.DONE and untouched:
        return NOT_RUN
    if state.verdict is not Verdict.UNKNOWN:
        return state
    marked = untouched or any([await persistence.incomplete(job) for job in jobs])
    return LATE_BUT_DONE if jobs and not marked and all(map(outputs_exist, jobs)) else LOST
