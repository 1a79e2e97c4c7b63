# SPDX-License-Identifier: Apache-2.0
"""Replicated data parallelism: the mean of all ranks' gradients, taken while the backward pass goes on.

Parameters are reduced bucket by bucket, each as soon as the last of its gradients is there, so that all but
the first layer's reduction is hidden behind the layers before it. Nothing here asks the device for a value:
with NCCL the reductions are recorded into the step's CUDA graph. Gradients are summed in their own dtype.
"""

from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from isohypse.kernels.aside import after_what_was_left
from isohypse.models.network import Network


def buckets_of(network: Network) -> list[list[nn.Parameter]]:
    """One bucket a layer, and one each for projection, last norm and head."""
    backbone = network.backbone
    parts = [network.projection, *backbone.layers, backbone.norm, network.head]
    return [list(part.parameters()) for part in parts]


def by_dtype(tensors: Iterable[Tensor]) -> list[list[Tensor]]:
    """Matrices may be bf16 beside float32 vectors, and a reduction is of one dtype.

    The order is that of the tensors, since all ranks must start the same reductions one after the other.
    """
    found: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        found.setdefault(tensor.dtype, []).append(tensor)
    return list(found.values())


class GradientReducer:
    """Averages the gradients of `buckets` over the ranks of `group`.

    Between `begin(last=True)` and `finish` the hooks start reductions; earlier micro-batches only add up.
    """

    def __init__(self, buckets: Iterable[Sequence[nn.Parameter]], group: dist.ProcessGroup):
        self.buckets = [list(bucket) for bucket in buckets if bucket]
        self.group, self.size = group, dist.get_world_size(group)
        self.cuda = self.buckets[0][0].is_cuda
        self.armed = False
        self.missing: list[int] = []
        self.works: list = []
        for number, bucket in enumerate(self.buckets):
            for parameter in bucket:
                parameter.register_post_accumulate_grad_hook(lambda _p, number=number: self._arrived(number))

    def begin(self, last: bool) -> None:
        """Before each backward pass of a step."""
        self.armed = last
        self.missing = [len(bucket) for bucket in self.buckets]

    def _arrived(self, number: int) -> None:
        self.missing[number] -= 1
        if self.armed and self.missing[number] == 0:
            self._launch([parameter.grad for parameter in self.buckets[number]])

    def _launch(self, gradients: list[Tensor]) -> None:
        if not self.cuda:
            self.works += [dist.all_reduce(g, group=self.group, async_op=True) for g in gradients]
            return
        with after_what_was_left():
            for alike in by_dtype(gradients):
                with dist._coalescing_manager(self.group, async_ops=True) as works:  # one launch of NCCL
                    for gradient in alike:
                        dist.all_reduce(gradient, dist.ReduceOp.AVG, group=self.group)
                self.works.append(works)

    def finish(self) -> None:
        """Let what follows on this stream see the averages."""
        assert not any(self.missing), "a parameter without a gradient would be averaged on no rank"
        for work in self.works:
            work.wait()
        self.works = []
        if not self.cuda:  # gloo has no mean
            torch._foreach_div_([p.grad for bucket in self.buckets for p in bucket], self.size)

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a scalar over the ranks."""
        dist.all_reduce(value, group=self.group)
        return value / self.size
