# SPDX-License-Identifier: Apache-2.0
"""Sharded data parallelism (FSDP2, HSDP): each rank keeps a part of the matrices and of their moments.

The matrices of linear layers are sharded layer by layer: gathered in bf16 for each layer's forward and
backward pass, gradients reduced in float32 to float32 shards. HSDP shards within a machine and replicates
across machines. What autocast leaves in float32 (norms, taps, biases, decays) is small and stays whole, its
gradients averaged as in `reduction.py`, so that the numbers are those of one GPU.

AdamW works element by element, so that it sees plain tensors: the local parts.
"""

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from isohypse.models.network import Network


def shard(network: Network, mesh: DeviceMesh, precision: str) -> list[nn.Parameter]:
    """Shard the matrices over `mesh` (HSDP: replicate, shard). Returns the parameters that are left whole."""
    matrices = {id(m.weight) for m in network.modules() if isinstance(m, nn.Linear)}
    whole = [parameter for parameter in network.parameters() if id(parameter) not in matrices]
    policy = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if precision == "bf16" else None,
        reduce_dtype=torch.float32,
        cast_forward_inputs=False,
    )
    for module in (*network.backbone.layers, network):
        fully_shard(module, mesh=mesh, mp_policy=policy, ignored_params=set(whole))
    return whole


class Shards:
    """The local parts of a sharded network's parameters, as plain parameters for the optimizer."""

    def __init__(self, network: Network):
        self.network: FSDPModule = network
        self.parameters = dict(network.named_parameters())
        self.locals = {name: self._local(parameter) for name, parameter in self.parameters.items()}

    @staticmethod
    def _local(parameter: nn.Parameter) -> nn.Parameter:
        return nn.Parameter(parameter.detach().to_local()) if isinstance(parameter, DTensor) else parameter

    def take_gradients(self) -> None:
        """Move the gradients of the last backward pass to the local parts."""
        for name, parameter in self.parameters.items():
            if isinstance(parameter, DTensor):
                self.locals[name].data = parameter.detach().to_local()
                self.locals[name].grad = parameter.grad.to_local()
                parameter.grad = None

    def whole(self, name: str, local: Tensor) -> Tensor:
        """The whole of a tensor that is sharded as the parameter `name`. All ranks must ask."""
        like = self.parameters[name]
        if not isinstance(like, DTensor):
            return local
        spread = DTensor.from_local(
            local, like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride()
        )
        return spread.full_tensor()

    def own(self, name: str, whole: Tensor) -> Tensor:
        """This rank's part of the whole tensor."""
        like = self.parameters[name]
        if not isinstance(like, DTensor):
            return whole
        whole = whole.to(like.device)
        return distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None).to_local()
