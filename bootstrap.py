#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Set up and run Isohypse from a bare clone: needs Python 3.11 or newer, git, and a package index.

    python3 bootstrap.py demo   the whole study on embedded data, to its report (results/demo/report.html)
    python3 bootstrap.py test   the tests; further arguments go to pytest
    python3 bootstrap.py env    only the environment: .venv, with the CPU build of PyTorch

The environment is made once and again when pyproject.toml or constraints.txt change. Standard library only.
"""

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
STAMP = VENV / "isohypse-environment"
RUNNING = VENV / "demo-running"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"


def main(arguments: list[str]) -> int:
    commands = {"demo": demo, "test": test, "env": lambda _extra: 0}
    if not arguments or arguments[0] not in commands:
        print(__doc__)
        return 2
    make_environment()
    return commands[arguments[0]](arguments[1:])


def demo(extra: list[str]) -> int:
    snakemake = [BIN / "snakemake", "--profile", "demo"]
    if last_demo_was_killed():
        run(*snakemake, "--unlock")
    RUNNING.write_text(str(os.getpid()))
    status = run(*snakemake, *extra)
    RUNNING.unlink()
    if status == 0:
        status = run(*snakemake, "--report", "results/demo/report.html")
    if status == 0:
        print(f"\nThe report: {ROOT / 'results/demo/report.html'}")
    return status


def last_demo_was_killed() -> bool:
    """Whether a demo began, did not end, and is not running: it could not release Snakemake's lock."""
    if not RUNNING.exists():
        return False
    try:
        os.kill(int(RUNNING.read_text()), 0)
    except ProcessLookupError:
        return True
    return False


def test(extra: list[str]) -> int:
    return run(
        BIN / "python", "-m", "pytest", "-n", str(min(os.cpu_count() or 1, 4)), "--dist", "loadgroup", *extra
    )


def make_environment() -> None:
    """Create .venv and install from the constraints, unless that was done for these very files."""
    if sys.version_info < (3, 11):  # noqa: UP036, for those who start it with an older one
        sys.exit(f"Isohypse needs Python 3.11 or newer, this is {sys.version.split()[0]}")
    wanted = hashlib.sha256()
    for name in ("pyproject.toml", "constraints.txt"):
        wanted.update((ROOT / name).read_bytes())
    if STAMP.is_file() and STAMP.read_text() == wanted.hexdigest():
        return
    if subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=False).returncode:
        sys.exit("could not create .venv: on Debian and Ubuntu, first `apt install python3-venv`")
    install_torch()
    if pip("-c", ROOT / "constraints.txt", "-e", f"{ROOT}[dev]"):
        sys.exit("the installation failed; see pip's message above, then run the same command again")
    STAMP.write_text(wanted.hexdigest())


def install_torch() -> None:
    """The CPU build: on Linux the package index's own build would bring gigabytes of CUDA."""
    torch = re.search(r"^torch==\S+", (ROOT / "constraints.txt").read_text(), re.M).group()
    if sys.platform == "linux":
        pip("--no-deps", "--retries", "1", "--index-url", CPU_INDEX, torch)
    if subprocess.run([BIN / "python", "-c", "import torch"], capture_output=True, check=False).returncode:
        pip("-c", ROOT / "constraints.txt", torch)


def pip(*arguments: object) -> int:
    command = [BIN / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments]
    return run(*command)


def run(*command: object) -> int:
    """Run in the clone, with the environment's commands first on the PATH."""
    environment = {
        **os.environ,
        "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}",
        "VIRTUAL_ENV": str(VENV),
    }
    try:
        return subprocess.run(
            [str(part) for part in command], cwd=ROOT, env=environment, check=False
        ).returncode
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
