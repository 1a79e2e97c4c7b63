# SPDX-License-Identifier: Apache-2.0
"""qstat and qselect."""

import json
import time

from . import store


def qstat(argv):
    time.sleep(store.fault("slow_qstat"))
    if not store.server_answers("qstat"):
        print(json.dumps(store.envelope()))
        return 255
    asked = [word for word in argv if word[0].isdigit()]
    if store.fault("first_only") and len(asked) > 1:
        asked = asked[:1]
    jobs, code = {}, 0
    for some_id in asked or map(str, store.numbers()):
        number = store.number_of(some_id)
        if number is None or not store.job_file(number).exists():
            store.say(f"qstat: Unknown Job Id {some_id}")
            code = 153
            continue
        job = store.load(number)
        if job["job_state"] == "F" and "-x" not in argv:
            store.say(f"qstat: {some_id} Job has finished, use -x or -H to obtain historical job information")
            code = 35
            continue
        jobs[store.job_id(number)] = job
    print(json.dumps(store.envelope() | ({"Jobs": jobs} if jobs else {}), indent="\t"))
    return code


def qselect(argv):
    if not store.server_answers("qselect"):
        return 162
    name = argv[argv.index("-N") + 1] if "-N" in argv else None
    for number in store.numbers():
        job = store.load(number)
        if (job["job_state"] != "F" or "-x" in argv) and name in (None, str(job["Job_Name"])):
            print(store.job_id(number))
    return 0
