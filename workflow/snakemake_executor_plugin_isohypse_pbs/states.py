# SPDX-License-Identifier: Apache-2.0
"""What a job record of `qstat -x -f -F json` means for the workflow.

Success is state F with Exit_status 0, and nothing else is. A job that is neither finished nor held for good
is alive, whatever its Exit_status says: after a rerun PBS still shows that of the earlier run.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

WALLTIME_EXCEEDED = -29
NODE_LOST = -20
DELETED = 271


class Verdict(Enum):
    LIVE = "live"
    DONE = "done"
    FAILED = "failed"
    INTERRUPTED = "interrupted"  # ended by the machine, not by itself: worth another go
    STUCK = "stuck"  # PBS gave up starting it; it stays in the queue until it is deleted
    UNKNOWN = "unknown"  # PBS does not know the id


@dataclass(frozen=True)
class State:
    """A verdict, and the words for the user."""

    verdict: Verdict
    words: str


UNKNOWN = State(Verdict.UNKNOWN, "unknown to PBS")


def read_state(record: Mapping[str, object]) -> State:
    """The state of one record. Any field may be missing: PBS leaves out what it has not."""
    state, comment = record.get("job_state"), str(record.get("comment", ""))
    if state == "F":
        return _ended(record.get("Exit_status"), comment, record.get("substate"))
    if state == "H" and "too many failed attempts" in comment:
        return State(Verdict.STUCK, f"{comment} (is its log folder there, and writable from the nodes?)")
    return State(Verdict.LIVE, f"state {state}, substate {record.get('substate')}")


def _ended(code: object, comment: str, substate: object) -> State:
    if code == 0:
        return State(Verdict.DONE, "Exit_status 0")
    if code is None:
        why = "a job that it depends on failed" if substate == 92 else comment or "deleted"
        return State(Verdict.FAILED, f"ended before it ran: {why}")
    if code == WALLTIME_EXCEEDED:
        return State(Verdict.INTERRUPTED, "walltime exceeded (Exit_status -29)")
    if code == NODE_LOST:
        return State(Verdict.INTERRUPTED, "node lost (Exit_status -20)")
    if code == DELETED and "by Scheduler" in comment:
        return State(Verdict.INTERRUPTED, "preempted by the scheduler (Exit_status 271)")
    if code == DELETED:
        return State(Verdict.FAILED, f"deleted (Exit_status 271): {comment or 'no comment'}")
    return State(Verdict.FAILED, f"Exit_status {code}" + (f": {comment}" if comment else ""))
