# SPDX-License-Identifier: Apache-2.0
"""qsub: options, mandatory ones, queues and limits. A prod job with too few nodes gets an id and vanishes."""

import getopt
import os
import re
import subprocess
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path

from . import store

ILLEGAL_IN_NAMES = re.compile(r"""[^!-~]|[%,'"$*@#;|&()\[\]{}\\:/=<>?`!~^]""")
# nodes, seconds, jobs of one user
QUEUES = {
    "debug": ((1, 2), (0, 3600), None),
    "debug-scaling": ((1, 10), (0, 3600), 1),
    "preemptable": ((1, 10), (0, 72 * 3600), None),
    "capacity": ((1, 4), (0, 168 * 3600), 2),
    "prod": ((10, 496), (0, 24 * 3600), None),
}


def qsub(argv):
    waiting = _write_request(argv)
    if not store.server_answers("qsub"):
        waiting.unlink(missing_ok=True)
        return 162
    try:
        waiting.unlink()
    except FileNotFoundError:
        return 1  # another command found the request in the server's queue and served it
    return serve(argv, os.getcwd())


def _write_request(argv):
    """What the server has received: a client that is killed while it hangs leaves it behind."""
    path = store.ROOT / "requests" / str(os.getpid())
    path.write_text("\0".join([os.getcwd(), *argv]))
    return path


def serve_left_requests():
    """Requests of clients that gave up while the server hung: it serves them late."""
    for path in (store.ROOT / "requests").glob("*"):
        if not Path(f"/proc/{path.name}").exists():
            cwd, *argv = path.read_text().split("\0")
            path.unlink(missing_ok=True)
            with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
                serve(argv, cwd)


def serve(argv, cwd):
    options, rest = getopt.getopt(argv, "fN:A:q:l:j:k:o:e:r:v:VW:S:")
    single, limits = {}, {}
    for flag, value in options:
        if flag == "-l":
            limits |= dict(item.split("=", 1) for item in _split_limits(value))
        elif flag == "-W":
            single |= {f"-W{k}": v for k, v in [value.split("=", 1)]}
        else:
            single[flag] = value
    refusal = _refusal(single, limits, rest)
    if refusal:
        store.say(refusal[1])
        return refusal[0]
    number, vanishes = _enter(argv, single, limits, rest[0], cwd)
    if not vanishes:
        _start_mom(number)
    print(store.job_id(number), flush=True)
    time.sleep(store.fault("slow_qsub"))
    return 0


def _split_limits(value):
    return [value] if value.startswith("select=") else value.split(",")


def nodes_of(limits):
    return sum(int(part.split(":")[0]) for part in limits.get("select", "1").split("+"))


def seconds_of(text):
    total = 0
    for part in str(text).split(":"):
        total = total * 60 + int(part)
    return total


def _refusal(single, limits, rest):
    name, queue = single.get("-N", "STDIN"), single.get("-q", "debug")
    if len(name) > 230 or ILLEGAL_IN_NAMES.search(name):
        return 2, "qsub: illegal -N value"
    if not rest or not os.path.exists(rest[0]):
        return 1, "qsub: script file:: No such file or directory"
    if "-A" not in single:
        return 1, "qsub: Account_Name is required to be set."
    if "filesystems" not in limits or "walltime" not in limits:
        missing = "filesystems" if "filesystems" not in limits else "walltime"
        return 1, f"qsub: Resource: {missing} is required to be set."
    if queue not in QUEUES:
        return 170, "qsub: Unknown queue"
    nodes, seconds, most = QUEUES[queue]
    within = nodes[0] <= nodes_of(limits) <= nodes[1] and seconds_of(limits["walltime"]) <= seconds[1]
    if queue != "prod" and not within:
        return 188, "qsub: Job violates queue and/or server resource limits"
    if most and sum(job["queue"] == queue and job["job_state"] != "F" for job in _jobs()) >= most:
        return 38, f"qsub: would exceed queue {queue}'s per-user limit"
    return None


def _jobs():
    return [store.load(number) for number in store.numbers()]


def _enter(argv, single, limits, script, cwd):
    with store.locked():
        counter = store.ROOT / "next"
        number = int(counter.read_text()) if counter.exists() else 1
        counter.write_text(str(number + 1))
        queue = single.get("-q", "debug")
        vanishes = queue == "prod" and nodes_of(limits) < QUEUES["prod"][0][0]
        if not vanishes:
            (store.ROOT / "jobs" / f"{number}.SC").write_text(Path(script).read_text())
            store.save(number, _record(argv, single, limits, number, cwd, queue))
    return number, vanishes


def _record(argv, single, limits, number, cwd, queue):
    name = single.get("-N", os.path.basename(argv[-1]))
    held, waits = bool(store.fault("hold")), "-Wdepend" in single
    now = time.strftime("%a %b %d %H:%M:%S %Y")
    record = {
        "Job_Name": int(name) if name.isdigit() else name,
        "Job_Owner": f"puser@{store.HOST}",
        "job_state": "H" if held or waits else "Q",
        "queue": queue,
        "server": store.HOST,
        "Account_Name": single["-A"],
        "ctime": now,
        "Error_Path": single.get("-e", os.path.join(cwd, f"{name}.e{number}")),
        "Hold_Types": "u" if held else "s" if waits else "n",
        "Join_Path": single.get("-j", "n"),
        "Keep_Files": single.get("-k", "n"),
        "Output_Path": os.path.join(cwd, single.get("-o", f"{name}.o{number}")),
        "Priority": 0,
        "Rerunable": str(single.get("-r", "y") == "y"),
        "Resource_List": limits | {"nodect": nodes_of(limits)},
        "substate": 20 if held else 22 if waits else 10,
        "Variable_List": _variables(single, cwd),
        "Submit_arguments": " ".join(argv),
        "project": "_pbs_project_default",
    }
    extra = {"depend": single.get("-Wdepend"), "umask": single.get("-Wumask")}
    return record | {key: value for key, value in extra.items() if value}


def _variables(single, cwd):
    named = [item for item in single.get("-v", "").split(",") if item]
    passed = dict(i.split("=", 1) if "=" in i else (i, os.environ.get(i, "")) for i in named)
    if "-V" in single:
        passed = dict(os.environ) | passed
    return passed | {"PBS_O_WORKDIR": cwd, "PBS_O_QUEUE": single.get("-q", "debug"), "PBS_O_HOST": store.HOST}


def _start_mom(number):
    here = str(Path(__file__).parents[1])
    code = f"import sys; sys.path.insert(0, {here!r}); from fakepbs import mom; mom.main({number})"
    quiet = subprocess.DEVNULL
    with open(store.ROOT / "mom.log", "a") as errors:
        subprocess.Popen(
            [sys.executable, "-SE", "-c", code],
            stdin=quiet,
            stdout=quiet,
            stderr=errors,
            start_new_session=True,
            cwd="/",
        )
