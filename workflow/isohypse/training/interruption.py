# SPDX-License-Identifier: Apache-2.0
"""Stopping a training between two steps: SIGTERM and SIGINT ask, the loop answers after a checkpoint."""

import signal
import threading
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Within its `with` block the first signal only sets `requested`; a second one acts at once, as usual.

    Python allows handlers in the main thread alone; elsewhere this does nothing.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self.before: dict[signal.Signals, object] = {}

    @property
    def requested(self) -> bool:
        return self.signal is not None

    def leave(self) -> None:
        """End the process as the signal would have: KeyboardInterrupt, or exit code 128 + signal."""
        if self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + int(self.signal))

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.signal = signal.Signals(number)
        self._restore()

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
