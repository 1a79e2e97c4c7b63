# SPDX-License-Identifier: Apache-2.0
"""Stopping a training between two steps: a signal or the end of the job's time asks, the loop answers.

SIGTERM, SIGUSR1 and SIGINT ask to stop; so does a deadline, which whoever started the job leaves in the
environment (DEADLINES), as none of the signals is sure to come in time. The loop writes a checkpoint and
leaves with an exit status that is no success. All but SIGINT, which is a person's, also leave the file that
whoever started the job named in the environment (CONTINUES): the job is started again then, and no failure
is counted. An error never leaves it: a wrong configuration or a loss that is not finite is the same the next
time.
"""

import os
import signal
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

from isohypse.errors import ConfigurationError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
DEADLINES = ("ISOHYPSE_DEADLINE", "SNAKEMAKE_PBS_DEADLINE", "SLURM_JOB_END_TIME")
"""Seconds since 1970 when the job is killed; the first that is set counts. Ours is for one's own scripts."""
CONTINUES = ("ISOHYPSE_CONTINUE", "SNAKEMAKE_PBS_CONTINUE")
"""The path of that file; the first that is set counts."""
OUT_OF_TIME = 75
"""Reason and exit status of a stop before the deadline (EX_TEMPFAIL of sysexits.h: try again later)."""
SAME_KEY_SECONDS = 1.0
"""A launcher passes the terminal's SIGINT on, so that it comes twice for one Ctrl-C."""


class StopRequest:
    """Within its `with` block a signal only sets `reason`; a second Ctrl-C acts at once.

    deadline: seconds since 1970, or None. Python allows handlers in the main thread alone; elsewhere signals
    act as usual.
    """

    def __init__(self, deadline: float | None = None) -> None:
        self.deadline = deadline
        self.signal: signal.Signals | None = None
        self.noted = 0.0
        self.before: dict[signal.Signals, object] = {}

    @property
    def reason(self) -> int:
        """0: go on; else the signal's number or OUT_OF_TIME."""
        if self.signal is not None:
            return int(self.signal)
        return OUT_OF_TIME if self.deadline is not None and time.time() >= self.deadline else 0

    @property
    def asked(self) -> float:
        """Since when, as time.monotonic() has it; now, if this process has not been asked."""
        now = time.monotonic()
        if self.signal is not None:
            return self.noted
        return now - max(0.0, time.time() - self.deadline) if self.reason else now

    def _note(self, number: int, _frame: FrameType | None) -> None:
        first = self.signal is None
        if first:
            self.signal, self.noted = signal.Signals(number), time.monotonic()
        elif number == signal.SIGINT and not self._again():
            self._restore()
            signal.raise_signal(signal.SIGINT)

    def _again(self) -> bool:
        return self.signal == signal.SIGINT and time.monotonic() - self.noted < SAME_KEY_SECONDS

    def _restore(self) -> None:
        while self.before:
            number, handler = self.before.popitem()
            signal.signal(number, handler)

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_exception: object) -> None:
        self._restore()


def deadline(margin_seconds: float, environment: Mapping[str, str] = os.environ) -> float | None:
    """When to stop, in seconds since 1970: `margin_seconds` before the job ends; None: no end is known.

    Raises ConfigurationError for a variable that holds no number.
    """
    for name in DEADLINES:
        if value := environment.get(name):
            try:
                return float(value) - margin_seconds
            except ValueError:
                raise ConfigurationError(f"${name} is {value!r}, not seconds since 1970") from None
    return None


def in_words(reason: int) -> str:
    return "the job's time is nearly over" if reason == OUT_OF_TIME else signal.Signals(reason).name


def leave(reason: int) -> None:
    """End the process: KeyboardInterrupt, or exit status OUT_OF_TIME or 128 + signal."""
    if reason == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(reason if reason == OUT_OF_TIME else 128 + reason)


def ask_to_continue(reason: int, environment: Mapping[str, str] = os.environ) -> None:
    """Leave the file by which whoever started the job knows that this stop is no failure."""
    path = next((environment[name] for name in CONTINUES if environment.get(name)), None)
    if reason != signal.SIGINT and path:
        Path(path).touch()
