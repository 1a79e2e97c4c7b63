# SPDX-License-Identifier: Apache-2.0
"""One process a training: a second one on the same checkpoints is refused, not left to overwrite the first.

The lock is the operating system's and ends with the process, however that ends: after a kill nothing has to
be cleaned up.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from isohypse.errors import TrainingError


@contextmanager
def exclusive(work: Path) -> Iterator[None]:
    """Hold the folder `work` for this process. Raises TrainingError if another one holds it."""
    work.parent.mkdir(parents=True, exist_ok=True)
    with work.with_name(f"{work.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TrainingError(
                f"{work}: another process is at this training; wait for it or end it"
            ) from None
        yield
