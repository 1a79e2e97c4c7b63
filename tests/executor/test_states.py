# SPDX-License-Identifier: Apache-2.0
"""Verdicts on the fields of records that a real OpenPBS 23.06.06 gave."""

import pytest

from snakemake_executor_plugin_isohypse_pbs.states import Verdict, read_state

RUN = "Job run at Tue Nov 24 at 00:11 on (x3001c0s1b0n0:ncpus=1)"
GAVE_UP = "job held, too many failed attempts to run"
RECORDS = [
    ("live", {"job_state": "Q", "substate": 10, "comment": "Not Running: Not enough free nodes available"}),
    ("live", {"job_state": "Q", "substate": 10, "Exit_status": -11, "run_count": 1}),
    ("live", {"job_state": "H", "substate": 20, "Hold_Types": "u"}),
    ("live", {"job_state": "H", "substate": 22, "Hold_Types": "s"}),
    ("live", {"job_state": "W", "substate": 30}),
    ("live", {"job_state": "R", "substate": 41, "comment": RUN}),
    ("live", {"job_state": "E", "substate": 51, "Exit_status": 0, "comment": RUN}),
    ("live", {"job_state": "E", "substate": 63, "Exit_status": -3, "comment": RUN}),
    ("done", {"job_state": "F", "substate": 92, "Exit_status": 0, "comment": f"{RUN} and finished"}),
    ("failed", {"job_state": "F", "substate": 93, "Exit_status": 7, "comment": f"{RUN} and failed"}),
    ("failed", {"job_state": "F", "substate": 93, "Exit_status": 137, "comment": f"{RUN} and failed"}),
    ("failed", {"job_state": "F", "substate": 91}),
    ("failed", {"job_state": "F", "substate": 92}),
    ("failed", {"job_state": "F", "substate": 91, "Exit_status": -3, "comment": f"{GAVE_UP} and terminated"}),
    (
        "failed",
        {"job_state": "F", "substate": 91, "Exit_status": 271, "comment": f"{RUN} and terminated by puser@h"},
    ),
    ("interrupted", {"job_state": "F", "substate": 93, "Exit_status": -29}),
    ("interrupted", {"job_state": "F", "substate": 93, "Exit_status": -20}),
    (
        "interrupted",
        {"job_state": "F", "Exit_status": 271, "comment": f"{RUN} and terminated by Scheduler@h"},
    ),
    ("stuck", {"job_state": "H", "substate": 20, "Exit_status": -3, "comment": GAVE_UP}),
]


@pytest.mark.parametrize(("verdict", "record"), RECORDS)
def test_verdict(verdict, record):
    assert read_state(record).verdict is Verdict(verdict)


@pytest.mark.parametrize(
    ("words", "record"),
    [
        ("walltime exceeded", {"job_state": "F", "Exit_status": -29}),
        ("node lost", {"job_state": "F", "Exit_status": -20}),
        ("depends on failed", {"job_state": "F", "substate": 92}),
        ("log folder", {"job_state": "H", "comment": GAVE_UP}),
        ("puser@h", {"job_state": "F", "Exit_status": 271, "comment": "terminated by puser@h"}),
    ],
)
def test_the_words_name_the_cause(words, record):
    assert words in read_state(record).words
