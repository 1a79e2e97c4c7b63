# SPDX-License-Identifier: Apache-2.0
"""The double against what a real OpenPBS 23.06.06 was seen to do: the other tests rest on it."""

import json
import re
import subprocess
import time

import pytest

OPTIONS = ["-A", "p", "-q", "debug", "-l", "walltime=00:10:00", "-l", "filesystems=home"]


class Machine:
    """Commands at a site, as a user would type them."""

    def __init__(self, site, folder):
        self.site, self.folder = site, folder

    def __call__(self, *argv):
        return subprocess.run(
            argv, env=self.site.environment(), cwd=self.folder, capture_output=True, text=True, timeout=30
        )

    def submit(self, script, *options, only=()):
        path = self.folder / "script.sh"
        path.write_text(script)
        done = self(
            "qsub", *(only or (*OPTIONS, "-j", "oe", "-k", "doe", "-o", f"{self.folder}/")), *options, path
        )
        path.write_text("exit 99  # the script was copied when it was submitted")
        return done

    def until(self, states, seconds=20):
        end = time.monotonic() + seconds
        while self.site.states() != states:
            assert time.monotonic() < end, (self.site.states(), (self.site.root / "mom.log").read_text())
            time.sleep(0.02)
        return self.site.jobs()[-1]

    def log(self, number=1):
        return (self.folder / f"{number}.fake-pbs-01.OU").read_text()


@pytest.fixture
def machine(site, tmp_path):
    return Machine(site, tmp_path)


@pytest.mark.parametrize(
    ("script", "code", "substate"),
    [("true", 0, 92), ("exit 7", 7, 93), ("kill -9 $$", 137, 93), ("kill -15 $$", 143, 93)],
)
def test_exit_status(machine, script, code, substate):
    machine.submit(script)
    job = machine.until("F")
    assert (job["Exit_status"], job["substate"], job["run_count"]) == (code, substate, 1)
    assert job["comment"].endswith("and finished" if code == 0 else "and failed")


def test_the_job_starts_at_home_with_a_clean_environment(machine):
    machine.submit(
        "pwd; umask; env; cat $PBS_NODEFILE; ls /proc/self/fd | wc -l",
        "-v",
        "A=1",
        "-W",
        "umask=027",
        "-l",
        "select=2:ngpus=4",
    )
    job = machine.until("F")
    log = machine.log()
    assert str(machine.site.root / "home") in log
    assert "0027" in log
    assert "A=1" in log
    assert "FAKEPBS" not in log
    assert "PBS_JOBID=1.fake-pbs-01" in log
    assert len(re.findall(r"^x3001c0s\db0n0$", log, re.M)) == 2
    assert job["Resource_List"]["nodect"] == 2, "numbers are numbers"


def test_logs_are_closed_to_others_without_a_umask(machine):
    machine.submit("true")
    machine.until("F")
    assert (machine.folder / "1.fake-pbs-01.OU").stat().st_mode & 0o777 == 0o600


def test_fields_are_missing_until_they_exist(machine):
    machine.site.set("queue_seconds", 60)
    machine.submit("true")
    record = json.loads(machine("qstat", "-x", "-f", "-F", "json", "1").stdout)["Jobs"]["1.fake-pbs-01"]
    assert record["job_state"] == "Q"
    assert not {"Exit_status", "run_count", "comment"} & record.keys()
    machine("qdel", "1")
    assert "Exit_status" not in machine.until("F")


def test_exit_status_is_there_before_the_end(machine):
    machine.site.set("exit_seconds", 1)
    machine.submit("true")
    assert machine.until("E")["Exit_status"] == 0
    machine.until("F")


def test_a_running_job_is_asked_and_then_killed(machine):
    machine.site.set("minute_seconds", 0.1)
    machine.submit("trap 'echo asked' TERM; sleep 30 & wait; sleep 30")
    job = machine.until("F")
    assert job["Exit_status"] == -29
    assert job["comment"].endswith("exceeded resource walltime")
    assert "asked" in machine.log()


