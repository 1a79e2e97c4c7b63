# SPDX-License-Identifier: Apache-2.0
"""The four commands against the double, which behaves as a real server was seen to."""

import os
import time

import pytest

from snakemake_executor_plugin_isohypse_pbs.pbs import PbsError, QueueFull, Server, ServerSilent, call
from snakemake_executor_plugin_isohypse_pbs.states import Verdict

OPTIONS = ["-A", "p", "-l", "walltime=00:10:00", "-l", "filesystems=home"]


@pytest.fixture
def server(site, monkeypatch):
    for name, value in site.environment().items():
        monkeypatch.setenv(name, value)
    site.set("queue_seconds", 60)
    return Server(timeout_seconds=20)


def submit(server, tmp_path, *options, name="n", script="true"):
    path = tmp_path / "script"
    path.write_text(script)
    return server.submit(
        ["qsub", "-N", name, *OPTIONS, *options, "-j", "oe", "-o", f"{tmp_path}/", str(path)]
    )


def verdicts(states):
    return {int(job_id.split(".")[0]): state.verdict for job_id, state in states.items()}


def test_one_qstat_for_all(server, site, tmp_path):
    ids = [submit(server, tmp_path) for _ in range(4)]
    assert verdicts(server.poll(ids)) == dict.fromkeys(range(1, 5), Verdict.LIVE)
    assert len(site.calls("qstat")) == 1


def test_a_qstat_that_returns_only_the_first_id_loses_no_job(server, site, tmp_path):
    ids = [submit(server, tmp_path) for _ in range(4)]
    site.set("first_only")
    assert verdicts(server.poll(ids)) == dict.fromkeys(range(1, 5), Verdict.LIVE)
    assert len(site.calls("qstat")) == 4


def test_unknown_is_said_of_the_unknown_id_alone(server, site, tmp_path):
    ids = [submit(server, tmp_path) for _ in range(3)]
    site.forget(2)
    found = server.poll(ids)
    assert verdicts(found) == {1: Verdict.LIVE, 2: Verdict.UNKNOWN, 3: Verdict.LIVE}
    assert verdicts(server.poll([ids[1]])) == {2: Verdict.UNKNOWN}


def test_a_server_that_is_down_says_nothing(server, site, tmp_path):
    ids = [submit(server, tmp_path)]
    site.set("down")
    for ask in (lambda: server.poll(ids), lambda: server.find("n"), lambda: submit(server, tmp_path)):
        with pytest.raises(ServerSilent) as error:
            ask()
        assert not error.value.sent
    assert "errno=15010" in str(error.value)
    assert server.delete(ids).keys() == set(ids)


def test_a_server_that_hangs_may_have_got_the_request(server, site, tmp_path):
    site.set("hang")
    with pytest.raises(ServerSilent) as error:
        submit(Server(timeout_seconds=0.5), tmp_path, name="late")
    assert error.value.sent
    site.clear("hang")
    assert server.find("late") == ["1.fake-pbs-01"], "created after the client had given up"


def test_deletion_of_what_has_ended_or_never_was_is_no_failure(server, site, tmp_path):
    ids = [submit(server, tmp_path) for _ in range(2)]
    assert server.delete([*ids, "99.fake-pbs-01"]) == {}
    assert site.states() == "FF"
    assert server.delete(ids) == {}


def test_refusals_carry_the_servers_words(server, tmp_path):
    with pytest.raises(PbsError, match=r"\(188\).*violates queue"):
        submit(server, tmp_path, "-q", "debug", "-l", "select=9")
    with pytest.raises(PbsError, match="Unknown queue"):
        submit(server, tmp_path, "-q", "nowhere")
    submit(server, tmp_path, "-q", "debug-scaling")
    with pytest.raises(QueueFull, match="per-user limit"):
        submit(server, tmp_path, "-q", "debug-scaling")


def test_a_prod_job_that_is_too_small_gets_an_id_and_vanishes(server, tmp_path):
    job_id = submit(server, tmp_path, "-q", "prod")
    assert verdicts(server.poll([job_id])) == {1: Verdict.UNKNOWN}


def test_commands_run_out_of_reach_of_the_terminal(server, site):
    server.find("n")
    sessions = {call["session"] for call in site._log()}
    assert os.getsid(0) not in sessions


def test_a_missing_command_is_named():
    with pytest.raises(PbsError, match="cannot run no-such-qsub"):
        call(["no-such-qsub"], 5)


def test_polls_of_a_hundred_jobs_take_one_command(server, site, tmp_path):
    first = submit(server, tmp_path)
    record = (site.root / "jobs" / "1.json").read_text()
    for number in range(2, 101):
        (site.root / "jobs" / f"{number}.json").write_text(record)
    start = time.monotonic()
    found = server.poll([first, *(f"{number}.fake-pbs-01" for number in range(2, 101))])
    assert len(found) == 100
    assert len(site.calls("qstat")) == 1
    assert time.monotonic() - start < 15
