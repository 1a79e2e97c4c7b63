# SPDX-License-Identifier: Apache-2.0
"""Progress with rate and time left: a live bar on a terminal, an occasional line in a log file."""

import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
LOG_SECONDS = float(os.environ.get("ISOHYPSE_LOG_SECONDS", "30"))  # between two lines in a log


class Progress:
    """Counts `total` units of work. `advance(n, **notes)` moves it; use as a context manager.

    On a terminal this is a tqdm bar. Elsewhere a line is printed at most every 30 seconds
    (ISOHYPSE_LOG_SECONDS), and one at the end, so that a cluster log stays readable. `silent`: nothing, for
    all but one of several processes.
    """

    def __init__(self, total: int, label: str, unit: str = "it", initial: int = 0, silent: bool = False):
        self.total, self.label, self.unit = total, label, unit
        self.count, self.start, self.initial = initial, time.monotonic(), initial
        self.last_line, self.notes = self.start, ""
        self.bar = (
            tqdm(total=total, desc=label, unit=unit, initial=initial, file=sys.stderr)
            if sys.stderr.isatty() and not silent
            else None
        )
        self.silent = silent

    def advance(self, n: int = 1, **notes: object) -> None:
        self.count += n
        if notes:
            self.notes = ", ".join(f"{name} {value}" for name, value in notes.items())
        if self.bar is not None:
            if notes:
                self.bar.set_postfix_str(self.notes, refresh=False)
            self.bar.update(n)
        elif time.monotonic() - self.last_line >= LOG_SECONDS:
            self._line()

    def _line(self) -> None:
        if self.silent:
            return
        self.last_line = time.monotonic()
        seconds = max(self.last_line - self.start, 1e-9)
        rate = (self.count - self.initial) / seconds
        left = (self.total - self.count) / rate if rate > 0 else float("inf")
        text = f"{self.label}: {self.count}/{self.total} {self.unit}, {rate:.3g} {self.unit}/s, "
        text += f"{seconds:.0f} s elapsed, {left:.0f} s left"
        print(f"{text}, {self.notes}" if self.notes else text, file=sys.stderr, flush=True)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_exception: object) -> None:
        if self.bar is not None:
            self.bar.close()
        else:
            self._line()


def track(items: Iterable[Item], total: int, label: str, unit: str = "it") -> Iterator[Item]:
    """Yield `items`, counting them."""
    with Progress(total, label, unit) as progress:
        for item in items:
            yield item
            progress.advance()