def test_deletion_of_a_running_job(machine):
    machine.submit("sleep 30")
    machine.until("R")
    assert machine("qdel", "1").returncode == 0
    job = machine.until("F")
    assert (job["Exit_status"], job["substate"]) == (271, 91)
    assert "terminated by puser@" in job["comment"]


def test_return_codes(machine):
    for tool in (["qstat", "9"], ["qdel", "9"]):
        done = machine(*tool)
        assert (done.returncode, done.stderr) == (153, f"{tool[0]}: Unknown Job Id 9\n")
    machine.submit("true")
    machine.until("F")
    assert machine("qstat", "1").returncode == 35
    assert machine("qdel", "1").returncode == 35
    machine.site.set("down")
    down = machine("qstat", "-f", "-F", "json", "1")
    assert (down.returncode, "Jobs" in json.loads(down.stdout)) == (255, False)
    assert "errno=15010" in down.stderr
    codes = [machine(*argv).returncode for argv in (["qselect"], ["qdel", "1"])]
    assert [*codes, machine.submit("true").returncode] == [162, 162, 162]


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("-l", "walltime=1:00", "-l", "filesystems=home"), 1, "Account_Name is required"),
        (("-A", "p", "-l", "walltime=1:00"), 1, "filesystems is required"),
        (("-A", "p", "-l", "filesystems=home"), 1, "walltime is required"),
        ((*OPTIONS, "-l", "walltime=02:00:00"), 188, "violates queue and/or server resource limits"),
        ((*OPTIONS, "-q", "no"), 170, "Unknown queue"),
        ((*OPTIONS, "-N", "a:b"), 2, "illegal -N value"),
        ((*OPTIONS, "-N", "n" * 231), 2, "illegal -N value"),
    ],
)
def test_refusals(machine, options, code, words):
    done = machine.submit("true", only=options)
    assert done.returncode == code
    assert words in done.stderr
    assert machine.site.jobs() == []


def test_dependencies(machine):
    machine.site.set("queue_seconds", 0.5)
    machine.submit("exit $WITH", "-v", "WITH=0")
    machine.submit("true", "-W", "depend=afterok:1.fake-pbs-01")
    assert machine.site.jobs()[1]["substate"] == 22
    assert machine.until("FF")["Exit_status"] == 0
    machine.submit("exit 1")
    machine.submit("true", "-W", "depend=afterok:3.fake-pbs-01")
    job = machine.until("FFFF")
    assert (job["substate"], "Exit_status" in job) == (92, False)


def test_rerun(machine):
    machine.submit("echo here; [ $(wc -l < $0) -gt 9 ] || sleep 1", "-r", "y")
    machine.until("R")
    machine("qrerun", "1")
    job = machine.until("F")
    assert job["run_count"] == 2
    assert machine.log().count("here") == 2
    machine.submit("sleep 5", "-r", "n")
    machine.until("FR")
    assert machine("qrerun", "2").returncode == 190
    machine("qdel", "2")
    machine.until("FF")


def test_a_missing_log_folder(machine):
    machine.submit("true", "-o", "/no/such/folder/")
    job = machine.until("H")
    assert (job["Exit_status"], job["run_count"], job["substate"]) == (-3, 21, 20)
    assert "too many failed attempts" in job["comment"]
    machine("qdel", "1")
    assert "and terminated" in machine.until("F")["comment"]
    machine.submit("exit 5", "-o", "/no/such/folder/", "-k", "n")
    assert machine.until("FF")["Exit_status"] == 0


def test_a_name_of_digits_is_a_number_in_json(machine):
    machine.submit("true", "-N", "17")
    assert machine.until("F")["Job_Name"] == 17
    assert machine("qselect", "-x", "-N", "17").stdout == "1.fake-pbs-01\n"
    assert machine("qselect", "-N", "17").stdout == "", "ended jobs only with -x"
