# SPDX-License-Identifier: Apache-2.0
"""The ranks of one measurement as processes of this machine; none outlives its time or its parent."""

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from isohypse.launching import start_group

GRACE_SECONDS = 5.0  # for the others to leave by themselves once a process has failed
NVLINK_MULTICAST = "NCCL_NVLS_ENABLE"
"""Off unless the environment says otherwise: on shared machines it is not everybody's to use."""


class GroupFailure(Exception):
    """Why there is no result, in a line."""


def run_group(command: Sequence[str], ranks: int, limit_seconds: float) -> str:
    """Run `command` in `ranks` processes that know each other; returns what the first of them prints.

    Raises GroupFailure if one fails or they take longer. Then, too, nothing of them is left.
    """
    os.environ.setdefault(NVLINK_MULTICAST, "0")
    with tempfile.TemporaryDirectory(prefix="isohypse-") as folder, contextlib.ExitStack() as files:
        said = files.enter_context(Path(folder, "said").open("w"))
        errors = files.enter_context(Path(folder, "errors").open("w"))
        options = {"stdout": said, "stderr": errors, "stdin": subprocess.DEVNULL, "start_new_session": True}
        processes = start_group(command, ranks, **options)
        try:
            trouble = _trouble(processes, time.monotonic() + limit_seconds)
        finally:
            _end(processes)
        if trouble is None:
            return Path(folder, "said").read_text()
        raise GroupFailure(f"{trouble}{_last_error(Path(folder, 'errors'))}")


def _trouble(processes: Sequence[subprocess.Popen], end: float) -> str | None:
    """Wait for all, or until one fails and the others have had their grace."""
    start, failed = time.monotonic(), None
    while None in [process.poll() for process in processes]:
        failed = next((rank for rank, process in enumerate(processes) if process.returncode), failed)
        if failed is not None:
            end = min(end, time.monotonic() + GRACE_SECONDS)
        if time.monotonic() > end:
            break
        time.sleep(0.05)
    failed = next((rank for rank, process in enumerate(processes) if process.returncode), failed)
    if failed is not None:
        return f"rank {failed} ended with {processes[failed].returncode}"
    unfinished = any(process.returncode is None for process in processes)
    return f"stopped after {time.monotonic() - start:.0f} s" if unfinished else None


def _end(processes: Sequence[subprocess.Popen]) -> None:
    """Each leads a session, and with it go compilers that it may have started."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    for process in processes:
        process.wait()


def _last_error(file: Path) -> str:
    """The last line that names an error, in whatever order the ranks wrote."""
    lines = [line.strip() for line in file.read_text(errors="replace").splitlines() if line.strip()]
    named = [line for line in lines if "Error" in line.split(":")[0]] or lines
    return f": {named[-1][:300]}" if named else ""


def end_with_parent() -> None:
    """Let this process and its session end when the one that started it has ended, however that did."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.killpg(os.getpgid(0), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
