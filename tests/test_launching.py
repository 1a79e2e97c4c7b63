# SPDX-License-Identifier: Apache-2.0
"""One command becomes many processes: on this machine, and on several through a stand-in for mpiexec."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from isohypse import launching
from isohypse.errors import ConfigurationError
from isohypse.launching import NODE_NUMBER
from isohypse.machines import NODE_FILE, SLURM_JOB

SAY = """#!{python}
import os, sys, time, pathlib
names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR")
pathlib.Path(sys.argv[-1], os.environ["RANK"]).write_text(" ".join(os.environ[name] for name in names))
{then}
"""
LAUNCHER = """#!/bin/sh
if [ "$*" = "--version" ]; then echo "{version}"; exit 0; fi
for word in "$@"; do printf "%s\n" "$word" >> "$CALLED"; done
while [ "${{1#*/}}" = "$1" ]; do shift; done  # the options have no slash, the program has
for node in 0 1; do {number}=$node "$@" & done
wait
"""
CRAY = ["-n", "2", "--ppn", "1", "--cpu-bind", "none"]
HYDRA = ["-n", "2", "-hosts", "localhost,other", "-ppn", "1"]
OPEN_MPI = ["-n", "2", "--host", "localhost,other", "--map-by", "ppr:1:node", "--bind-to", "none"]
FAMILIES = {  # what each says of itself, how it numbers processes, how it is to be called
    "cray": ("mpiexec version 1.2.12", "PALS_RANKID", CRAY),
    "mpich": ("HYDRA build details:\n    Version:    4.0.2", "PMI_RANK", [*HYDRA, "-bind-to", "none"]),
    "intel": (
        "Intel(R) MPI Library for Linux* OS, Version 2021.18.1",
        "PMI_RANK",
        [*HYDRA, "-genv", "I_MPI_PIN", "off"],
    ),
    "open-mpi-4": ("mpiexec (OpenRTE) 4.1.4", "OMPI_COMM_WORLD_RANK", OPEN_MPI),
    "open-mpi-5": ("mpirun (Open MPI) 5.0.3", "OMPI_COMM_WORLD_RANK", OPEN_MPI),
}
SECURE_SHELL = """#!/bin/sh
while [ "${1#-}" != "$1" ]; do shift; done
host=$1; shift
echo $host >> "$CALLED"
mkdir -p "$CALLED-$host"  # a folder for each of Open MPI's daemons, and no map of processors that they share
exec env -i PATH="$PATH" TMPDIR="$CALLED-$host" OMPI_MCA_rtc=^hwloc sh -c "$*"
"""
SQUEUE = """#!/bin/sh
[ "$*" = "-h -j 17 -o %N" ] && echo "local[host]"
"""
SCONTROL = """#!/bin/sh
[ "$*" = "show hostnames local[host]" ] && printf "localhost\\nother\\n"
"""


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Let the processes run a script instead of `isohypse`; returns where each leaves what it was told."""

    def make(then: str = "") -> Path:
        package = tmp_path / "isohypse"
        package.mkdir()
        (package / "__init__.py").touch()
        for name in ("errors.py", "launching.py", "machines.py"):
            (package / name).write_text(Path(launching.__file__).with_name(name).read_text())
        (package / "cli.py").write_text(SAY.format(python=sys.executable, then=then))
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        for name in ("RANK", *NODE_NUMBER, NODE_FILE, SLURM_JOB):
            monkeypatch.delenv(name, raising=False)
        return tmp_path

    return make


def said(folder: Path) -> list[str]:
    return [(folder / str(rank)).read_text() for rank in range(4) if (folder / str(rank)).exists()]


def test_one_machine(command):
    folder = command()
    assert launching.launch([str(folder)], 1, 3) == 0
    assert said(folder) == [f"{rank} 3 {rank} 3 127.0.0.1" for rank in range(3)]


