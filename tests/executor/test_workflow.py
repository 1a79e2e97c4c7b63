# SPDX-License-Identifier: Apache-2.0
"""Real snakemake processes on the double: what a user meets on an ordinary day, and on a bad one."""

import json

import pytest

SHOW = (
    "command -v snakemake; "  # the client's programs are on the node's PATH
    "echo $SNAKEMAKE_PBS_DEADLINE $SNAKEMAKE_PBS_CONTINUE $SITE_MODULE $(wc -l < $PBS_NODEFILE) > {output}"
)
PROFILE = """
isohypse-pbs-chunk: system=polaris
isohypse-pbs-queue-limits: ["debug:nodes=1-2,minutes=5-60", "prod:nodes=10-496"]
isohypse-pbs-prologue: |
  # modules { of the site }
  module() { echo "loaded $1"; }
  module conda
  export SITE_MODULE="yes it is"
"""
COUNT = "echo run >> runs; n=$(wc -l < runs); "


def records(flow, state):
    return [job for job in flow.site.jobs() if job["job_state"] == state]


def running(flow, n=1):
    """The rule's command itself has begun, n times."""
    path = flow.folder / "runs"
    return lambda: path.exists() and len(path.read_text().splitlines()) >= n


def test_success(flow):
    flow.write(SHOW)
    (flow.folder / "site").mkdir()
    (flow.folder / "site/config.yaml").write_text(PROFILE)
    code, said = flow.run("--profile", "site", names="a,b", runtime=7)
    assert code == 0, said
    assert [job["Exit_status"] for job in flow.site.jobs()] == [0, 0]
    job = flow.site.jobs()[0]
    assert job["Job_Name"].startswith(("make.a.", "make.b."))
    assert job["Resource_List"]["select"] == "1:system=polaris:ncpus=1"
    assert job["Resource_List"]["walltime"] == "00:07:00"
    deadline, marker, *module, nodes = flow.output("a").split()
    assert 300 < int(deadline) - (flow.folder / "out/a.txt").stat().st_mtime <= 420
    assert marker.startswith(str(flow.folder / ".snakemake"))
    assert (module, nodes) == (["yes", "it", "is"], "1")
    log = next((flow.folder / "logs/pbs/make/a").glob("*.OU"))
    assert "loaded conda" in log.read_text()
    assert f"log {log.relative_to(flow.folder)}" in said
    assert f"-W umask={flow.umask:03o}" in job["Submit_arguments"]
    assert (flow.folder / "out/a.txt").stat().st_mode & 0o777 == 0o666 & ~flow.umask
    assert flow.entries() == [], "nothing is left when all has ended"
    assert any(len([word for word in call if word[0].isdigit()]) == 2 for call in flow.site.calls("qstat"))
    assert "othing to be done" in flow.run(names="a,b", runtime=7)[1]


def test_failures_use_retries_and_name_the_log(flow):
    flow.write(COUNT + "exit 3")
    code, said = flow.run("--retries", "1")
    assert code == 1
    assert [job["Exit_status"] for job in flow.site.jobs()] == [1, 1]
    assert "PBS: Exit_status 1" in said
    assert "logs/pbs/make/a/2.fake-pbs-01.OU" in said
    assert flow.entries() == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--isohypse-pbs-account", "$PROJ"), "PBS account is '$PROJ', a variable that is not set"),
        (
            ("--isohypse-pbs-queue-limits", "debug:nodes=2-2", "prod:nodes=10-496"),
            "takes 2 to 2 nodes, not 1",
        ),
    ],
)
def test_what_cannot_work_is_refused_before_anything_starts(flow, options, words):
    code, said = flow.run(*options)
    assert code == 1
    assert words in said
    assert "Nothing was started" in said
    assert flow.site.begun("qsub") == 0


def test_a_silent_server_is_refused_at_the_start_and_a_dry_run_needs_none(flow):
    flow.site.set("down")
    code, said = flow.run()
    assert code == 1
    assert "errno=15010" in said
    assert flow.site.begun("qsub") == 0
    assert flow.start("-n", without=("account",)).wait() == 0


def test_walltime_and_a_stop_in_time_are_continued_without_retries(flow):
    flow.site.set("minute_seconds", 7)
    flow.write(
        COUNT
        + "case $n in 1) sleep 60;; 2) touch $SNAKEMAKE_PBS_CONTINUE; exit 85;; *) echo $n > {output};; esac"
    )
    code, said = flow.run(runtime=1, continuations=2)
    assert code == 0, said
    assert flow.output() == "3\n"
    assert [job["Exit_status"] for job in flow.site.jobs()] == [-29, 1, 0]
    assert "walltime exceeded" in said
    assert "stopped itself to be continued; continuing, 2 of 2 times" in said
    assert "Trying to restart" not in said
    assert flow.entries() == []


