# SPDX-License-Identifier: Apache-2.0
"""What cannot be measured costs its own row and not the others: processes of their own, failures as words.

A model that is measured in a process of its own starts as a user's would, leaves no memory behind, and ends
alone. What it finds it tells as it goes, so that one that is stopped has told what it had.
"""

import json
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib import import_module
from typing import Any, Generic, NamedTuple, TypeVar

from isohypse.errors import IsohypseError
from isohypse.progress import track

MARK = "isohypse-record "
"""Starts the lines of the process's output that are records; libraries print others."""
_ERROR = "error"
_CHILD = "import sys; from isohypse.benchmark.isolation import answer; answer(*sys.argv[1:])"
T = TypeVar("T")
Q = TypeVar("Q")


class Answer(NamedTuple):
    """What a process told, and why it ended before its end, if it did."""

    records: list[dict[str, Any]]
    trouble: str | None


class Attempt(NamedTuple, Generic[T]):
    """What was found, or why nothing was."""

    found: T | None
    reason: str | None


def attempt(work: Callable[[], T]) -> Attempt[T]:
    """Do `work`, whatever comes of it: other libraries fail with errors of any kind."""
    try:
        return Attempt(work(), None)
    except Exception as error:
        return Attempt(None, in_a_line(error))


def in_a_line(error: Exception) -> str:
    """A foreseen error speaks for itself; of others the kind is told."""
    kind = "" if isinstance(error, IsohypseError) else f"{type(error).__name__}: "
    return f"{kind}{' '.join(str(error).split())}"[:200]


def in_own_process(function: str, question: Mapping[str, Any], limit_seconds: float) -> Answer:
    """Let `function` ("package.module:name") answer `question` in a new process of this Python.

    It is called with the question and with `time.time()` from before the process was there, and gives
    records that JSON can hold, one after another. Its errors go to this process's stderr, too.
    """
    command = [sys.executable, "-c", _CHILD, function, json.dumps(question), str(time.time())]
    with tempfile.TemporaryFile("w+") as said:
        try:
            code = subprocess.run(command, stdout=said, timeout=limit_seconds, check=False).returncode
            trouble = f"the process ended with {code}" if code else None
        except subprocess.TimeoutExpired:
            trouble = f"stopped after {limit_seconds:.0f} s"
        said.seek(0)
        records = _records(said)
    if records and _ERROR in records[-1]:
        trouble = records.pop()[_ERROR]
    return Answer(records, trouble)


def answers(
    function: str, questions: Sequence[Q], limit_seconds: float, label: str, device: str
) -> Iterator[tuple[Q, Answer]]:
    """Each question, a dataclass, with what `in_own_process` makes of it, one after another.

    device: in words. It is told first: on a processor the paper's sizes take long.
    """
    what = f"{label} of {len(questions)} {'model' if len(questions) == 1 else 'models'} on {device}"
    print(f"isohypse: {what}, at most {limit_seconds:.0f} s each", file=sys.stderr)
    for question in track(questions, len(questions), label, "model"):
        yield question, in_own_process(function, asdict(question), limit_seconds)


def _records(lines: Iterable[str]) -> list[dict[str, Any]]:
    """Those of complete lines: a process may be stopped within one."""
    return [
        json.loads(line.removeprefix(MARK)) for line in lines if line.startswith(MARK) and line[-1] == "\n"
    ]


def answer(function: str, question: str, started: str) -> None:
    """The process's part of `in_own_process`."""
    module, _, name = function.partition(":")
    try:
        for record in getattr(import_module(module), name)(json.loads(question), float(started)):
            _tell(record)
    except Exception as error:
        traceback.print_exc()
        _tell({_ERROR: in_a_line(error)})
        sys.exit(1)


def _tell(record: dict[str, Any]) -> None:
    print(f"{MARK}{json.dumps(record)}", flush=True)
