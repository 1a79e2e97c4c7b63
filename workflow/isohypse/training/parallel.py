# SPDX-License-Identifier: Apache-2.0
"""How the ranks share one training: who takes which windows, who holds which weights, what is summed.

    Alone        one process
    Replicated   every rank holds all weights, or its tensor-parallel part of them; gradients are averaged
    Sharded      FSDP2 or HSDP: every rank holds a part of the matrices

The global batch is the same for any number of ranks: rank r of n takes the r-th of n equal parts of it. So
are the numbers, to rounding. Checkpoints hold whole tensors: a training may go on with other ranks.

Ranks that share a tensor-parallel group are neighbours (of one machine): rank = data * degree + tensor.
"""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from isohypse.config.sections import Execution
from isohypse.errors import ConfigurationError
from isohypse.models.network import Network
from isohypse.training.ranks import Ranks
from isohypse.training.reduction import GradientReducer, buckets_of


class Alone:
    """One process: nothing to share. The base of the others."""

    divided = False
    """Whether a forward pass needs all ranks, each of which has a part of the weights."""

    def __init__(self, network: Network, ranks: Ranks | None = None, degree: int = 1):
        self.network, self.ranks = network, ranks or Ranks()
        self.data_size = self.ranks.size // degree
        self.parameters: dict[str, nn.Parameter] = dict(network.named_parameters())

    def attach(self, network: Network) -> None:
        """`network` is what computes: this one, or a working copy of it."""

    def begin(self, last: bool) -> None:
        """Before each backward pass of a step; `last`: its gradients are the whole of this rank's."""

    def finish(self, loss: Tensor) -> Tensor:
        """After the last one: the gradients of the global batch are in place. Returns its loss."""
        return loss

    def norm(self) -> Tensor:
        """The norm of the whole gradient."""
        return nn.utils.get_total_norm([p.grad for p in self.parameters.values() if p.grad is not None])

    def whole(self, name: str, local: Tensor) -> Tensor:
        """The whole of a tensor that is divided as the parameter `name`. All ranks must ask."""
        return local

    def own(self, name: str, whole: Tensor) -> Tensor:
        """This rank's part of it."""
        return whole


class Replicated(Alone):
    """All weights on every rank, or on every tensor-parallel group of ranks."""

    def __init__(self, network: Network, ranks: Ranks, degree: int):
        self.divided = degree > 1
        size = ranks.size
        groups = [list(range(first, size, degree)) for first in range(degree)]
        self.data_group = dist.new_subgroups_by_enumeration(groups)[0]
        self.tensor = None
        if self.divided:
            from isohypse.training.tensor_parallel import TensorParallel

            groups = [list(range(first, first + degree)) for first in range(0, size, degree)]
            group = dist.new_subgroups_by_enumeration(groups)[0]
            self.tensor = TensorParallel(network, degree, ranks.rank % degree, group)
        super().__init__(network, ranks, degree)
        self.reducer: GradientReducer | None = None

    def attach(self, network: Network) -> None:
        if self.data_size > 1:
            self.reducer = GradientReducer(buckets_of(network), self.data_group)

    def begin(self, last: bool) -> None:
        if self.reducer is not None:
            self.reducer.begin(last)

    def finish(self, loss: Tensor) -> Tensor:
        if self.reducer is not None:
            self.reducer.finish()
            loss = self.reducer.mean(loss)
        if self.tensor is not None:
            self.tensor.sum_gradients()
        return loss

    def norm(self) -> Tensor:
        if self.tensor is None:
            return super().norm()
        parts = {
            name: [(rows, sharers * self.data_size) for rows, sharers in self.tensor.shared_pieces(name)]
            for name in self.parameters
        }
        return _norm(self.parameters, parts)

    def whole(self, name: str, local: Tensor) -> Tensor:
        return local if self.tensor is None else self.tensor.whole(name, local)

    def own(self, name: str, whole: Tensor) -> Tensor:
        return whole if self.tensor is None else self.tensor.own(name, whole)