@pytest.mark.parametrize(
    "phase",
    [
        "qsub",
        "running",
        pytest.param("queued", marks=pytest.mark.slow),
        pytest.param("poll", marks=pytest.mark.slow),
    ],
)
def test_ctrl_c_leaks_no_job(flow, phase):
    flow.write(COUNT + "sleep 100; touch {output}")
    flow.site.set("queue_seconds", 0.1 if phase in ("running", "poll") else 100)
    if phase == "qsub":
        flow.site.set("slow_qsub", 2)
    client = flow.start(names="a,b,c")
    if phase == "qsub":
        flow.until(lambda: flow.site.jobs())
    elif phase == "queued":
        flow.until(lambda: len(flow.site.jobs()) == 3)
    else:
        flow.until(running(flow, 3))
    if phase == "poll":
        flow.site.set("slow_qstat", 4)
        before = flow.site.begun("qstat")
        flow.until(lambda: flow.site.begun("qstat") > before)
    client.interrupt()
    if phase == "poll":  # a second one, while the client waits for its qstat
        flow.until(lambda: "Deleting the PBS jobs" in client.text())
        client.interrupt()
    assert client.wait() == 1
    flow.until(lambda: set(flow.site.states()) == {"F"})
    assert all(job.get("Exit_status", 271) == 271 for job in flow.site.jobs())
    assert "Error in rule" not in client.text()


@pytest.mark.parametrize(
    "phase",
    [
        "running",
        pytest.param("queued", marks=pytest.mark.slow),
        pytest.param("between qsub and id", marks=pytest.mark.slow),
    ],
)
def test_jobs_of_a_killed_client_are_adopted(flow, phase):
    flow.write(COUNT + "sleep 5; touch {output}")
    flow.site.set("queue_seconds", 0.1 if phase == "running" else 12)
    if phase == "between qsub and id":
        flow.site.set("slow_qsub", 5)
    client = flow.start()
    flow.until(running(flow) if phase == "running" else lambda: flow.site.jobs())
    if phase == "queued":
        flow.until(lambda: "Submitted PBS job" in client.text())
    client.kill()
    client = flow.restart_after_kill()
    assert client.wait() == 0, client.text()
    assert "Adopted PBS job 1.fake-pbs-01" in client.text()
    assert (flow.folder / "runs").read_text() == "run\n"
    assert len(flow.site.jobs()) == 1
    assert flow.entries() == []


def end_unwatched(flow, **config):
    """A job that ends after its client was killed."""
    flow.write(COUNT + "sleep 3; echo {params.version} > {output}")
    client = flow.start(**config)
    flow.until(running(flow))
    client.kill()
    flow.until(lambda: flow.site.states() == "F")
    assert flow.site.jobs()[0]["Exit_status"] == 0


def test_a_job_that_ended_unwatched_gets_its_record(flow):
    end_unwatched(flow, version=1)
    client = flow.restart_after_kill(version=1)
    assert client.wait() == 0, client.text()
    assert "othing to be done" in client.text()
    metadata = [json.loads(p.read_text()) for p in (flow.folder / ".snakemake/metadata").glob("*")]
    assert [record["rule"] for record in metadata] == ["make"]
    assert metadata[0]["params"] == ["1"]
    assert "Params have changed" in flow.start("-n", version=2).finished(), "a later change is seen"


@pytest.mark.slow
def test_a_job_that_ended_unwatched_from_something_else_is_made_again(flow):
    end_unwatched(flow, version=1)
    client = flow.restart_after_kill(version=2)
    assert client.wait() == 0, client.text()
    assert "made it from something else" in client.text()
    assert flow.output() == "2\n"


@pytest.mark.slow
def test_a_start_with_other_parameters_beside_a_live_job_is_refused(flow):
    flow.write(COUNT + "sleep 100; touch {output}")
    client = flow.start(version=1)
    flow.until(running(flow))
    client.kill()
    client = flow.restart_after_kill(version=2)
    assert client.wait() == 1
    assert (
        "PBS still makes some of these outputs from other params, inputs or command: 1.fake" in client.text()
    )
    assert flow.site.states() == "R", "the running job is left alone"


@pytest.mark.slow
def test_a_server_that_is_down_for_a_while_costs_nothing(flow):
    flow.write(COUNT + "sleep 1; touch {output}")
    client = flow.start()
    flow.until(running(flow))
    flow.site.set("down")
    flow.until(lambda: "PBS does not answer" in client.text())
    flow.until(lambda: flow.site.states() == "F")
    assert client.process.poll() is None
    flow.site.clear("down")
    assert client.wait() == 0, client.text()
    assert client.text().count("PBS does not answer") == 1
    assert "PBS answers again" in client.text()


@pytest.mark.slow
def test_a_vanished_job_fails_with_the_likely_reason(flow):
    code, said = flow.run("--isohypse-pbs-queue", "prod")
    assert code == 1
    assert "prod takes 10 nodes or more" in said
    assert flow.entries() == []
