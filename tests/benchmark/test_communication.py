# SPDX-License-Identifier: Apache-2.0
"""What counts as communication, and what of it is hidden behind other work."""

import pytest

from isohypse.benchmark.communication import communication_of, length, merged


def test_spans_that_touch_or_overlap_are_one():
    assert merged([(5, 6), (0, 2), (1, 3), (3, 4)]) == [(0, 4), (5, 6)]
    assert length(merged([(0, 4), (1, 2)])) == 4
    assert merged([]) == []


@pytest.mark.parametrize(
    ("communicating", "other", "seconds", "exposed"),
    [
        ([(0, 2)], [(0, 5)], 2, 0),  # all behind computation
        ([(4, 8)], [(0, 5)], 4, 3),  # the last of a backward pass
        ([(0, 2), (1, 3)], [], 3, 3),  # two kernels at a time
        ([(1, 2)], [(3, 4)], 1, 1),  # a gap is neither
        ([(0, 10)], [(1, 2), (4, 6)], 10, 7),
        ([], [(0, 1)], 0, 0),
    ],
)
def test_only_what_nothing_else_hides_is_exposed(communicating, other, seconds, exposed):
    found = communication_of(communicating, other)
    assert (found.seconds, found.exposed_seconds) == (seconds, exposed)
