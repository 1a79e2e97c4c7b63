# SPDX-License-Identifier: Apache-2.0
"""Every fast form is its definition: outputs, final states and all gradients."""

import pytest
import torch

from isohypse.kernels import decay
from isohypse.kernels.choice import RECURRENCES

# Float64 leaves rounding only; the longest sums here have a few thousand terms.
EXACT = {"rtol": 1e-9, "atol": 1e-11}


def gradients(outputs, leaves):
    """Gradients of a fixed random projection of the outputs; zero where nothing depends on a leaf."""
    generator = torch.Generator().manual_seed(1)
    loss = sum((o * torch.randn(o.shape, generator=generator, dtype=o.dtype)).sum() for o in outputs)
    grads = torch.autograd.grad(loss, leaves, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, grads)]


@pytest.mark.parametrize("frames", [1, 2, 7, 8, 16, 17, 33, 64])
def test_closed_form_is_the_definition(recurrence, case, frames):
    module, inputs = RECURRENCES[recurrence], case(frames)
    leaves = inputs.leaves()
    defined, _ = module.recurrent(*inputs.arguments)
    closed = module.closed(*inputs.arguments)
    torch.testing.assert_close(closed, defined, **EXACT)
    for ours, reference in zip(gradients([closed], leaves), gradients([defined], leaves)):
        torch.testing.assert_close(ours, reference, **EXACT)


@pytest.mark.parametrize("frames", [1, 64, 65, 100, 200])
def test_chunkwise_form_is_the_definition(recurrence, case, frames):
    module, inputs = RECURRENCES[recurrence], case(frames)
    leaves = inputs.leaves()
    defined = module.recurrent(*inputs.arguments, initial_state=inputs.state)
    chunkwise = module.chunkwise(*inputs.arguments, initial_state=inputs.state)
    for ours, reference in zip(chunkwise, defined):
        torch.testing.assert_close(ours, reference, **EXACT)
    for ours, reference in zip(gradients(chunkwise, leaves), gradients(defined, leaves)):
        torch.testing.assert_close(ours, reference, **EXACT)


def test_chunk_size_does_not_matter(recurrence, case):
    inputs = case(37)
    forms = [RECURRENCES[recurrence].chunkwise(*inputs.arguments, chunk=size) for size in (5, 64)]
    for small, large in zip(*forms):
        torch.testing.assert_close(small, large, **EXACT)


def test_state_carried_between_calls_is_one_long_sequence(recurrence, case):
    module, inputs = RECURRENCES[recurrence], case(50)
    whole, final = module.chunkwise(*inputs.arguments)
    halves, state = [], None
    for piece in (slice(0, 30), slice(30, 50)):
        cut = type(inputs)([x[:, piece] for x in inputs.sequences], inputs.constants, inputs.state)
        output, state = module.chunkwise(*cut.arguments, initial_state=state)
        halves.append(output)
    torch.testing.assert_close(torch.cat(halves, 1), whole, **EXACT)
    torch.testing.assert_close(state, final, **EXACT)


def test_step_by_step_is_the_chunkwise_form(recurrence, case):
    module, inputs = RECURRENCES[recurrence], case(20)
    expected, final = module.chunkwise(*inputs.arguments, initial_state=inputs.state)
    state = inputs.state
    for t in range(20):
        output, state = module.step(*inputs.frame(t), state=state)
        torch.testing.assert_close(output, expected[:, t], **EXACT)
    torch.testing.assert_close(state, final, **EXACT)


@pytest.mark.parametrize(("form", "frames"), [("closed", 64), ("chunkwise", 200)])
def test_strong_decay_stays_finite_and_exact(recurrence, case, form, frames):
    """Fifty times ordinary decay: exp(-G) would be about 1e970 at the end of a chunk."""
    module, inputs = RECURRENCES[recurrence], case(frames, strength=50.0).to(torch.float32)
    leaves = inputs.leaves()
    fast = getattr(module, form)(*inputs.arguments)
    fast = fast if form == "closed" else fast[0]
    defined, _ = module.recurrent(*inputs.to(torch.float64).arguments)
    assert all(g.isfinite().all() for g in gradients([fast], leaves))
    assert (fast.double() - defined).norm() / defined.norm() < 2e-6


