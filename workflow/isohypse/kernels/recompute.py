# SPDX-License-Identifier: Apache-2.0
"""A kernel's arguments that are recomputed in the backward pass instead of being kept.

What leads from a matrix product to the arguments of a recurrence's kernel (short convolutions, norms, decays)
takes little time and several times the product's memory, all of which a kernel of another library keeps.
`with_recomputed_arguments` keeps the product alone. Where the kernel, or what comes after it, asks for an
argument in its backward pass, all are made again, by the same operations and therefore to the bit; their own
backward pass then goes through what was made that second time.

Unlike `torch.utils.checkpoint`, the kernel itself does not run twice.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.autograd.graph import get_gradient_edge, saved_tensors_hooks

Make = Callable[[Tensor], Sequence[Tensor | None]]


def with_recomputed_arguments(
    make: Make, source: Tensor, parameters: Sequence[Tensor], use: Callable[..., Tensor]
) -> Tensor:
    """`use(*make(source))`, keeping `source`, and what `use` adds: copies of its arguments, too.

    make: deterministic; reads `source`, `parameters` (which may be more), and nothing else that needs a
    gradient. use: must not write into its arguments. Raises RuntimeError in a second backward pass.
    """
    if not torch.is_grad_enabled():
        return use(*make(source))
    parameters = [parameter for parameter in parameters if parameter.requires_grad]
    recomputation = _Recomputation(make, source, parameters)
    made = _Made.apply(recomputation, source, *parameters)
    with saved_tensors_hooks(recomputation.pack, recomputation.unpack):
        y = use(*made)
    recomputation.arguments = {}  # addresses, which mean nothing once their tensors are gone
    return y


class _View(NamedTuple):
    """A kept tensor as a view of argument `number`."""

    number: int
    size: torch.Size
    stride: tuple[int, ...]
    offset: int


class _Recomputation:
    """What is needed to make the arguments again, and the arguments once that was done."""

    def __init__(self, make: Make, source: Tensor, parameters: Sequence[Tensor]):
        self._make, self.parameters = make, parameters
        self.source: Tensor | None = source.detach().requires_grad_()
        kind = source.device.type
        self.autocast = (kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind))
        self.arguments: dict[tuple[int, torch.dtype], int] = {}
        self._made: list[Tensor | None] | None = None

    def make(self) -> list[Tensor | None]:
        """The arguments, none of them in the source's memory; several may share theirs.

        With gradients the first time, too, which has no use for them: a compiler makes other kernels for
        operations without, and so other bits.
        """
        if self.source is None:
            raise RuntimeError("the arguments of a kernel were recomputed and freed: one backward pass only")
        kind, dtype, enabled = self.autocast
        with torch.enable_grad(), torch.autocast(kind, dtype, enabled):
            made = self._make(self.source)
            source = _address(self.source)
            return [z.clone() if z is not None and _address(z) == source else z for z in made]

    def made(self) -> list[Tensor | None]:
        """Made again, once."""
        if self._made is None:
            self._made = self.make()
        return self._made

    def pack(self, kept: Tensor) -> Tensor | _View:
        number = self.arguments.get((_address(kept), kept.dtype))
        if number is None:
            return kept.detach()  # the output itself would keep its own graph alive, for ever
        return _View(number, kept.size(), kept.stride(), kept.storage_offset())

    def unpack(self, packed: Tensor | _View) -> Tensor:
        if isinstance(packed, Tensor):
            return packed
        made = self.made()[packed.number].detach()
        return made.as_strided(packed.size, packed.stride, packed.offset)

    def close(self) -> None:
        self.source = self._made = None


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


class _Made(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, recomputation: _Recomputation, source: Tensor, *parameters: Tensor
    ) -> tuple[Tensor | None, ...]:
        ctx.recomputation = recomputation
        ctx.set_materialize_grads(False)
        made = [None if z is None else z.detach() for z in recomputation.make()]
        recomputation.arguments = {
            (_address(z), z.dtype): number for number, z in enumerate(made) if z is not None
        }
        return tuple(made)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        recomputation = ctx.recomputation
        inputs = [recomputation.source, *recomputation.parameters]
        edges, asked = [], []
        for z, gradient in zip(recomputation.made(), gradients):
            if gradient is not None and z.requires_grad:
                edges.append(get_gradient_edge(z))
                asked.append(gradient)
        del z
        recomputation.close()  # the arguments are not needed for what follows
        if not edges:
            return None, *(None for _ in inputs)
        return None, *torch.autograd.grad(edges, inputs, asked, allow_unused=True)
