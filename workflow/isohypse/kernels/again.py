# SPDX-License-Identifier: Apache-2.0
"""A kernel's arguments that are made again in the backward pass instead of being kept.

What leads from a matrix product to the arguments of a recurrence's kernel (short convolutions, norms, decays)
takes little time and several times the product's memory, all of which a kernel of another library keeps.
`with_arguments_again` keeps the product alone. Where the kernel, or what comes after it, asks for an argument
in its backward pass, all are made again, by the same operations and therefore to the bit; their own backward
pass then goes through what was made that second time.

Unlike `torch.utils.checkpoint`, the kernel itself does not run twice.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

Make = Callable[[Tensor], Sequence[Tensor]]


def with_arguments_again(
    make: Make, source: Tensor, parameters: Sequence[Tensor], use: Callable[..., Tensor]
) -> Tensor:
    """`use(*make(source))`, keeping `source` and what `use` itself adds.

    make: deterministic; of `source`, of `parameters` (all that it reads and that need a gradient), and of
    nothing else that does.
    """
    if not torch.is_grad_enabled():
        return use(*make(source))
    again = _Again(make, source, parameters)
    made = _Made.apply(again, source, *parameters)
    with torch.autograd.graph.saved_tensors_hooks(again.pack, again.unpack):
        y = use(*made)
    again.storages = {}  # addresses, which mean nothing once their tensors are gone
    return y


class _View(NamedTuple):
    """A kept tensor as a view of argument `number`."""

    number: int
    size: torch.Size
    stride: tuple[int, ...]
    offset: int


class _Again:
    """What is needed to make the arguments again, and the arguments when that was done."""

    def __init__(self, make: Make, source: Tensor, parameters: Sequence[Tensor]):
        self._make, self.parameters = make, parameters
        self.source: Tensor | None = source.detach()
        kind = source.device.type
        self.autocast = (kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind))
        self.storages: dict[int, int] = {}
        self.leaf: Tensor | None = None
        self.made: list[Tensor] | None = None

    def make(self) -> tuple[Tensor, list[Tensor]]:
        """(the source as a leaf, arguments that come from it, each with memory of its own)."""
        kind, dtype, enabled = self.autocast
        with torch.enable_grad(), torch.autocast(kind, dtype, enabled):
            leaf = self.source.requires_grad_()
            made = [z.clone() if _address(z) == _address(leaf) else z for z in self._make(leaf)]
        return leaf, made

    def once_more(self) -> list[Tensor]:
        if self.made is None:
            self.leaf, self.made = self.make()
        return self.made

    def pack(self, kept: Tensor) -> Tensor | _View:
        number = self.storages.get(_address(kept))
        if number is None:
            return kept
        return _View(number, kept.size(), kept.stride(), kept.storage_offset())

    def unpack(self, packed: Tensor | _View) -> Tensor:
        if isinstance(packed, Tensor):
            return packed
        made = self.once_more()[packed.number].detach()
        return made.as_strided(packed.size, packed.stride, packed.offset)

    def close(self) -> None:
        self.source = self.leaf = self.made = None


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


class _Made(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, again: _Again, source: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
        ctx.again = again
        ctx.set_materialize_grads(False)
        made = tuple(z.detach() for z in again.make()[1])
        again.storages = {_address(z): number for number, z in enumerate(made)}
        return made

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        again = ctx.again
        made = again.once_more()
        asked = [(z, g) for z, g in zip(made, gradients) if g is not None and z.requires_grad]
        outputs, gradients = zip(*asked)
        inputs = [again.leaf, *again.parameters]
        found = torch.autograd.grad(outputs, inputs, gradients, allow_unused=True)
        again.close()
        return None, *found
