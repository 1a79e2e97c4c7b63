# SPDX-License-Identifier: Apache-2.0
"""What is asked of qsub, and what is refused before anything is asked."""

from pathlib import Path

import pytest

from snakemake_executor_plugin_isohypse_pbs.resources import (
    QueueLimit,
    RequestError,
    check_limits,
    chunks,
    request,
)
from snakemake_executor_plugin_isohypse_pbs.settings import ExecutorSettings

SETTINGS = ExecutorSettings(account="proj", queue="debug", filesystems="home:eagle", chunk="system=polaris")
LIMITS = ["prod:nodes=10-496,minutes=5-1440", "debug:nodes=1-2,minutes=5-60"]


def argv(resources, threads=1, settings=SETTINGS):
    return " ".join(request(resources, threads, settings).argv("n", Path("/logs"), 0o22))


def test_the_line_that_works_on_polaris():
    line = argv({"runtime": 120, "nodes": 2, "gpu": 4}, threads=64)
    assert "-l select=2:system=polaris:ncpus=64:ngpus=4 -l place=scatter -l walltime=02:00:00" in line
    assert "-l filesystems=home:eagle -j oe -k doe -o /logs/ -r y -W umask=022" in line
    assert line.startswith("qsub -f -N n -A proj -q debug ")


def test_resources_go_before_settings():
    line = argv({"runtime": 5, "account": "other", "queue": "prod", "filesystems": "home", "rerunnable": "n"})
    assert "-A other -q prod" in line
    assert "filesystems=home -j" in line
    assert "-r n" in line


def test_a_select_of_ones_own():
    wanted = request({"runtime": 5, "select": "2:ncpus=4+1:ncpus=1"}, 1, SETTINGS)
    assert wanted.nodes == 3
    assert "select=2:ncpus=4+1:ncpus=1" in wanted.argv("n", Path("/"), 0o77)


def test_sites_without_file_system_resources_and_queues():
    line = argv({"runtime": 5}, settings=ExecutorSettings(account="proj"))
    assert "filesystems" not in line
    assert "-q" not in line


@pytest.mark.parametrize(
    ("resources", "settings", "word"),
    [
        ({"runtime": 5}, ExecutorSettings(), "no PBS account"),
        ({"runtime": 5}, ExecutorSettings(account="$PROJ"), "a variable that is not set"),
        ({"runtime": 5, "queue": "${Q}"}, SETTINGS, "PBS queue is"),
        ({}, SETTINGS, "no walltime"),
        ({"runtime": 0}, SETTINGS, "runtime is 0"),
        ({"runtime": 5, "nodes": "two"}, SETTINGS, "nodes is 'two'"),
        ({"runtime": 5, "gpu": -1}, SETTINGS, "gpu is -1"),
        ({"runtime": 5, "rerunnable": "yes"}, SETTINGS, "rerunnable is 'yes'"),
    ],
)
def test_refusals_say_what_and_how(resources, settings, word):
    with pytest.raises(RequestError, match=word.replace("$", r"\$")):
        request(resources, 1, settings)


@pytest.mark.parametrize(
    ("resources", "word"),
    [
        ({"runtime": 30, "queue": "prod"}, "takes 10 to 496 nodes, not 1"),
        ({"runtime": 90}, "takes 5 to 60 minutes, not 90"),
        ({"runtime": 30, "queue": "prodd"}, "not in queue-limits"),
    ],
)
def test_limits_of_queues(resources, word):
    with pytest.raises(RequestError, match=word):
        check_limits(request(resources, 1, SETTINGS), LIMITS)


def test_requests_within_the_limits_pass():
    check_limits(request({"runtime": 60, "nodes": 2}, 1, SETTINGS), LIMITS)
    check_limits(request({"runtime": 6000, "nodes": 200}, 1, SETTINGS), [])
    check_limits(request({"runtime": 6000, "queue": "demand"}, 1, SETTINGS), [*LIMITS, "demand"])


@pytest.mark.parametrize("text", ["prod:nodes=10", "prod:nodes=1-2;minutes=1-2", ":nodes=1-2", "q:cpus=1-2"])
def test_limits_that_do_not_read_are_refused(text):
    with pytest.raises(RequestError, match="does not read"):
        QueueLimit.parse(text)


def test_chunks_are_counted():
    assert [chunks(text) for text in ("1", "4:ncpus=2", "ncpus=2", "2:a=1+3")] == [1, 4, 1, 5]
