# SPDX-License-Identifier: Apache-2.0
"""A clone of the project to run Snakemake in, and a finished study in it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from isohypse.config.layout import project_root

COPIED = (
    "Snakefile",
    "config.yaml",
    "presets",
    "profiles",
    "envs",
    "workflow",
    "demo",
    "workstation",
    "polaris",
    "slurm",
)


class Clone:
    """A copy of the project; its library comes before the installed one."""

    def __init__(self, folder: Path):
        self.folder = folder
        for name in COPIED:
            source = project_root() / name
            if source.is_symlink():
                (folder / name).symlink_to(os.readlink(source))
            elif source.is_dir():
                shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(source, folder / name)

    def environment(self) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return {
            **os.environ,
            "PATH": path,
            "PYTHONPATH": str(self.folder / "workflow"),
            "OMP_NUM_THREADS": "1",
        }

    def snakemake(
        self, *arguments: str, check: bool = True, timeout: float = 280
    ) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "snakemake", *arguments]
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment(), capture_output=True, text=True, timeout=timeout
        )
        if check and done.returncode:
            pytest.fail(f"{' '.join(arguments)}\n{done.stdout[-2000:]}\n{done.stderr[-6000:]}")
        return done

    def planned(self, *arguments: str) -> dict[str, int]:
        """Jobs of a dry run: rule -> how many."""
        done = self.snakemake("-n", *arguments)
        rows = re.findall(r"^(\w+) +(\d+)$", done.stdout + done.stderr, re.M)
        return {rule: int(count) for rule, count in rows if rule not in ("all", "total")}

    def edit(self, path: str, old: str, new: str) -> None:
        file = self.folder / path
        text = file.read_text()
        assert old in text, f"{path} does not hold {old!r}"
        file.write_text(text.replace(old, new, 1))


@pytest.fixture
def clone(tmp_path) -> Clone:
    return Clone(tmp_path)


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Clone:
    """A clone in which the `ci` study has run to its end. Treat it as read-only."""
    clone = Clone(tmp_path_factory.mktemp("finished"))
    clone.snakemake("--profile", "demo", "--config", "preset=ci")
    return clone
