# SPDX-License-Identifier: Apache-2.0
"""The life of a job: Q, R, E, F, with the delays, kills and records that PBS was seen to make."""

import os
import signal
import subprocess
import time
from contextlib import suppress

from . import store
from .submit import seconds_of

NODE = "x3001c0s1b0n0"


def main(number):
    while _wait_in_queue(number):
        if not _run(number):
            return


def _wait_in_queue(number):
    """True when the job may start, False when it was deleted or can never start."""
    since = time.monotonic()
    while True:
        job = store.load(number)
        if job["job_state"] == "F":
            return False
        if job["substate"] == 22 and not _follow_dependency(number, job):
            return False
        waited = time.monotonic() - since >= store.fault("queue_seconds", 0.1)
        if job["job_state"] == "Q" and waited and _take_slot(number):
            return True
        time.sleep(0.05)


def _take_slot(number):
    """Start only when a node is free."""
    with store.locked():
        busy = sum(store.load(n)["job_state"] in "RE" for n in store.numbers())
        job = store.load(number)
        if busy >= store.fault("nodes", 1000) or job["job_state"] != "Q":
            return False
        comment = f"Job run at {time.strftime('%a %b %d at %H:%M')} on ({NODE}:ncpus=1)"
        job |= {
            "job_state": "R",
            "substate": 41,
            "comment": comment,
            "run_count": job.get("run_count", 0) + 1,
        }
        job.pop("Exit_status", None)
        store.save(number, job)
    return True


def _follow_dependency(number, job):
    """afterok:ID releases the job or, when ID failed, ends it without Exit_status."""
    other = store.load(store.number_of(job["depend"].split(":")[1].split("@")[0]))
    if other["job_state"] == "F" and other.get("Exit_status") == 0:
        store.change(number, job_state="Q", substate=10, Hold_Types="n")
    elif other["job_state"] == "F":
        store.change(number, job_state="F", substate=92)
        return False
    return True


def _run(number):
    """Run once; True when it goes back to the queue."""
    job = store.load(number)
    folder = os.path.dirname(job["Output_Path"])
    if not os.path.isdir(folder):
        return _no_output_folder(number, job)
    process = _start(number, job)
    store.change(number, substate=42, session_id=process.pid)
    code, ending, again = _watch(number, job, process)
    if again:
        store.change(number, job_state="Q", substate=10, Exit_status=-11, session_id=None)
        return True
    store.change(number, job_state="E", substate=51, Exit_status=code)
    time.sleep(store.fault("exit_seconds", 0.05))
    substate = 92 if code == 0 else 91 if code == 271 else 93
    comment = f"{store.load(number)['comment']} and {ending}"
    store.change(number, job_state="F", substate=substate, comment=comment, obittime=time.ctime())
    return False


def _no_output_folder(number, job):
    """With -k d PBS tries 21 times and holds the job; without, the job runs and its log stays on the node."""
    if "d" in job["Keep_Files"]:
        store.change(
            number,
            job_state="H",
            substate=20,
            Hold_Types="s",
            Exit_status=-3,
            run_count=21,
            comment="job held, too many failed attempts to run",
        )
        return True
    store.change(number, job_state="F", substate=92, Exit_status=0)
    return False


def _start(number, job):
    home = store.ROOT / "home"
    nodefile = store.ROOT / f"{number}.nodes"
    nodes = job["Resource_List"]["nodect"]
    nodefile.write_text("".join(f"x3001c0s{i}b0n0\n" for i in range(nodes)))
    environment = {
        "HOME": str(home),
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "USER": "puser",
        "PBS_JOBID": store.job_id(number),
        "PBS_JOBNAME": str(job["Job_Name"]),
        "PBS_NODEFILE": str(nodefile),
        "PBS_ENVIRONMENT": "PBS_BATCH",
        "PBS_QUEUE": job["queue"],
        "OMP_NUM_THREADS": "1",
        "NCPUS": "1",
    } | job["Variable_List"]
    umask = int(job.get("umask", "077"), 8)
    out, err = _streams(number, job, umask)
    return subprocess.Popen(
        ["/bin/bash", str(store.ROOT / "jobs" / f"{number}.SC")],
        cwd=home,
        env=environment,
        umask=umask,
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=err,
        start_new_session=True,
    )


def _streams(number, job, umask):
    def opened(path, ending):
        target = os.path.join(path, f"{store.job_id(number)}.{ending}") if os.path.isdir(path) else path
        return os.open(target, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666 & ~umask)

    out = opened(job["Output_Path"], "OU")
    return out, out if job["Join_Path"] == "oe" else opened(job["Error_Path"], "ER")


def _watch(number, job, process):
    """(Exit_status, words of the comment, whether it goes back to the queue)."""
    walltime = seconds_of(job["Resource_List"]["walltime"]) * store.fault("minute_seconds", 60) / 60
    end = time.monotonic() + walltime + store.fault("late_seconds")
    deletion, rerun = store.ROOT / "jobs" / f"{number}.delete", store.ROOT / "jobs" / f"{number}.rerun"
    while process.poll() is None:
        lost = store.ROOT / "jobs" / f"{number}.lost"
        if lost.exists():
            _kill(process, gently=False)
            lost.unlink()
            return (-20, "failed", False) if job["Rerunable"] != "True" else (-11, "", True)
        if rerun.exists():
            _kill(process)
            rerun.unlink()
            return -11, "", True
        if deletion.exists():
            _kill(process)
            return 271, f"terminated by {deletion.read_text()}", False
        if time.monotonic() > end:
            _kill(process)
            return -29, "exceeded resource walltime", False
        time.sleep(0.05)
    code = process.returncode
    return (code, "finished", False) if code == 0 else (code if code > 0 else 128 - code, "failed", False)


def _kill(process, gently=True):
    """SIGTERM to all processes of the job's session, then SIGKILL."""
    if gently:
        _signal_session(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(store.fault("kill_seconds", 0.5))
    _signal_session(process.pid, signal.SIGKILL)
    process.wait()


def _signal_session(session, which):
    for entry in os.listdir("/proc"):
        try:
            if entry.isdigit() and os.getsid(int(entry)) == session:
                os.kill(int(entry), which)
        except (ProcessLookupError, PermissionError):
            continue
