# SPDX-License-Identifier: Apache-2.0
"""Convolution, rotation, attention, normalisation and the triangular solve."""

import pytest
import torch
from torch.nn import functional as F

from isohypse.kernels import attention, convolution, normalisation
from isohypse.kernels.rotary import rotate, turns
from isohypse.kernels.triangular import solve_unit_lower


def test_convolution_is_a_causal_depthwise_one():
    x, weight, bias = torch.randn(2, 9, 5), torch.randn(5, 4), torch.randn(5)
    padded = F.pad(x.transpose(1, 2), (3, 0))
    expected = F.silu(F.conv1d(padded, weight[:, None], bias, groups=5)).transpose(1, 2)
    torch.testing.assert_close(convolution.short_convolution(x, weight, bias), expected)


@pytest.mark.parametrize("frames", [1, 2, 9])
def test_convolution_step_by_step(frames):
    x, weight, bias = torch.randn(2, frames, 5), torch.randn(5, 4), torch.randn(5)
    expected, state = convolution.short_convolution(x, weight, bias), None
    for t in range(frames):
        y, state = convolution.step(x[:, t], weight, bias, state=state)
        torch.testing.assert_close(y, expected[:, t])


def turned(x: torch.Tensor, *, offset: int = 0) -> torch.Tensor:
    return rotate(x, turns(x.shape[1], x.shape[-1], offset=offset, dtype=x.dtype))


def test_rotation_scores_depend_on_the_distance_alone():
    q, k = torch.randn(2, 1, 7, 2, 8, dtype=torch.float64).unbind()
    scores = [
        torch.einsum("bthd,bshd->bhts", turned(q, offset=start), turned(k, offset=start))
        for start in (0, 113)
    ]
    torch.testing.assert_close(*scores)
    moved = torch.einsum("bthd,bshd->bhts", turned(q, offset=1), turned(k, offset=0))
    assert not torch.allclose(moved, scores[0])


def test_rotation_keeps_lengths_and_leaves_frame_zero():
    x = torch.randn(1, 5, 2, 8)
    torch.testing.assert_close(turned(x).norm(dim=-1), x.norm(dim=-1))
    torch.testing.assert_close(turned(x)[:, 0], x[:, 0])


def test_rotation_pairs_the_two_halves():
    """Channel i turns with channel i + dim / 2, by one radian a frame for i = 0."""
    x = torch.zeros(1, 2, 1, 8, dtype=torch.float64)
    x[..., 0] = 1.0
    angle = torch.tensor(1.0, dtype=torch.float64)
    torch.testing.assert_close(turned(x)[0, 1, 0, [0, 4]], torch.stack([angle.cos(), angle.sin()]))


@pytest.mark.parametrize(("frames", "on_a_gpu"), [(1, "closed"), (16, "closed"), (17, "sdpa")])
def test_attention_is_written_out_for_few_frames_on_a_gpu_alone(frames, on_a_gpu):
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    assert attention.name(frames, gpu) == on_a_gpu
    assert attention.form(frames, gpu) is getattr(attention, on_a_gpu)
    assert attention.name(frames, cpu) == "sdpa"


def test_attention_on_a_cpu_is_in_float32_whatever_autocast_says():
    x = torch.randn(3, 2, 8, 2, 16).unbind()
    form = attention.form(8, torch.device("cpu"))
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(form(*x), attention.closed(*x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("frames", [1, 8, 16])
def test_both_forms_of_attention_are_one_function(frames, dtype):
    """Output and gradients, so that a run may be trained on one device and go on or be scored on another."""
    torch.manual_seed(0)
    x = torch.randn(3, 2, frames, 2, 32, dtype=dtype, requires_grad=True)
    results = []
    for form in (attention.closed, attention.sdpa):
        y = form(*x.unbind())
        results.append((y, *torch.autograd.grad(y.square().sum(), x)))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("form", [attention.closed, attention.sdpa])
def test_attention_step_by_step(form):
    q, k, v = torch.randn(3, 2, 6, 2, 4).unbind()
    expected, state = form(q, k, v), None
    for t in range(6):
        o, state = attention.step(q[:, t], k[:, t], v[:, t], state=state)
        torch.testing.assert_close(o, expected[:, t])


def test_norms_have_unit_size():
    x = 7 * torch.randn(3, 64)
    assert torch.allclose(normalisation.l2_norm(x).norm(dim=-1), torch.ones(3))
    scaled = normalisation.rms_norm(x, torch.full((64,), 2.0), 1e-6)
    assert torch.allclose(scaled.square().mean(-1), torch.full((3,), 4.0))
    torch.testing.assert_close(scaled, F.rms_norm(x, (64,), torch.full((64,), 2.0), 1e-6))


@pytest.mark.parametrize(("sigmoid", "activation"), [(False, F.silu), (True, torch.sigmoid)])
def test_gated_norm_is_norm_times_gate(sigmoid, activation):
    x, gate, weight = torch.randn(3, 8), torch.randn(3, 8), torch.randn(8)
    expected = normalisation.rms_norm(x, weight, 1e-5) * activation(gate)
    torch.testing.assert_close(normalisation.gated_rms_norm(x, gate, weight, 1e-5, sigmoid=sigmoid), expected)


@pytest.mark.parametrize("frames", [1, 2, 16, 17, 64])
def test_solve_reads_the_strict_lower_part_only(frames):
    torch.manual_seed(0)
    A = torch.randn(3, frames, frames, dtype=torch.float64).tril(-1) / frames
    X = torch.randn(3, frames, 5, dtype=torch.float64)
    U = solve_unit_lower(A, X)
    torch.testing.assert_close(U + A @ U, X)