MEET = """
import os, socket, sys, time
address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
if os.environ["RANK"] == "0":
    time.sleep(0.3)  # as a process that first imports torch
    own = socket.socket(fileno=int(os.environ["ISOHYPSE_MEETING"]))
    own.listen()
    for _ in range(2):
        guest = own.accept()[0]
        guest.sendall(sys.argv[1].encode())
        guest.close()
else:
    assert "ISOHYPSE_MEETING" not in os.environ
    end = time.monotonic() + 30
    while (guest := socket.socket()).connect_ex(address):
        assert time.monotonic() < end
        time.sleep(0.02)
    assert guest.recv(100).decode() == sys.argv[1]
"""


def test_groups_that_start_at_the_same_time_never_share_a_port():
    """Each rank meets the first of its own group, and none finds its port taken."""
    groups = [launching.start_group([sys.executable, "-c", MEET, str(n)], 3) for n in range(16)]
    assert [[rank.wait(60) for rank in group] for group in groups] == [[0] * 3] * 16


def test_the_port_of_a_group_is_taken_before_rank_0_listens():
    say = "import os; print(os.environ['MASTER_PORT'], flush=True); input()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    (rank,) = launching.start_group([sys.executable, "-c", say], 1, **pipes)
    port = int(rank.stdout.readline())
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as TCPStore does
        with pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))
        rank.communicate(b"\n")
        other.bind(("127.0.0.1", port))


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Put a program on the path; what it is called with is kept in $CALLED."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    monkeypatch.setenv("CALLED", str(tmp_path / "called"))
    (tmp_path / "bin").mkdir()

    def make(name: str, text: str) -> None:
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)

    return make


@pytest.mark.parametrize("size", ["PMI_SIZE", "OMPI_COMM_WORLD_SIZE"])
def test_a_process_of_mpiexec_starts_no_others(monkeypatch, size):
    for name in ("RANK", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert not launching.launched()
    monkeypatch.setenv(size, "1")
    assert not launching.launched()
    monkeypatch.setenv(size, "2")
    assert launching.launched()


@pytest.fixture
def nodes(monkeypatch, tmp_path):
    """Let the job have these machines, each named twice in PBS's file."""

    def make(*names: str) -> None:
        (tmp_path / "nodes").write_text("".join(f"{name}\n{name}\n" for name in names))
        monkeypatch.setenv(NODE_FILE, str(tmp_path / "nodes"))

    return make


@pytest.mark.parametrize("family", FAMILIES)
def test_several_machines(command, program, nodes, monkeypatch, tmp_path, family):
    folder, (version, number, options) = command(), FAMILIES[family]
    nodes("localhost", "other", "a-third")
    monkeypatch.setenv("ISOHYPSE_DEADLINE", "17")
    program("mpiexec", LAUNCHER.format(version=version, number=number))
    assert launching.launch([str(folder)], 2, 2) == 0
    assert said(folder) == [f"{rank} 4 {rank % 2} 2 localhost" for rank in range(4)]
    called = (tmp_path / "called").read_text().split("\n")
    called, started = called[: called.index(sys.executable)], called[called.index(sys.executable) + 1 :]
    assert called[: len(options)] == options
    assert started[:6] == ["-m", "isohypse.launching", "2", "2", "localhost", "29500"]
    handed = called[len(options) :]
    assert bool(handed) == family.startswith("open-mpi"), "the others hand on the whole environment"
    if handed:
        assert set(handed[::2]) == {"-x"}
        assert {"ISOHYPSE_DEADLINE", "PATH", "PYTHONPATH"} <= set(handed[1::2]) <= set(os.environ)
        assert not {NODE_FILE, "HOME", "CALLED"} & set(handed)


def test_too_few_machines_or_no_mpiexec_is_refused(nodes, monkeypatch):
    nodes("localhost", "other")
    monkeypatch.delenv(SLURM_JOB, raising=False)
    with pytest.raises(ConfigurationError, match=r"3 machines .*, this job has 2: localhost, other"):
        launching.launch([], 3, 2)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigurationError, match=r"2 machines need mpiexec, which is not on the PATH"):
        launching.launch([], 2, 2)


