# SPDX-License-Identifier: Apache-2.0
"""Seconds spent on optimisation steps alone, without evaluation and checkpoints, across restarts."""

import time


class Clock:
    """Runs between `start` and `stop`; `seconds` in all and `lap_seconds` since the last `lap`."""

    def __init__(self, seconds: float = 0.0, lap_seconds: float = 0.0):
        self.seconds, self.lap_seconds = seconds, lap_seconds
        self.started: float | None = None

    def start(self) -> None:
        self.started = time.perf_counter()

    def stop(self) -> None:
        """Add what has passed since `start`. The device must have finished what it was given."""
        passed = time.perf_counter() - self.started
        self.started = None
        self.seconds += passed
        self.lap_seconds += passed

    def lap(self) -> float:
        """Seconds since the last call; begins anew."""
        lap, self.lap_seconds = self.lap_seconds, 0.0
        return lap

    def state(self) -> dict[str, float]:
        return {"seconds": self.seconds, "lap_seconds": self.lap_seconds}
