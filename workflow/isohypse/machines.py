# SPDX-License-Identifier: Apache-2.0
"""The machines of a job, and the command that starts one process on each of them.

In a Slurm job that is srun. Elsewhere it is mpiexec, which knows the standard's `-n` and else has options of
its own in each family. Which one it is follows from what `mpiexec --version` says:

    Open MPI      "mpiexec (OpenRTE) 4.1.4", "mpirun (Open MPI) 5.0.3"
    MPICH, Hydra  "HYDRA build details: ..."
    Intel MPI     "Intel(R) MPI Library for Linux* OS, Version 2021.18.1 ..."
    Cray PALS     anything else

Cray's finds the job's machines itself and takes the first of them; so do the others only where they have been
built for the scheduler, and they are told the names. None may bind its process to processors, since that
process starts others. Open MPI hands on nothing of the environment to other machines but what it is told to.
Imports no torch.
"""

import shutil
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from isohypse.errors import ConfigurationError

NODE_FILE, SLURM_JOB = "PBS_NODEFILE", "SLURM_JOB_ID"
OPEN_MPI = ("Open MPI", "OpenRTE", "PRRTE")
HANDED_ON = ("ISOHYPSE_", "SNAKEMAKE_", "PATH", "LD_LIBRARY_PATH", "PYTHON", "TMPDIR", "OMP_NUM_THREADS")
HANDED_ON += ("CUDA_", "NCCL_", "FI_", "TORCH", "TRITON_", "GLOO_")
"""How the names of variables begin that our processes, torch or NCCL may read."""


def machines_of(environment: Mapping[str, str]) -> list[str]:
    """The job's machines, each once, in the scheduler's order; this one if there is no scheduler."""
    if environment.get(SLURM_JOB):  # not $SLURM_JOB_NODELIST: Snakemake's executor takes it away
        listed = _said("squeue", "-h", "-j", environment[SLURM_JOB], "-o", "%N").strip()
        return _said("scontrol", "show", "hostnames", listed).split()
    if environment.get(NODE_FILE):  # a machine stands there once for each of its MPI processes
        return list(dict.fromkeys(Path(environment[NODE_FILE]).read_text().split()))
    return [socket.gethostname()]


def one_on_each(machines: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """The command that starts what follows it once on each of `machines`, the first ones of the job.

    Raises ConfigurationError if there is no mpiexec.
    """
    count = len(machines)
    if environment.get(SLURM_JOB):
        # --overlap: this may itself run in a step, which holds the job's resources and would be waited for
        sizes = [f"--nodes={count}", f"--ntasks={count}", "--ntasks-per-node=1"]
        return ["srun", "--overlap", *sizes, "--cpu-bind=none"]
    if shutil.which("mpiexec") is None:
        raise ConfigurationError(f"execution.nodes: {count} machines need mpiexec, which is not on the PATH")
    version = _said("mpiexec", "--version", check=False)
    start = ["mpiexec", "-n", str(count)]
    if any(name in version for name in OPEN_MPI):
        handed = [name for name in sorted(environment) if name.startswith(HANDED_ON)]
        start += ["--host", ",".join(machines), "--map-by", "ppr:1:node", "--bind-to", "none"]
        return start + [word for name in handed for word in ("-x", name)]
    one_a_host = [*start, "-hosts", ",".join(machines), "-ppn", "1"]
    if "HYDRA" in version:
        return [*one_a_host, "-bind-to", "none"]
    if "Intel" in version:  # a Hydra, too, but for the binding
        return [*one_a_host, "-genv", "I_MPI_PIN", "off"]
    return [*start, "--ppn", "1", "--cpu-bind", "none"]


def _said(*command: str, check: bool = True) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=check).stdout
