# SPDX-License-Identifier: Apache-2.0
"""One command, many processes: `isohypse training train` starts itself once for each GPU.

On one machine the processes are started directly. On several, mpiexec or srun (`machines.py`) starts
`python -m isohypse.launching` once on each, which starts that machine's processes. They find each other
through RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT, as under torchrun.

On one machine the port is the system's choice, and taken before the first process starts: rank 0 inherits
the socket and listens at it, so that no other group can come in between. On several it is PORT, or
MASTER_PORT where the environment has one.

Each process is bound to the processors near its GPU, which the kernel names: on some machines their order is
the reverse of the GPUs'. Imports no torch.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from isohypse.errors import ConfigurationError
from isohypse.machines import machines_of, one_on_each

NODE_NUMBER = ("PMI_RANK", "PALS_RANKID", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK")
NVIDIA, PCI = Path("/proc/driver/nvidia/gpus"), Path("/sys/bus/pci/devices")
PORT = 29500
MEETING = "ISOHYPSE_MEETING"
"""Tells rank 0 the descriptor of the socket, bound to MASTER_PORT, at which it is to listen."""
GRACE_SECONDS = 10.0  # for the others to leave by themselves once a process has failed


def launch(arguments: Sequence[str], nodes: int, per_node: int) -> int:
    """Run `isohypse *arguments` in nodes * per_node processes. Returns the first exit status that is not 0.

    Raises ConfigurationError if the job has fewer machines than `nodes`, or nothing that starts them.
    """
    if nodes == 1:
        return _supervise(start_group(_command(arguments), per_node))
    hosts = machines_of(os.environ)
    if len(hosts) < nodes:
        raise ConfigurationError(
            f"execution.nodes: {nodes} machines are asked for, this job has {len(hosts)}: {', '.join(hosts)}"
        )
    spread = one_on_each(hosts[:nodes], os.environ)
    port = os.environ.get("MASTER_PORT", str(PORT))
    one = [sys.executable, "-m", "isohypse.launching", str(nodes), str(per_node), hosts[0], port]
    return _supervise([subprocess.Popen([*spread, *one, *arguments])])


def launched() -> bool:
    """Whether this process is one of several already, started here, by torchrun or by mpiexec."""
    sizes = (os.environ.get(name, "1") for name in ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE"))
    return "RANK" in os.environ or any(int(size) > 1 for size in sizes)


def _command(arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "isohypse.cli", *arguments]


def start_group(command: Sequence[str], ranks: int, **options: Any) -> list[subprocess.Popen]:
    """Start `command` as all ranks of a group on this machine. options: of all, for Popen."""
    with socket.socket() as meeting:  # no SO_REUSEADDR: the port is nobody else's from here on
        meeting.bind(("127.0.0.1", 0))
        address, port = meeting.getsockname()
        return start_processes(command, 0, 1, ranks, address, port, meeting.fileno(), **options)


def start_processes(
    command: Sequence[str],
    node: int,
    nodes: int,
    per_node: int,
    address: str,
    port: int,
    meeting: int | None = None,
    **options: Any,
) -> list[subprocess.Popen]:
    """Start `command` once for each of this machine's ranks.

    meeting: the descriptor of a socket bound to `port`, for rank 0. options: of all, for Popen.
    """
    processes = []
    for local, cpus in enumerate(processors(per_node)):
        told = {
            "RANK": node * per_node + local,
            "WORLD_SIZE": nodes * per_node,
            "LOCAL_RANK": local,
            "LOCAL_WORLD_SIZE": per_node,
            "MASTER_ADDR": address,
            "MASTER_PORT": port,
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        }
        inherited = ()
        if meeting is not None and local == 0:
            told[MEETING], inherited = meeting, (meeting,)
        environment = os.environ | {name: str(value) for name, value in told.items()}
        process = subprocess.Popen(command, env=environment, pass_fds=inherited, **options)
        if cpus:
            os.sched_setaffinity(process.pid, cpus)
        processes.append(process)
    return processes


def processors(count: int) -> list[set[int]]:
    """Which processors each process runs on: those near its GPU, shared out if they are near several.

    Empty sets where it is not known which GPU is whose.
    """
    if not hasattr(os, "sched_getaffinity"):
        return [set()] * count
    allowed = os.sched_getaffinity(0)
    near = [_near(device) & allowed for device in _devices(count)]
    if len(near) < count or not all(near):
        return [set()] * count
    shares = []
    for number, cpus in enumerate(near):
        sharers = [other for other in range(count) if near[other] == cpus]
        shares.append(set(sorted(cpus)[sharers.index(number) :: len(sharers)]) or cpus)
    return shares


def _devices(count: int) -> list[str]:
    """PCI addresses of the GPUs that the processes see, in the order of PCI_BUS_ID."""
    found = sorted(path.name for path in NVIDIA.iterdir()) if NVIDIA.is_dir() else []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return found[:count]
    numbers = [int(number) for number in visible.split(",") if number.isdigit()]
    return [found[number] for number in numbers[:count] if number < len(found)]


def _near(device: str) -> set[int]:
    """Processors of the GPU's memory domain, from a list such as `24-31,56-63`."""
    file = PCI / device / "local_cpulist"
    ranges = file.read_text().strip().split(",") if file.exists() else []
    bounds = [[int(bound) for bound in part.split("-")] for part in ranges if part]
    return {cpu for bound in bounds for cpu in range(bound[0], bound[-1] + 1)}


def _supervise(processes: list[subprocess.Popen]) -> int:
    """Wait for all; once one has failed the others have a grace. Signals are passed on.

    SIGINT reaches the processes from the terminal.
    """

    def pass_on(number: int, _frame: object) -> None:
        for process in processes:
            if process.poll() is None and number != signal.SIGINT:
                process.send_signal(number)

    numbers = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
    before = {number: signal.signal(number, pass_on) for number in numbers}
    try:
        return _first_failure(processes)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _first_failure(processes: list[subprocess.Popen]) -> int:
    status, failed = 0, None
    while None in (found := [process.poll() for process in processes]):
        codes = [code for code in found if code]
        if codes and failed is None:
            status, failed = codes[0], time.monotonic()
        if failed is not None and time.monotonic() - failed > GRACE_SECONDS:
            for process in processes:
                process.kill()
        time.sleep(0.1)
    status = status or next((process.returncode for process in processes if process.returncode), 0)
    return 128 - status if status < 0 else status


def main() -> int:
    """`python -m isohypse.launching NODES PER_NODE ADDRESS PORT ARGUMENTS`, on each machine."""
    nodes, per_node, address, port, *arguments = sys.argv[1:]
    node = next((int(os.environ[name]) for name in NODE_NUMBER if name in os.environ), None)
    if node is None:
        print(f"isohypse: mpiexec sets none of {', '.join(NODE_NUMBER)}", file=sys.stderr)
        return 2
    command = _command(arguments)
    return _supervise(start_processes(command, node, int(nodes), int(per_node), address, int(port)))


if __name__ == "__main__":
    sys.exit(main())
