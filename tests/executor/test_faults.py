# SPDX-License-Identifier: Apache-2.0
"""Rarer faults of the machine, with real snakemake processes on the double."""

import pytest

pytestmark = pytest.mark.slow
COUNT = "echo run >> runs; n=$(wc -l < runs); "


def running(flow, n=1):
    path = flow.folder / "runs"
    return lambda: path.exists() and len(path.read_text().splitlines()) >= n


def test_a_job_deleted_from_outside_fails_and_says_by_whom(flow):
    flow.write(COUNT + "sleep 100; touch {output}")
    client = flow.start(continuations=3)
    flow.until(running(flow))
    (flow.site.root / "jobs/1.delete").write_text("somebody@login")
    assert client.wait() == 1
    assert "deleted (Exit_status 271)" in client.text()
    assert "terminated by somebody@login" in client.text()
    assert len(flow.site.jobs()) == 1, "no continuation"


@pytest.mark.parametrize(
    ("fault", "words"),
    [("preempt", "preempted by the scheduler"), ("lose_node", "node lost (Exit_status -20)")],
)
def test_what_the_machine_interrupts_is_continued(flow, fault, words):
    flow.write(COUNT + "[ $n -gt 1 ] || sleep 100; touch {output}")
    client = flow.start("--default-resources", "rerunnable=n", continuations=1)
    flow.until(running(flow))
    getattr(flow.site, fault)(1)
    assert client.wait() == 0, client.text()
    assert words in client.text()
    assert len(flow.site.jobs()) == 2


def test_a_job_that_pbs_itself_reruns_stays_one_job(flow):
    flow.write(COUNT + "[ $n -gt 1 ] || sleep 100; touch {output}")
    client = flow.start()
    flow.until(running(flow))
    flow.site.lose_node(1)
    assert client.wait() == 0, client.text()
    (job,) = flow.site.jobs()
    assert job["run_count"] == 2


def test_an_interruption_without_continuations_left_is_a_failure(flow):
    flow.site.set("minute_seconds", 6)
    flow.write(COUNT + "sleep 100; touch {output}")
    code, said = flow.run(runtime=1, continuations=1)
    assert code == 1
    assert [job["Exit_status"] for job in flow.site.jobs()] == [-29, -29]
    assert "PBS: walltime exceeded" in said


def test_a_job_that_pbs_holds_for_good_is_deleted(flow):
    flow.site.set("queue_seconds", 3)
    client = flow.start()
    flow.until(lambda: flow.site.jobs())
    (flow.folder / "logs/pbs/make/a").rmdir()
    assert client.wait() == 1
    assert "too many failed attempts" in client.text()
    assert flow.site.states() == "F"


def test_a_job_on_hold_is_waited_for(flow):
    flow.site.set("hold")
    client = flow.start()
    flow.until(lambda: len(flow.site.calls("qstat")) >= 3)
    assert client.process.poll() is None
    client.interrupt()
    assert client.wait() == 1
    assert flow.site.states() == "F"


def test_a_hanging_server_makes_no_second_copy(flow):
    flow.write(COUNT + "touch {output}")
    client = flow.start(
        "--resources",
        "slots=1",
        "--default-resources",
        "slots=1",
        "--isohypse-pbs-command-timeout",
        "2",
        names="a,b",
    )
    flow.until(lambda: "Submitted PBS job" in client.text())
    flow.site.set("hang")
    flow.until(lambda: "got no answer in 2 s" in client.text())
    flow.site.clear("hang")
    assert client.wait() == 0, client.text()
    assert len(flow.site.jobs()) == 2
    assert (flow.folder / "runs").read_text() == "run\n" * 2


def test_a_qsub_without_an_answer_makes_no_second_copy(flow):
    flow.site.set("slow_qsub", 8)
    flow.write(COUNT + "sleep 3; touch {output}")
    client = flow.start("--isohypse-pbs-command-timeout", "4")
    flow.until(lambda: "qsub got no answer in 4 s" in client.text())
    assert client.wait() == 0, client.text()
    assert len(flow.site.jobs()) == 1


