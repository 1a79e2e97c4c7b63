# SPDX-License-Identifier: Apache-2.0
"""The log of a training through resumptions and a full disk."""

import resource

import pytest

from isohypse.errors import StorageError
from isohypse.training.log import MetricsLog, read_metrics


def rows(folder) -> list[int]:
    return [row[0] for row in read_metrics(folder / "metrics.csv")]


def write(folder, done: int, steps: range) -> None:
    log = MetricsLog(folder, done, tensorboard=False)
    for step in steps:
        log.write(step, "train", {"loss": 1 / step})
    log.close()


def test_rows_after_the_checkpoint_go(tmp_path):
    write(tmp_path, 0, range(1, 9))
    write(tmp_path, 5, range(6, 8))
    assert rows(tmp_path) == [1, 2, 3, 4, 5, 6, 7]


def test_a_full_disk_at_a_resumption_leaves_the_rows(tmp_path):
    """A file size limit stands for a full disk."""
    write(tmp_path, 0, range(1, 200))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 10, before[1]))
    try:
        with pytest.raises(StorageError, match="no room on this disk"):
            MetricsLog(tmp_path, 190, tensorboard=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert rows(tmp_path) == list(range(1, 200))
