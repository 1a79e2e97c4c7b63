# SPDX-License-Identifier: Apache-2.0
"""State of the double: one JSON file a job, a lock, and faults that tests switch on."""

import fcntl
import json
import os
import sys
import time
from contextlib import contextmanager
from pathlib import Path

HOST = "fake-pbs-01"
ROOT = Path(os.environ.get("FAKEPBS", "."))


def job_id(number):
    return f"{number}.{HOST}"


def number_of(some_id):
    """The number of an id, or None when it is not one of this server's."""
    number, _, host = some_id.partition(".")
    return number if number.isdigit() and host in ("", HOST) else None


@contextmanager
def locked():
    with open(ROOT / "lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def job_file(number):
    return ROOT / "jobs" / f"{number}.json"


def load(number):
    return json.loads(job_file(number).read_text())


def save(number, job):
    part = job_file(number).with_suffix(f".part{os.getpid()}")
    part.write_text(json.dumps(job))
    os.replace(part, job_file(number))


def change(number, **fields):
    """Set fields of a job; None takes a field away."""
    with locked():
        job = load(number) | fields
        save(number, {key: value for key, value in job.items() if value is not None})
    return job


def numbers():
    return sorted((int(path.stem) for path in (ROOT / "jobs").glob("*.json")), key=int)


def fault(name, default=0.0):
    """The number in the file of that name; 1 if it is empty; the default if there is no file."""
    try:
        return float((ROOT / "faults" / name).read_text() or 1)
    except OSError:
        return default


def say(text):
    print(text, file=sys.stderr)


def server_answers(tool):
    """Whether the server is up. A hanging one answers late, and by then the client may be gone."""
    while fault("hang"):
        time.sleep(0.05)
    if not fault("down"):
        return True
    say("Connection refused")
    say(f"{tool}: cannot connect to server {HOST} (errno=15010)")
    return False


def envelope():
    return {"timestamp": int(time.time()), "pbs_version": "23.06.06", "pbs_server": HOST}


def log_call(tool, argv, code):
    with open(ROOT / "calls.log", "a") as file:
        file.write(json.dumps({"tool": tool, "argv": argv, "code": code, "session": os.getsid(0)}) + "\n")
