# SPDX-License-Identifier: Apache-2.0
"""Names must be readable and within PBS's rules, whatever the wildcards hold."""

import re
from pathlib import Path

import pytest
from fakepbs.submit import ILLEGAL_IN_NAMES

from snakemake_executor_plugin_isohypse_pbs import names

AWKWARD = ["a/b c", "x=1,y:2", "(é)[ü]{}", "100%'\"$*@#;|&\\", "_", "", "7", "v" * 300]


@pytest.mark.parametrize("value", AWKWARD)
def test_job_names_are_legal(value):
    name = names.job_name(names.label("train", {"wildcard": value}) + ".0123abcd")
    assert not ILLEGAL_IN_NAMES.search(name)
    assert len(name) <= 230
    assert name[0].isalpha()


def test_names_say_rule_and_wildcards():
    label = names.label("train", {"model": "gla-small", "seed": "0"})
    assert label == "train.gla-small.0"
    assert names.log_folder(Path("logs"), "train", {"model": "gla", "seed": 0}) == Path("logs/train/gla.0")
    assert names.log_folder(Path("logs"), "all", {}) == Path("logs/all")


def test_a_label_is_never_empty():
    assert names.label("42", {"x": "_"}) == "job"


def test_submissions_of_one_job_have_different_names():
    drawn = {names.job_name("train.a") for _ in range(50)}
    assert len(drawn) == 50
    assert all(re.fullmatch(r"train\.a\.[0-9a-f]{6}", name) for name in drawn)
