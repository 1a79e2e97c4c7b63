# SPDX-License-Identifier: Apache-2.0
"""Arguments that are made again: the same gradients, less kept, the kernel run once."""

import pytest
import torch
from torch import Tensor

from isohypse.kernels.again import with_arguments_again


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
    found = with_arguments_again(make, source, [weight], use)
    assert torch.equal(found, expected)
    pairs = zip(*(torch.autograd.grad(y.square().sum(), (source, weight)) for y in (found, expected)))
    assert all(torch.equal(one, other) for one, other in pairs)


def test_the_kernel_runs_once_and_its_arguments_are_made_twice(case):
    source, weight, make, made = case
    Kernel.runs = 0
    y = with_arguments_again(make, source, [weight], use)
    y.sum().backward()
    assert (Kernel.runs, len(made)) == (1, 2)


def test_no_argument_is_kept(case, monkeypatch):
    """Only what the kernel's user adds: the result of tanh. The product is its maker's."""
    source, weight, make, _ = case
    kept = []
    pack = with_arguments_again.__globals__["_Again"].pack

    def noting(self, tensor: Tensor):
        packed = pack(self, tensor)
        kept.append(isinstance(packed, Tensor))
        return packed

    monkeypatch.setattr(with_arguments_again.__globals__["_Again"], "pack", noting)
    with_arguments_again(make, source, [weight], use)
    assert kept == [False, False, False, True]


def test_without_gradients_they_are_made_once(case):
    source, weight, make, made = case
    with torch.no_grad():
        y = with_arguments_again(make, source, [weight], use)
    assert torch.equal(y, use(*make(source)))
    assert len(made) == 2  # once by each line


def test_arguments_that_nothing_asks_for(case):
    source, weight, make, _ = case
    y = with_arguments_again(make, source, [weight], lambda a, b, c: b.square())
    of_source, of_weight = torch.autograd.grad(y.sum(), (source, weight), allow_unused=True)
    assert of_source.any()
    assert of_weight is None or not of_weight.any()