class Sharded(Alone):
    """Matrices and their moments in parts, over all ranks or over those of a machine."""

    divided = True

    def __init__(self, network: Network, ranks: Ranks, mesh: DeviceMesh, precision: str):
        from isohypse.training.sharding import Shards, shard

        kept = shard(network, mesh, precision)
        self.reducer = GradientReducer([kept], dist.group.WORLD)
        self.shards = Shards(network)
        super().__init__(network, ranks)
        self.parameters = self.shards.locals
        replicas = 1 if mesh.ndim == 1 else mesh.size(0)
        whole = {id(parameter) for parameter in kept}
        self.sharers = {n: ranks.size if id(p) in whole else replicas for n, p in self.parameters.items()}

    def begin(self, last: bool) -> None:
        self.network.set_requires_gradient_sync(last)
        self.reducer.begin(last)

    def finish(self, loss: Tensor) -> Tensor:
        self.reducer.finish()
        self.shards.take_gradients()
        return self.reducer.mean(loss)

    def norm(self) -> Tensor:
        return _norm(self.parameters, {name: [(slice(None), n)] for name, n in self.sharers.items()})

    def whole(self, name: str, local: Tensor) -> Tensor:
        return self.shards.whole(name, local)

    def own(self, name: str, whole: Tensor) -> Tensor:
        return self.shards.own(name, whole)


def _norm(parameters: dict[str, nn.Parameter], parts: dict[str, list[tuple[slice, int]]]) -> Tensor:
    """Norm of a gradient that lies on all ranks: each element counts once, however many hold it."""
    squares = [
        parameters[name].grad[rows].float().square().sum() / holders
        for name, pieces in parts.items()
        for rows, holders in pieces
    ]
    total = torch.stack(squares).sum()
    dist.all_reduce(total)
    return total.sqrt()


def share(network: Network, execution: Execution, ranks: Ranks, precision: str) -> Alone:
    """Divide the training of `network` (on its device, changed in place) among the ranks.

    Raises ConfigurationError for what this number of ranks cannot do.
    """
    degree, kind = execution.tensor_parallel, execution.parallel
    if ranks.size % degree:
        raise ConfigurationError(
            f"execution.tensor_parallel: {degree} does not divide the {ranks.size} processes of this training"
        )
    if degree > 1 and kind != "replicate":
        raise ConfigurationError(f"execution.tensor_parallel goes with parallel: replicate, not {kind}")
    if ranks.size == 1:
        return Alone(network)
    if kind == "replicate":
        return Replicated(network, ranks, degree)
    return Sharded(network, ranks, _mesh(kind, ranks, network.head.weight.device.type), precision)


def _mesh(kind: str, ranks: Ranks, device_type: str) -> DeviceMesh:
    if kind == "fsdp":
        return init_device_mesh(device_type, (ranks.size,), mesh_dim_names=("shard",))
    machines, rest = divmod(ranks.size, ranks.local_size)
    if rest or machines == 1:
        raise ConfigurationError(
            f"execution.parallel: hsdp needs several machines of as many processes each; here are "
            f"{ranks.size} processes, {ranks.local_size} on this machine: use fsdp"
        )
    shape = (machines, ranks.local_size)
    return init_device_mesh(device_type, shape, mesh_dim_names=("replicate", "shard"))


def share_of(batch_size: int, execution: Execution, ranks: Ranks) -> slice:
    """Which windows of a batch this process takes.

    Raises ConfigurationError if they cannot be shared evenly, or not be cut into micro-batches.
    """
    shares = max(1, ranks.size // execution.tensor_parallel)
    windows, rest = divmod(batch_size, shares)
    if rest:
        raise ConfigurationError(
            f"training.batch_size: {batch_size} windows cannot be shared evenly by {shares} processes"
        )
    micro = execution.micro_batch
    if micro and windows % micro:
        raise ConfigurationError(
            f"execution.micro_batch: {micro} does not divide the {windows} windows of a process"
        )
    first = ranks.rank // execution.tensor_parallel * windows
    return slice(first, first + windows)
