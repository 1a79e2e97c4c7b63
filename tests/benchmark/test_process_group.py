# SPDX-License-Identifier: Apache-2.0
"""The processes of a measurement: what they are told, and that none is left."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from isohypse.benchmark import process_group
from isohypse.benchmark.process_group import GroupFailure, run_group

RANK = "import os, sys, time, subprocess, pathlib; rank = int(os.environ['RANK']);"
STAY = "child = subprocess.Popen(['sleep', '60']);"
STAY += "pathlib.Path(sys.argv[1], str(rank)).write_text(str(child.pid));"


def command(then: str, *arguments) -> list[str]:
    return [sys.executable, "-c", RANK + then, *map(str, arguments)]


def gone(pid: int) -> bool:
    """Whether a process has ended, or is about to: a zombie whose parent has not looked yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def wait_until(true) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_ranks_are_told_who_they_are_and_the_first_one_answers():
    say = "print(os.environ['WORLD_SIZE'], os.environ['LOCAL_RANK'], os.environ['NCCL_NVLS_ENABLE'])"
    assert run_group(command(f"rank or {say}"), 2, 20) == "2 0 0\n"


def test_groups_at_the_same_time_meet_each_at_a_port_of_its_own():
    """As trainings do: init_process_group under the launcher's socket, several groups at once."""
    meet = "import torch; from isohypse.training.ranks import joined, ranks_of\n"
    meet += "with joined(ranks_of(), 'cpu') as ranks: top = ranks.greatest(int(sys.argv[1]) + rank)\n"
    meet += "rank or print(top)"
    with ThreadPoolExecutor(4) as pool:
        said = pool.map(lambda n: run_group(command(meet, 10 * n), 2, 120), range(4))
        assert list(said) == [f"{10 * n + 1}\n" for n in range(4)]


def test_a_rank_that_fails_ends_the_others_and_is_quoted(tmp_path, monkeypatch):
    monkeypatch.setattr(process_group, "GRACE_SECONDS", 0.2)
    then = f"{STAY} rank or time.sleep(60); raise MemoryError('too much: of it')"
    with pytest.raises(GroupFailure, match="rank 1 ended with 1: MemoryError: too much: of it"):
        run_group(command(then, tmp_path), 2, 40)
    wait_until(lambda: all(gone(int((tmp_path / str(rank)).read_text())) for rank in range(2)))


def test_the_limit_ends_all_and_what_they_have_started(tmp_path):
    with pytest.raises(GroupFailure, match="stopped after 2 s"):
        run_group(command(f"{STAY} time.sleep(60)", tmp_path), 2, 2.0)
    wait_until(lambda: all(gone(int((tmp_path / str(rank)).read_text())) for rank in range(2)))


def test_ranks_end_with_the_one_who_started_them(tmp_path):
    then = "from isohypse.benchmark.process_group import end_with_parent; end_with_parent();"
    ranks = command(f"{then} {STAY} time.sleep(60)", tmp_path)
    code = f"from isohypse.benchmark.process_group import run_group; run_group({ranks!r}, 2, 60)"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(tmp_path)}
    parent = subprocess.Popen([sys.executable, "-c", code], env=environment)
    wait_until(lambda: all((tmp_path / str(rank)).exists() for rank in range(2)))
    time.sleep(0.1)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    wait_until(lambda: all(gone(int((tmp_path / str(rank)).read_text())) for rank in range(2)))
