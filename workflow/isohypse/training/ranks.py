# SPDX-License-Identifier: Apache-2.0
"""The processes of one training: who am I, and what do all of us think.

torchrun and mpiexec start one process a device and tell each its rank in the environment: torchrun with
RANK, WORLD_SIZE, LOCAL_RANK; mpiexec with PMI_RANK, PMI_SIZE and MPI_LOCALRANKID (MPICH), PMI_LOCAL_RANK or
PALS_LOCAL_RANKID (Cray PALS), or with OMPI_COMM_WORLD_... (Open MPI). Under mpiexec alone MASTER_ADDR and
MASTER_PORT must name a host and a free port. Rank 0 writes: log, checkpoints, results. One process needs none
of this.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist

from isohypse.errors import ConfigurationError
from isohypse.launching import MEETING

OPEN_MPI = "OMPI_COMM_WORLD_"
RANK = ("RANK", "PMI_RANK", "PALS_RANKID", f"{OPEN_MPI}RANK")
SIZE = ("WORLD_SIZE", "PMI_SIZE", f"{OPEN_MPI}SIZE")
LOCAL_RANK = ("LOCAL_RANK", "PMI_LOCAL_RANK", "PALS_LOCAL_RANKID", "MPI_LOCALRANKID", f"{OPEN_MPI}LOCAL_RANK")
LOCAL_SIZE = ("LOCAL_WORLD_SIZE", "PMI_LOCAL_SIZE", "PALS_LOCAL_SIZE", "MPI_LOCALNRANKS")
LOCAL_SIZE += (f"{OPEN_MPI}LOCAL_SIZE",)


@dataclass(frozen=True)
class Ranks:
    """This process is number `rank` of `size`, and `local_rank` of the `local_size` on its machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def main(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    def greatest(self, value: int) -> int:
        """The greatest of what all ranks say. Every rank must ask. Does not wait for the device."""
        if self.size == 1:
            return value
        said = torch.tensor([value], dtype=torch.int64)
        dist.all_reduce(said, dist.ReduceOp.MAX)
        return int(said)

    def mean(self, value: float) -> float:
        """The mean of what all ranks say, likewise."""
        if self.size == 1:
            return value
        said = torch.tensor([value], dtype=torch.float64)
        dist.all_reduce(said)
        return float(said) / self.size


def ranks_of(environment: Mapping[str, str] = os.environ) -> Ranks:
    """What the launcher says. Raises ConfigurationError if it says it in part only."""
    rank, size = _first(RANK, environment), _first(SIZE, environment)
    if rank is None or size is None or size == 1:
        return Ranks()
    local, here = _first(LOCAL_RANK, environment), _first(LOCAL_SIZE, environment)
    if local is None:
        raise ConfigurationError(
            f"rank {rank} of {size} does not know its device: none of {', '.join(LOCAL_RANK)} is set"
        )
    return Ranks(rank, size, local, here or size)


def _first(names: tuple[str, ...], environment: Mapping[str, str]) -> int | None:
    return next((int(environment[name]) for name in names if environment.get(name, "").isdigit()), None)


@contextmanager
def joined(ranks: Ranks, device_type: str) -> Iterator[Ranks]:
    """All ranks meet, and take their device. Raises ConfigurationError if a rank has none."""
    if device_type == "cuda":
        if ranks.local_rank >= torch.cuda.device_count():
            raise ConfigurationError(
                f"rank {ranks.rank} is number {ranks.local_rank} on its machine, which has "
                f"{torch.cuda.device_count()} GPUs: start one process a GPU"
            )
        torch.cuda.set_device(ranks.local_rank)
    if ranks.size == 1:
        yield ranks
        return
    os.environ.update(RANK=str(ranks.rank), WORLD_SIZE=str(ranks.size))
    _store = _listen()
    dist.init_process_group("cpu:gloo,cuda:nccl" if device_type == "cuda" else "gloo")
    together = True
    try:
        yield ranks
    except Exception:
        # This may be one rank's alone. NCCL's farewell waits for the others, which wait for this one: end
        # without it, and the launcher ends them.
        together = device_type != "cuda"
        raise
    finally:
        if together:
            dist.destroy_process_group()


def _listen() -> dist.TCPStore | None:
    """Of rank 0: the store at the socket that its launcher holds for it, None if it holds none.

    While it exists, init_process_group makes no other at that port and uses this one.
    """
    meeting = os.environ.pop(MEETING, None)
    if meeting is None:
        return None
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    options = {"wait_for_workers": False, "multi_tenant": True, "master_listen_fd": int(meeting)}
    return dist.TCPStore(address, port, is_master=True, **options)