def test_ctrl_c_while_the_server_is_down_says_what_goes_on(flow):
    flow.write(COUNT + "sleep 8; touch {output}")
    client = flow.start()
    flow.until(running(flow))
    flow.site.set("down")
    client.interrupt()
    assert client.wait() == 1
    assert "These PBS jobs go on, and the next start adopts them: 1.fake-pbs-01" in client.text()
    flow.site.clear("down")
    code, said = flow.run()
    assert code == 0, said
    assert len(flow.site.jobs()) == 1


def test_a_full_queue_is_waited_for(flow):
    flow.write(COUNT + "touch {output}")
    code, said = flow.run("--isohypse-pbs-queue", "debug-scaling", names="a,b")
    assert code == 0, said
    assert "Waiting for room" in said
    assert len(flow.site.jobs()) == 2


def test_exit_0_of_a_node_that_did_not_run_the_job_is_no_success(flow):
    code, said = flow.run("--isohypse-pbs-prologue", "exit 0")
    assert code == 1
    assert "Snakemake on the node did not run the job" in said


def test_a_job_that_the_history_has_dropped_is_judged_by_what_it_left(flow):
    flow.write(COUNT + "sleep 2; touch {output}")
    flow.site.set("exit_seconds", 4)
    client = flow.start("--isohypse-pbs-poll-interval", "2")
    flow.until(lambda: flow.site.states() == "F")
    flow.site.forget(1)
    assert client.wait() == 0, client.text()


def test_groups_are_one_job_and_are_adopted_as_one(flow):
    (flow.folder / "Snakefile").write_text(
        """
rule all:
    input: "out/b.txt"
rule first:
    output: "out/a.txt"
    group: "pair"
    resources: runtime=5
    shell: "echo run >> runs; sleep 5; touch {output}"
rule second:
    input: "out/a.txt"
    output: "out/b.txt"
    group: "pair"
    resources: runtime=5
    shell: "cp {input} {output}"
"""
    )
    client = flow.start()
    flow.until(running(flow))
    client.kill()
    client = flow.restart_after_kill()
    assert client.wait() == 0, client.text()
    (job,) = flow.site.jobs()
    assert job["Resource_List"]["walltime"] == "00:10:00"
    assert job["Job_Name"].startswith("pair.")


def test_many_jobs_of_a_rule_are_few_pbs_jobs(flow):
    """Those of a group share one node, as many at a time as fit; `cores` are those of a node, not of all."""
    flow.write("echo {wildcards.name} > {output}")
    file = flow.folder / "Snakefile"
    file.write_text(file.read_text().replace("resources: ", "threads: 2\n    resources: nodes=1, "))
    groups = ("--groups", "make=many", "--group-components", "many=4", "--cores", "4")
    code, said = flow.run(*groups, names=",".join("abcdefghijkl"))
    assert code == 0, said
    jobs = flow.site.jobs()
    assert len(jobs) == 3
    for job in jobs:
        assert job["Resource_List"]["select"] == "1:ncpus=4"
        assert job["Resource_List"]["walltime"] == "00:20:00"
        assert job["Job_Name"].startswith("many.")
    assert len(list((flow.folder / "out").glob("*.txt"))) == 12


def test_forty_jobs_at_once(flow):
    flow.site.set("nodes", 2)
    names = ",".join(f"n{i}" for i in range(40))
    flow.write("touch {output}")
    client = flow.start("--isohypse-pbs-poll-interval", "3", names=names)
    assert client.process.wait(600) == 0, client.text()
    assert flow.site.states() == "F" * 40
    assert max(len([w for w in call if w[0].isdigit()]) for call in flow.site.calls("qstat")) >= 30
    assert flow.entries() == []
