# SPDX-License-Identifier: Apache-2.0
"""The convolution's kernel against its definition: on a GPU, or in Triton's interpreter."""

import pytest
import torch

pytest.importorskip("triton")

from isohypse.kernels import convolution
from isohypse.kernels.fused import long_convolution
from isohypse.kernels.fused.long_convolution import convolved_silu

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def case(frames: int, channels: int, bias: bool, batch: int = 2):
    """x as a part of a wider product, taps, bias, and weights for the output."""
    torch.manual_seed(0)
    product = torch.randn(batch, frames, channels + 24, device=DEVICE, requires_grad=True)
    taps = torch.randn(channels, 4, device=DEVICE, requires_grad=True)
    bias = torch.randn(channels, device=DEVICE, requires_grad=True) if bias else None
    return product, product[..., 8 : 8 + channels], taps, bias


def plain(x, taps, bias):
    """The definition in plain PyTorch, whatever the device."""
    y = convolution._Convolution.apply(x, taps.t())
    return torch.nn.functional.silu(y if bias is None else y + bias)


@pytest.mark.parametrize(
    ("batch", "frames", "channels"), [(3, 37, 160), (2, 32, 64), (2, 3, 24), (2, 2, 128), (2, 1, 16)]
)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_kernel_equals_the_definition(batch, frames, channels, bias, monkeypatch):
    """Spans and blocks of channels full and not, programs of several spans, the last of them of fewer."""
    monkeypatch.setattr(long_convolution, "PARTS", 2)
    product, x, taps, b = case(frames, channels, bias, batch)
    leaves = [leaf for leaf in (product, taps, b) if leaf is not None]
    expected, found = plain(x, taps, b), convolved_silu(x, taps, b)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    weights = torch.randn_like(expected)
    for gradients in zip(*(torch.autograd.grad(y, leaves, weights) for y in (found, expected))):
        torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


def test_samples_and_later_frames_do_not_count():
    _, x, taps, _ = case(20, 32, bias=False)
    changed = x.detach().clone()
    changed[0, 11:] += 1
    before, after = convolved_silu(x, taps, None), convolved_silu(changed, taps, None)
    assert torch.equal(before[0, :11], after[0, :11])
    assert torch.equal(before[1], after[1])
    assert not torch.equal(before[0, 11:], after[0, 11:])


def test_a_product_whose_samples_do_not_follow_each_other():
    _, x, taps, _ = case(6, 32, bias=False, batch=4)
    torch.testing.assert_close(convolved_silu(x[::2], taps, None), convolved_silu(x, taps, None)[::2])


def test_one_frame_whose_stride_says_nothing():
    _, x, taps, _ = case(4, 32, bias=False, batch=1)
    found = convolved_silu(x.transpose(0, 1), taps, None)
    torch.testing.assert_close(found, convolved_silu(x.transpose(0, 1).clone(), taps, None))
    torch.testing.assert_close(found, plain(x.transpose(0, 1).clone(), taps, None))


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_a_compiler_takes_it_whole(bias):
    """As one operation, forward and backward."""
    product, x, taps, b = case(5, 16, bias)
    compiled = torch.compile(
        lambda x, taps: convolved_silu(x, taps, b).square(), backend="aot_eager", fullgraph=True
    )
    expected = convolved_silu(x, taps, b).square()
    found = compiled(x, taps)
    torch.testing.assert_close(found, expected)
    leaves = [leaf for leaf in (product, taps, b) if leaf is not None]
    of_found, of_expected = (torch.autograd.grad(y.sum(), leaves) for y in (found, expected))
    torch.testing.assert_close(of_found, of_expected)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_the_operations_keep_their_promises(bias):
    """Shapes without data, no hidden changes, gradients: PyTorch's own check."""
    _, x, taps, b = case(5, 16, bias)
    x = x.detach().requires_grad_()
    torch.library.opcheck(convolved_silu, (x, taps, b))
    arguments = [None if z is None else z.detach() for z in (torch.randn_like(x), x, taps, b)]
    torch.library.opcheck(long_convolution.convolved_silu_backward, arguments)
