# SPDX-License-Identifier: Apache-2.0
"""Arguments that are recomputed: the same gradients, less kept, the kernel run once."""

import gc
import weakref

import pytest
import torch
from torch import Tensor

from isohypse.kernels import recompute
from isohypse.kernels.recompute import with_recomputed_arguments


class Kernel(torch.autograd.Function):
    """a * b + c, which keeps all its arguments and counts how often it runs."""

    runs = 0

    @staticmethod
    def forward(ctx, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        Kernel.runs += 1
        ctx.save_for_backward(a.transpose(0, 1), b, c)
        return a * b + c

    @staticmethod
    def backward(ctx, dy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        a, b, _ = ctx.saved_tensors
        return dy * b, dy * a.transpose(0, 1), dy


@pytest.fixture
def case():
    torch.manual_seed(0)
    source = torch.randn(6, 9, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, dtype=torch.float64, requires_grad=True)
    made = []

    def make(product: Tensor) -> tuple[Tensor, ...]:
        made.append(None)
        q, k, v = product.split(3, -1)
        return (q * weight).sin(), k.exp(), v  # the last is a part of the product itself

    return source, weight, make, made


def use(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return Kernel.apply(a, b, c).tanh()


def test_gradients_are_those_of_arguments_that_were_kept(case):
    source, weight, make, _ = case
    expected = use(*make(source))
    found = with_recomputed_arguments(make, source, [weight], use)
    assert torch.equal(found, expected)
    pairs = zip(*(torch.autograd.grad(y.square().sum(), (source, weight)) for y in (found, expected)))
    assert all(torch.equal(one, other) for one, other in pairs)


def test_the_kernel_runs_once_and_its_arguments_are_made_twice(case):
    source, weight, make, made = case
    Kernel.runs = 0
    y = with_recomputed_arguments(make, source, [weight], use)
    y.sum().backward()
    assert (Kernel.runs, len(made)) == (1, 2)


def test_no_argument_is_kept(case, monkeypatch):
    """Only what the kernel's user adds: the result of tanh. The product is its maker's."""
    source, weight, make, _ = case
    kept = []

    class Noting(recompute._Recomputation):
        def pack(self, tensor: Tensor):
            packed = super().pack(tensor)
            kept.append(isinstance(packed, Tensor))
            return packed

    monkeypatch.setattr(recompute, "_Recomputation", Noting)
    with_recomputed_arguments(make, source, [weight], use)
    assert kept == [False, False, False, True]


def test_a_result_that_is_dropped_frees_its_memory(case, monkeypatch):
    """No backward pass comes, and the output, which tanh keeps, must not keep its own graph."""
    source, weight, make, _ = case
    there = weakref.WeakSet()

    class Noted(recompute._Recomputation):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            there.add(self)

    monkeypatch.setattr(recompute, "_Recomputation", Noted)
    y = with_recomputed_arguments(make, source, [weight], use)
    assert len(there) == 1
    del y
    gc.collect()
    assert not there


def test_without_gradients_they_are_made_once(case):
    source, weight, make, made = case
    with torch.no_grad():
        y = with_recomputed_arguments(make, source, [weight], use)
    assert torch.equal(y, use(*make(source)))
    assert len(made) == 2  # once by each line


def test_arguments_that_nothing_asks_for(case):
    source, weight, make, _ = case
    y = with_recomputed_arguments(make, source, [weight], lambda a, b, c: b.square())
    of_source, of_weight = torch.autograd.grad(y.sum(), (source, weight), allow_unused=True)
    assert of_source.any()
    assert of_weight is None or not of_weight.any()


def test_nothing_is_asked_for(case):
    """The user's backward pass has no gradient for any argument."""

    class Deaf(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *arguments: Tensor) -> Tensor:
            return arguments[0].sin()

        @staticmethod
        def backward(ctx, dy: Tensor) -> tuple[None, ...]:
            return None, None, None

    source, weight, make, _ = case
    y = with_recomputed_arguments(make, source, [weight], Deaf.apply)
    assert torch.autograd.grad(y.sum(), (source, weight), allow_unused=True) == (None, None)


def test_a_parameter_that_does_not_learn(case):
    source, weight, make, _ = case
    weight.requires_grad_(False)
    expected, found = use(*make(source)), with_recomputed_arguments(make, source, [weight], use)
    assert torch.equal(*(torch.autograd.grad(y.sum(), source)[0] for y in (found, expected)))


def test_another_type_over_the_same_memory_is_kept(case):
    """Bits read as another type are no view of the argument."""

    class Bits(torch.autograd.Function):
        @staticmethod
        def forward(ctx, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
            ctx.save_for_backward(a.view(torch.int64))
            return a * 2

        @staticmethod
        def backward(ctx, dy: Tensor) -> tuple[Tensor, None, None]:
            (bits,) = ctx.saved_tensors
            assert bits.dtype == torch.int64
            return dy * bits.view(torch.float64), None, None

    source, weight, make, _ = case
    expected, found = Bits.apply(*make(source)), with_recomputed_arguments(make, source, [weight], Bits.apply)
    assert torch.equal(*(torch.autograd.grad(y.sum(), source)[0] for y in (found, expected)))


def test_a_second_backward_pass_is_refused(case):
    source, weight, make, _ = case
    y = with_recomputed_arguments(make, source, [weight], use).sum()
    y.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="one backward pass only"):
        y.backward()
