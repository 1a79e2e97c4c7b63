# SPDX-License-Identifier: Apache-2.0
"""What is installed, what is missing and how to get it: the report of `isohypse doctor`."""

import os
import platform
import shutil
from importlib import metadata, util

from isohypse import __version__

MAMBA_COMMAND = (
    "MAMBA_SKIP_CUDA_BUILD=TRUE MAMBA_FORCE_BUILD=TRUE "
    "pip install --no-deps --no-build-isolation mamba-ssm==2.3.2.post1"
)
# distribution -> (what it is for, how to get it)
REQUIRED = {
    "torch": ("models and training", "pip install torch"),
    "snakemake": ("the workflow", "pip install snakemake"),
    "xarray": ("data", "pip install xarray"),
    "zarr": ("the archive", "pip install zarr"),
    "netcdf4": ("yearly files", "pip install netcdf4"),
    "pygments": ("snakemake --report", "pip install pygments"),
}
OPTIONAL = {
    "flash-linear-attention": ("Triton kernels for long sequences on a GPU", "pip install 'isohypse[cuda]'"),
    "mamba-ssm": ("Mamba2's Triton kernels on a GPU", MAMBA_COMMAND),
    "cartopy": ("map projections", "pip install 'isohypse[maps]'"),
    "snakemake-executor-plugin-slurm": ("--profile slurm", "pip install snakemake-executor-plugin-slurm"),
}


def report() -> str:
    """Lines for a person; a missing required package is marked with `!`, a missing optional one with `-`."""
    lines = [f"isohypse {__version__}, Python {platform.python_version()}, {os.cpu_count()} CPUs"]
    lines += [_package(name, *about, missing="!") for name, about in REQUIRED.items()]
    lines += [_package(name, *about, missing="-") for name, about in OPTIONAL.items()]
    return "\n".join([*lines, _program("dot", "snakemake --dag | dot", "the package graphviz"), _device()])


def _program(name: str, purpose: str, source: str) -> str:
    found = shutil.which(name)
    return f"  {name}: {purpose}" if found else f"- {name} is not installed ({purpose}): {source}"


def _package(name: str, purpose: str, command: str, missing: str) -> str:
    try:
        return f"  {name} {metadata.version(name)}: {purpose}"
    except metadata.PackageNotFoundError:
        return f"{missing} {name} is not installed ({purpose}): {command}"


def _device() -> str:
    if util.find_spec("torch") is None:
        return "! no device: torch is missing"
    import torch

    if not torch.cuda.is_available():
        return "  device: cpu (torch sees no CUDA device)"
    names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    return f"  device: cuda {torch.version.cuda}: {names}"
