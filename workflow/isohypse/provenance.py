# SPDX-License-Identifier: Apache-2.0
"""Where a result comes from: versions of the code and of the libraries, settings, device, kernels.

Every stage puts `provenance(...)` into what it writes. It holds no time of day and no path, so equal work
gives equal files. Imports none of the libraries that it names.
"""

import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import isohypse

ALWAYS = ("torch", "numpy")
WHEN_INSTALLED = ("xarray", "zarr", "triton", "fla-core", "flash-linear-attention", "mamba-ssm")


def provenance(
    settings_digest: str, device: str | None = None, kernels: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """What a result's file says about its making, ready for JSON.

    settings_digest: `StageSettings.digest`. device: its name in words. kernels: recurrence -> form that ran.
    `commit` is the code's git commit, with `+changes` if the checkout differs from it; None outside one.
    """
    record: dict[str, Any] = {"settings_digest": settings_digest, "commit": git_commit()}
    record["versions"] = versions()
    if device is not None:
        record["device"] = device
    if kernels is not None:
        record["kernels"] = dict(kernels)
    return record


def versions() -> dict[str, str | None]:
    """Name -> version of Python, of this library and of those that shape a result; None: not installed."""
    found = {"python": platform.python_version(), "isohypse": isohypse.__version__}
    found |= {name: _version(name) for name in ALWAYS}
    optional = {name: _version(name) for name in WHEN_INSTALLED}
    return found | {name: number for name, number in optional.items() if number is not None}


def git_commit() -> str | None:
    """The commit of the checkout that this library runs from, or None for an installed package."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():  # asking git itself would find any repository above site-packages
        return None
    commit = _git(root, "rev-parse", "HEAD")
    if not commit:
        return None
    return f"{commit}+changes" if _git(root, "status", "--porcelain", "--untracked-files=no") else commit


def _git(root: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