@pytest.mark.parametrize(("form", "frames"), [("closed", 8), ("closed", 64), ("chunkwise", 200)])
def test_float32_is_close_to_float64(recurrence, case, form, frames):
    module, inputs = RECURRENCES[recurrence], case(frames)
    single = getattr(module, form)(*inputs.to(torch.float32).arguments)
    single = single if form == "closed" else single[0]
    defined, _ = module.recurrent(*inputs.arguments)
    assert (single.double() - defined).norm() / defined.norm() < 2e-6


def test_similar_keys_do_not_break_the_solve():
    """Keys that are all alike make the triangular system as stiff as it gets."""
    q = k = torch.ones(1, 64, 1, 4) / 2
    v, beta = torch.randn(1, 64, 1, 3), torch.full((1, 64, 1), 0.99)
    delta_rule = RECURRENCES["delta_rule"]
    exact, _ = delta_rule.recurrent(*(x.double() for x in (q, k, v, beta)))
    torch.testing.assert_close(delta_rule.closed(q, k, v, beta), exact.float(), rtol=1e-5, atol=1e-5)


def test_low_precision_inputs_are_computed_in_float32(recurrence, case):
    """bfloat16 in, bfloat16 out, under autocast too: only the rounding of the output may be lost."""
    module, inputs = RECURRENCES[recurrence], case(16).to(torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = module.closed(*inputs.arguments)
    high = module.closed(*inputs.to(torch.float32).arguments)
    assert low.dtype == torch.bfloat16
    assert torch.equal(low, high.bfloat16())


def test_closed_form_compiles_whole(recurrence, case):
    module, inputs = RECURRENCES[recurrence], case(24)
    compiled = torch.compile(module.closed, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(*inputs.arguments), module.closed(*inputs.arguments), **EXACT)


def test_relatives_agree(case_of):
    """Equal decays in all channels make KDA the gated rule; no decay makes that the delta rule."""
    q, k, v, log_decay, beta = case_of("gated_delta_rule", 30).sequences
    gated = RECURRENCES["gated_delta_rule"].closed(q, k, v, log_decay, beta)
    per_channel = log_decay[..., None].expand_as(k)
    torch.testing.assert_close(RECURRENCES["kda"].closed(q, k, v, per_channel, beta), gated, **EXACT)
    undecayed = RECURRENCES["gated_delta_rule"].closed(q, k, v, torch.zeros_like(log_decay), beta)
    torch.testing.assert_close(RECURRENCES["delta_rule"].closed(q, k, v, beta), undecayed, **EXACT)


def test_ssd_is_gla_with_one_decay(case_of):
    x, dt, A, B, C, D = case_of("ssd", 30).arguments
    keys, queries = (z.expand(-1, -1, x.shape[2], -1) for z in (B, C))
    log_decay = (dt * A)[..., None].expand_as(keys)
    y = RECURRENCES["gla"].closed(queries, keys, dt[..., None] * x, log_decay, scale=1.0) + D[:, None] * x
    torch.testing.assert_close(RECURRENCES["ssd"].closed(x, dt, A, B, C, D), y, **EXACT)


def test_heads_of_a_group_share_keys_and_queries(case_of):
    x, dt, A, B, C, D = case_of("ssd", 12).arguments
    each = [z.repeat_interleave(x.shape[2], 2) for z in (B, C)]
    ssd = RECURRENCES["ssd"]
    torch.testing.assert_close(ssd.closed(x, dt, A, B, C, D), ssd.closed(x, dt, A, *each, D), **EXACT)


def test_block_width_of_channel_scores_does_not_matter(monkeypatch):
    torch.manual_seed(0)
    k, left = torch.randn(2, 40, 3, dtype=torch.float64).unbind()
    G = -torch.rand(40, 3, dtype=torch.float64).cumsum(0)
    (blocked,) = decay.channel_scores(k, G, left)
    monkeypatch.setattr(decay, "BLOCK", 40)
    (whole,) = decay.channel_scores(k, G, left)
    torch.testing.assert_close(blocked, whole, **EXACT)
