# SPDX-License-Identifier: Apache-2.0
"""Properties of every backbone in the forecaster: causality, shapes, starting values, precision, counting."""

import math

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from isohypse.errors import DataError
from isohypse.kernels.choice import FORMS
from isohypse.models.mixer import RMSNorm, ShortConvolution


def strengthen(network):
    """Weights large enough that every path through the network shows in float64."""
    generator = torch.Generator().manual_seed(3)
    for parameter in network.parameters():
        if parameter.ndim > 1:
            parameter.data = torch.randn(parameter.shape, generator=generator) / math.sqrt(
                parameter.shape[-1]
            )
    return network.double()


def changes_from(module, x, frame):
    """Which frames of the output change when one frame of the input does."""
    other = x.clone()
    other[:, frame] += 1.0
    return (module(x) - module(other)).abs().amax((0, 2)) > 0


@pytest.mark.parametrize("frame", [0, 3, 7])
def test_no_frame_sees_the_future(model, debug, frame):
    backbone = strengthen(debug(model)).backbone
    x = torch.randn(2, 8, 32, dtype=torch.float64)
    mixer = backbone.mixers[0]
    for module in (lambda x: mixer(x, mixer.plan(x)), backbone):
        changed = changes_from(module, x, frame)
        assert not changed[:frame].any()
        assert changed[frame:].all()


def test_forecast_comes_from_the_last_hidden_state_alone(model, debug, frames):
    network = debug(model)
    seen = []
    network.head.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    forecast = network(frames)
    hidden = network.backbone(network.projection(frames.flatten(2)))
    assert torch.equal(seen[0], hidden[:, -1])
    assert forecast.shape == (5, 3, 2, 3, 4)


def test_nothing_bypasses_the_hidden_state(model, debug, frames):
    """With the head's weights at zero a forecast is the head's bias, whatever the input: no residual."""
    network = debug(model)
    nn.init.zeros_(network.head.weight)
    assert torch.equal(network(frames), torch.zeros(5, 3, 2, 3, 4))
    mean = torch.randn(2, 3, 4)
    network.start_head_at(mean)
    assert torch.equal(network(frames), mean.expand(5, 3, 2, 3, 4))


def test_order_of_past_frames_matters(model, debug, frames):
    network = strengthen(debug(model))
    swapped = frames[:, [1, 0, *range(2, 8)]].double()
    assert not torch.allclose(network(frames.double()), network(swapped))


def test_all_forms_give_one_forecast(model, debug, frames):
    if model == "transformer":
        pytest.skip("length and device choose the form of attention")
    forecasts = [debug(model, backend=form).double()(frames.double()) for form in FORMS]
    for forecast in forecasts[1:]:
        torch.testing.assert_close(forecast, forecasts[0], rtol=1e-9, atol=1e-12)


def test_kernel_names_tell_what_runs(debug):
    assert debug("gla").kernel_names() == {"gla": "closed"}
    assert debug("mamba2").kernel_names(frames=4096) == {"ssd": "chunkwise"}
    assert debug("kda", backend="recurrent").kernel_names() == {"kda": "recurrent"}
    assert debug("transformer").kernel_names() == {"attention": "sdpa"}


def test_every_parameter_learns(model, debug, frames):
    network = strengthen(debug(model))
    network(frames.double()).square().mean().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_longer_and_shorter_sequences_are_accepted(model, debug):
    network = debug(model)
    for length in (1, 2, 70):
        assert network(torch.randn(1, length, 2, 3, 4)).isfinite().all()


def test_another_grid_is_refused(debug, frames):
    with pytest.raises(DataError, match=r"frames are \(2, 4, 3\), but the network was built for \(2, 3, 4\)"):
        debug("gla")(frames.mT)
    with pytest.raises(DataError, match=r"the frame is \(3, 4\)"):
        debug("gla").start_head_at(torch.zeros(3, 4))


def test_block_compiles_whole(model, debug):
    block = debug(model).backbone.layers[0]
    compiled = torch.compile(block, backend="aot_eager", fullgraph=True)
    x = torch.randn(2, 8, 32, requires_grad=True)
    plan = block.sequence_mixer.plan(x)
    torch.testing.assert_close(compiled(x, plan), block(x, plan))
    compiled(x, plan).sum().backward()
    assert x.grad.isfinite().all()


def test_autocast_keeps_the_residual_stream_in_float32(model, debug, frames):
    network = debug(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = network.backbone(network.projection(frames.flatten(2)))
        forecast = network(frames)
    assert (hidden.dtype, forecast.dtype) == (torch.float32, torch.bfloat16)
    torch.testing.assert_close(
        hidden, network.backbone(network.projection(frames.flatten(2))), rtol=0, atol=0.1
    )


def test_starting_values(model, debug):
    network = debug(model)
    for module in network.modules():
        if isinstance(module, RMSNorm):
            assert torch.equal(module.weight, torch.ones_like(module.weight))
        if isinstance(module, nn.Linear | ShortConvolution) and module.bias is not None:
            assert not module.bias.any()
    assert network.projection.weight.std().item() == pytest.approx(0.02, rel=0.1)


def test_decays_start_between_their_bounds(model, debug):
    for name, parameter in debug(model).named_parameters():
        if name.endswith("dt_bias"):
            step = nn.functional.softplus(parameter)
            assert ((step > 0.000999) & (step < 0.1001)).all()
        if name.endswith("A_log"):
            assert (parameter.exp() <= 16).all()
            assert (parameter.exp() >= (0 if model == "gated_deltanet" else 1)).all()


def test_mamba2_rescales_its_output_projection(debug):
    mixer = debug("mamba2").backbone.mixers[0]
    bound = 1 / math.sqrt(mixer.out_proj.in_features) / math.sqrt(2)
    assert mixer.out_proj.weight.abs().max().item() == pytest.approx(bound, rel=0.01)


def test_weight_decay_spares_vectors(model, debug):
    network = debug(model)
    groups = network.decay_groups()
    spared = {id(p) for p in groups.undecayed}
    ends = ("norm.weight", "norm_swish_gate.weight", "bias", "A_log", "dt_bias", ".D")
    for name, parameter in network.named_parameters():
        assert (id(parameter) in spared) == name.endswith(ends), name
    assert len(groups.decayed) + len(groups.undecayed) == len(list(network.parameters()))


def test_flops_are_those_of_the_matrix_products(debug, frames):
    """A Transformer counts products with weights, which PyTorch counts too, and its causal pairs."""
    network = debug("transformer")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(frames[:1])
    products = sum(
        n for op, n in counter.get_flop_counts()["Global"].items() if str(op) in ("aten.mm", "aten.addmm")
    )
    pairs, layers, d_model = 8 * 9 // 2, 2, 32
    assert network.flops_per_sample() == products + 2 * layers * 2 * pairs * d_model


def test_flops_grow_linearly_but_for_attention(model, debug):
    network = debug(model)
    first, second, third = (network.flops_per_sample(n) for n in (100, 200, 300))
    growth = (third - second) - (second - first)
    assert growth > 0 if model == "transformer" else growth == 0
