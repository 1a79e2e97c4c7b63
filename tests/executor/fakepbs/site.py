# SPDX-License-Identifier: Apache-2.0
"""A fresh PBS site for a test: its commands on PATH, its faults, its jobs."""

import json
import os
import sys
from pathlib import Path

TOOLS = {"qsub": "submit", "qstat": "query", "qselect": "query", "qdel": "control", "qrerun": "control"}
COMMAND = """#!{python} -SE
import sys
sys.path.insert(0, {here!r})
from fakepbs import store, submit, {module}
store.log_call({tool!r} + " begins", sys.argv[1:], None)
if {tool!r} != "qsub" and not store.fault("hang"):
    submit.serve_left_requests()
code = {module}.{tool}(sys.argv[1:])
store.log_call({tool!r}, sys.argv[1:], code)
sys.exit(code)
"""


class Site:
    """The double's folder, seen from a test."""

    def __init__(self, root: Path):
        self.root, self.bin = root, root / "bin"
        for folder in ("jobs", "faults", "requests", "home", "bin"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        here = str(Path(__file__).parents[1])
        for tool, module in TOOLS.items():
            path = self.bin / tool
            path.write_text(COMMAND.format(python=sys.executable, here=here, tool=tool, module=module))
            path.chmod(0o755)

    def environment(self):
        """Variables for a process that shall find the commands."""
        path = f"{self.bin}:{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
        return {
            "FAKEPBS": str(self.root),
            "PATH": path,
            "HOME": os.environ.get("HOME", "/tmp"),
            "LANG": "C.UTF-8",
        }

    def set(self, name, value=""):
        """Switch a fault on."""
        (self.root / "faults" / name).write_text(str(value))

    def clear(self, name):
        (self.root / "faults" / name).unlink(missing_ok=True)

    def jobs(self):
        """Records of all jobs, in the order of their submission."""
        paths = sorted((self.root / "jobs").glob("*.json"), key=lambda path: int(path.stem))
        return [json.loads(path.read_text()) for path in paths]

    def states(self):
        return "".join(job["job_state"] for job in self.jobs())

    def forget(self, number):
        """Drop a job from the server's history."""
        (self.root / "jobs" / f"{number}.json").unlink()

    def lose_node(self, number):
        (self.root / "jobs" / f"{number}.lost").touch()

    def preempt(self, number):
        """What the scheduler does to a job that is not rerunnable."""
        (self.root / "jobs" / f"{number}.delete").write_text("Scheduler@fake-pbs-01")

    def calls(self, tool):
        """Argument lists of the finished calls of a command."""
        return [call["argv"] for call in self._log() if call["tool"] == tool]

    def begun(self, tool):
        """How many calls of a command have begun."""
        return sum(call["tool"] == f"{tool} begins" for call in self._log())

    def _log(self):
        path = self.root / "calls.log"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
