# SPDX-License-Identifier: Apache-2.0
"""qdel and qrerun. A running job is told by a file that its mom looks for."""

from . import store


def qdel(argv):
    if not store.server_answers("qdel"):
        return 162
    return max([_delete(some_id) for some_id in argv], default=0)


def _delete(some_id):
    number = store.number_of(some_id)
    if number is None or not store.job_file(number).exists():
        store.say(f"qdel: Unknown Job Id {some_id}")
        return 153
    with store.locked():
        job = store.load(number)
        if job["job_state"] == "F":
            store.say(f"qdel: Job has finished {some_id}")
            return 35
        if job["job_state"] in "QHW":
            comment = f"{job['comment']} and terminated" if "comment" in job else None
            job |= {"job_state": "F", "substate": 91} | ({"comment": comment} if comment else {})
            store.save(number, job)
        else:
            (store.ROOT / "jobs" / f"{number}.delete").write_text(f"puser@{store.HOST}")
    return 0


def qrerun(argv):
    if not store.server_answers("qrerun"):
        return 162
    for some_id in argv:
        job = store.load(store.number_of(some_id))
        if job["Rerunable"] != "True":
            store.say(f"qrerun: Job not rerunnable {some_id}")
            return 190
        (store.ROOT / "jobs" / f"{store.number_of(some_id)}.rerun").touch()
    return 0
