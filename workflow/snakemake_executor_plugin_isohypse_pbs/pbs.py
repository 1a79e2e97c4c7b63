# SPDX-License-Identifier: Apache-2.0
"""The four PBS commands: qsub, qstat, qselect, qdel. Nothing here knows Snakemake.

Return codes are PBS's error numbers modulo 256 (OpenPBS, pbs_error.h): 153 unknown job, 35 finished job,
162 or 255 no connection to the server, 38 a limit on the number of jobs.
"""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from .states import UNKNOWN, State, read_state

UNKNOWN_JOB = 153
JOB_FINISHED = 35
NO_CONNECTION = (162, 255)
IDS_A_QDEL = 50


class PbsError(Exception):
    """A PBS command was refused."""


class ServerSilent(PbsError):
    """The server is down or does not answer in time; `sent`: it may have got the request all the same."""

    def __init__(self, text: str, sent: bool = False):
        super().__init__(text)
        self.sent = sent


class QueueFull(PbsError):
    """A limit on the number of jobs, which passes as soon as another job ends."""


@dataclass(frozen=True)
class Reply:
    """Return code and output of a command."""

    code: int
    out: str
    err: str


def call(argv: Sequence[str], timeout_seconds: float) -> Reply:
    """Run a PBS command in a session of its own, out of reach of a Ctrl-C at the terminal."""
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_seconds,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        raise ServerSilent(f"{argv[0]} got no answer in {timeout_seconds:g} s", sent=True) from None
    except OSError as error:
        raise PbsError(f"cannot run {argv[0]}: {error.strerror}; is PBS in PATH on this machine?") from error
    if done.returncode in NO_CONNECTION:
        raise ServerSilent(f"{argv[0]}: {_last_line(done.stderr)}")
    return Reply(done.returncode, done.stdout, done.stderr)


@dataclass(frozen=True)
class Server:
    """The PBS server behind the commands."""

    timeout_seconds: float = 60

    def submit(self, argv: Sequence[str]) -> str:
        """qsub; the id of the new job. Raises QueueFull, ServerSilent, PbsError."""
        reply = call(argv, self.timeout_seconds)
        if reply.code == 0 and reply.out.strip():
            return reply.out.split()[-1]
        text = f"qsub refused the job ({reply.code}): {_last_line(reply.err)}"
        raise QueueFull(text) if "would exceed" in reply.err else PbsError(text)

    def poll(self, ids: Sequence[str]) -> dict[str, State]:
        """The state of each id, by one qstat. Ids without an answer are left out.

        One release line of OpenPBS returns only the first of many ids (openpbs issue 2672): every missing one
        is asked singly, and only `Unknown Job Id` for that very id counts as unknown. Raises ServerSilent.
        """
        found = self._ask(ids) if ids else {}
        for job_id in [i for i in ids if i not in found] if len(ids) > 1 else []:
            try:
                found |= self._ask([job_id])
            except ServerSilent:
                break
        return found

    def find(self, name: str) -> list[str]:
        """Ids of the jobs of that name, ended ones too, oldest first. Raises ServerSilent, PbsError."""
        reply = call(["qselect", "-x", "-N", name], self.timeout_seconds)
        if reply.code != 0:
            raise PbsError(f"qselect ({reply.code}): {_last_line(reply.err)}")
        return sorted(reply.out.split(), key=lambda job_id: int(_number(job_id)))

    def delete(self, ids: Sequence[str]) -> dict[str, str]:
        """qdel; {id: reason} of those that could not be deleted. Ended and unknown jobs need no deletion."""
        kept = {}
        for first in range(0, len(ids), IDS_A_QDEL):
            some = ids[first : first + IDS_A_QDEL]
            try:
                reply = call(["qdel", *some], self.timeout_seconds)
                why = None if reply.code in (0, JOB_FINISHED, UNKNOWN_JOB) else _last_line(reply.err)
            except PbsError as error:
                why = str(error)
            if why is not None:
                kept |= dict.fromkeys(some, why)
        return kept

    def _ask(self, ids: Sequence[str]) -> dict[str, State]:
        reply = call(["qstat", "-x", "-f", "-F", "json", *ids], self.timeout_seconds)
        if len(ids) == 1 and reply.code == UNKNOWN_JOB and "Unknown Job Id" in reply.err:
            return {ids[0]: UNKNOWN}
        try:
            records = json.loads(reply.out or "{}").get("Jobs", {})
        except ValueError:
            return {}
        by_number = {_number(job_id): record for job_id, record in records.items()}
        return {i: read_state(by_number[_number(i)]) for i in ids if _number(i) in by_number}


def _number(job_id: str) -> str:
    return job_id.partition(".")[0]


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1]