@pytest.mark.skipif(shutil.which("mpiexec") is None, reason="no mpiexec here")
def test_a_real_mpiexec_starts_one_process_on_each_of_two_machines(command, program, nodes, monkeypatch):
    """Two names of this machine, reached by a stand-in for ssh that hands on no environment."""
    folder = command("assert os.environ['ISOHYPSE_DEADLINE'] == '17'")
    nodes("machine-a", "machine-b")
    program("ssh-stand-in", SECURE_SHELL)
    agent = shutil.which("ssh-stand-in")
    for name in ("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("OMPI_MCA_plm_rsh_agent", agent)
    for family in ("HYDRA_LAUNCHER", "I_MPI_HYDRA_BOOTSTRAP"):
        monkeypatch.setenv(family, "ssh")
        monkeypatch.setenv(f"{family}_EXEC", agent)
    monkeypatch.setenv("ISOHYPSE_DEADLINE", "17")
    assert launching.launch([str(folder)], 2, 2) == 0
    assert said(folder) == [f"{rank} 4 {rank % 2} 2 machine-a" for rank in range(4)]
    assert sorted((folder / "called").read_text().split()) == ["machine-a", "machine-b"]


def test_several_machines_of_slurm(command, program, monkeypatch, tmp_path):
    folder = command()
    monkeypatch.setenv(SLURM_JOB, "17")
    program("squeue", SQUEUE)
    program("scontrol", SCONTROL)
    program("srun", LAUNCHER.format(version="slurm 22.05.8", number="SLURM_PROCID"))
    assert launching.launch([str(folder)], 2, 2) == 0
    assert said(folder) == [f"{rank} 4 {rank % 2} 2 localhost" for rank in range(4)]
    called = (tmp_path / "called").read_text().split("\n")
    assert called[:5] == ["--overlap", "--nodes=2", "--ntasks=2", "--ntasks-per-node=1", "--cpu-bind=none"]


def test_a_failure_ends_all(command, monkeypatch):
    monkeypatch.setattr(launching, "GRACE_SECONDS", 0.2)
    folder = command("sys.exit(7) if os.environ['RANK'] == '1' else time.sleep(60)")
    start = time.monotonic()
    assert launching.launch([str(folder)], 1, 2) == 7
    assert time.monotonic() - start < 30


def test_signals_reach_the_processes(command):
    folder = command("import signal; signal.signal(signal.SIGUSR1, lambda *_: sys.exit(3)); time.sleep(60)")
    code = f"from isohypse.launching import launch; raise SystemExit(launch([{str(folder)!r}], 1, 2))"
    process = subprocess.Popen([sys.executable, "-c", code])
    while len(said(folder)) < 2:
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(30) == 3


def test_processes_run_near_their_gpus(tmp_path, monkeypatch):
    """Four GPUs in the reverse order of their processors, as on Polaris, then two that share theirs."""
    monkeypatch.setattr(launching, "NVIDIA", tmp_path / "gpus")
    monkeypatch.setattr(launching, "PCI", tmp_path / "pci")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(64)))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert launching.processors(2) == [set(), set()]
    for number, cpus in enumerate(["24-31,56-63", "16-23,48-55", "8-15,40-47", "0-7,32-39"]):
        device = f"0000:{number}7:00.0"
        (tmp_path / "gpus" / device).mkdir(parents=True)
        (tmp_path / "pci" / device).mkdir(parents=True)
        (tmp_path / "pci" / device / "local_cpulist").write_text(cpus + "\n")
    found = launching.processors(4)
    assert found[0] == {*range(24, 32), *range(56, 64)}
    assert found[3] == {*range(8), *range(32, 40)}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    assert launching.processors(2) == [found[3], found[1]]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,2")
    shared = launching.processors(2)
    assert shared[0] | shared[1] == found[2]
    assert not shared[0] & shared[1]
