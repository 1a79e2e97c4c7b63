# SPDX-License-Identifier: Apache-2.0
"""A site of the PBS double, and a small workflow that runs on it with real `snakemake` processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

HERE = Path(__file__).parent
WORKFLOW = HERE.parents[1] / "workflow"
sys.path[:0] = [str(HERE), str(WORKFLOW)]

from fakepbs.site import Site  # noqa: E402

SNAKEFILE = """
NAMES = str(config.get("names", "a")).split(",")
rule all:
    input: expand("out/{{name}}.txt", name=NAMES)
rule make:
    output: "out/{{name}}.txt"
    params: version=config.get("version", 1)
    resources: runtime=config.get("runtime", 10), continuations=config.get("continuations", 0)
    shell: r'''{shell}'''
"""
PATIENCE_SECONDS = 90  # for anything to happen on a busy machine


class Client:
    """A running snakemake, in a session and process group of its own, as at a terminal."""

    def __init__(self, argv, folder, environment):
        self.log = folder / f"client.{len(list(folder.glob('client.*')))}"
        self.process = subprocess.Popen(
            argv,
            cwd=folder,
            env=environment,
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=self.log.open("w"),
            stderr=subprocess.STDOUT,
        )

    def text(self):
        return self.log.read_text()

    def wait(self):
        return self.process.wait(PATIENCE_SECONDS)

    def finished(self):
        """What it said, when it has ended."""
        self.wait()
        return self.text()

    def interrupt(self):
        """Ctrl-C: the whole foreground process group gets SIGINT."""
        os.killpg(self.process.pid, signal.SIGINT)

    def kill(self):
        """SIGKILL to the client, as when the login node dies."""
        self.process.kill()
        self.process.wait()


class Flow:
    """The workflow's folder, and the site below it."""

    def __init__(self, folder: Path):
        self.folder, self.site, self.clients = folder, Site(folder / "pbs"), []
        self.umask = os.umask(0o022)
        os.umask(self.umask)
        self.write("echo {wildcards.name} {params.version} > {output}")

    def write(self, shell):
        """A Snakefile whose one rule runs this."""
        (self.folder / "Snakefile").write_text(SNAKEFILE.format(shell=shell))

    def start(self, *args, without=(), **config):
        settings = {
            "account": "proj", "queue": "debug", "filesystems": "home:eagle", "poll-interval": 1,
            "command-timeout": 20, "grace": 2,
        }  # fmt: skip
        options = [f"--isohypse-pbs-{k}={v}" for k, v in settings.items() if k not in without]
        argv = [sys.executable, "-m", "snakemake", "--executor", "isohypse-pbs", "--jobs", "50", *options]
        argv += ["--latency-wait", "5", "--rerun-incomplete", "--scheduler", "greedy", *args]
        argv += ["--config", *(f"{k}={v}" for k, v in config.items())] if config else []
        environment = self.site.environment() | {"PYTHONPATH": str(WORKFLOW)}
        self.clients.append(Client(argv, self.folder, environment))
        return self.clients[-1]

    def run(self, *args, **config):
        """A client run to its end; (exit status, what it said)."""
        client = self.start(*args, **config)
        return client.wait(), client.text()

    def restart_after_kill(self, **config):
        """SIGKILL leaves Snakemake's lock; then a new client."""
        for lock in (self.folder / ".snakemake" / "locks").glob("*"):
            lock.unlink()
        return self.start(**config)

    def until(self, condition, seconds=PATIENCE_SECONDS):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "\n".join([self.site.states(), *(c.text() for c in self.clients)])
            time.sleep(0.05)

    def output(self, name="a"):
        path = self.folder / "out" / f"{name}.txt"
        return path.read_text() if path.exists() else None

    def entries(self):
        return sorted(path.name for path in (self.folder / ".snakemake" / "isohypse-pbs").glob("*"))

    def close(self):
        """No process outlives its test."""
        for client in self.clients:
            if client.process.poll() is None:
                client.kill()
        for fault in list((self.site.root / "faults").iterdir()):
            fault.unlink()
        for number in range(1, len(self.site.jobs()) + 1):
            (self.site.root / "jobs" / f"{number}.delete").write_text("the test")
            subprocess.run(
                [self.site.bin / "qdel", str(number)], env=self.site.environment(), capture_output=True
            )


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path / "pbs")


@pytest.fixture
def flow(tmp_path):
    flow = Flow(tmp_path)
    yield flow
    flow.close()
