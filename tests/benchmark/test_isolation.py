# SPDX-License-Identifier: Apache-2.0
"""A measurement in a process of its own tells what it found, also when it fails or is stopped."""

import sys
import time

import pytest

from isohypse.benchmark.isolation import attempt, in_own_process
from isohypse.errors import UnavailableError


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    """Let the process find the functions below."""
    folder, _, _ = __file__.rpartition("/")
    monkeypatch.setenv("PYTHONPATH", f"{folder}:{':'.join(sys.path)}")


def counts(question, started):
    print("a library says something")
    for number in range(question["count"]):
        yield {"number": number, "age": time.time() - started}


def fails(question, started):
    yield {"number": 0}
    raise ValueError("two\n lines")


def hangs(question, started):
    yield {"number": 0}
    time.sleep(60)


def leaves(question, started):
    yield {"number": 0}
    sys.exit(7)


def test_records_come_in_order_and_time_counts_from_before_the_process():
    before = time.time()
    answer = in_own_process("test_isolation:counts", {"count": 3}, 60)
    assert answer.trouble is None
    assert [record["number"] for record in answer.records] == [0, 1, 2]
    assert 0 < answer.records[0]["age"] < time.time() - before


@pytest.mark.parametrize(
    ("function", "limit", "trouble"),
    [
        ("fails", 60, "ValueError: two lines"),
        ("hangs", 2, "stopped after 2 s"),
        ("leaves", 60, "the process ended with 7"),
    ],
)
def test_what_was_told_before_the_trouble_stays(function, limit, trouble):
    answer = in_own_process(f"test_isolation:{function}", {}, limit)
    assert answer.trouble == trouble
    assert answer.records == [{"number": 0}]


def test_an_attempt_finds_something_or_says_why_not():
    assert attempt(lambda: 3) == (3, None)
    assert attempt(lambda: 1 // 0) == (None, "ZeroDivisionError: integer division or modulo by zero")

    def refuses():
        raise UnavailableError("needs a GPU")

    assert attempt(refuses) == (None, "needs a GPU")
