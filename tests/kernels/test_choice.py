# SPDX-License-Identifier: Apache-2.0
"""The door to the kernels chooses by length and bytes, and refuses rather than replaces."""

import pytest
import torch

from isohypse.errors import ConfigurationError, UnavailableError
from isohypse.kernels import choice


@pytest.mark.parametrize(("frames", "name"), [(1, "closed"), (64, "closed"), (65, "chunkwise")])
def test_auto_takes_the_closed_form_for_one_chunk(recurrence, frames, name):
    assert choice.choose(recurrence, frames, "cpu").name == name


def test_auto_avoids_a_closed_form_that_would_not_fit():
    sizes = {"batch": 1024, "heads": 6, "key_dim": 256}
    assert choice.closed_bytes("kda", 1024, 64, 6, 256) > choice.CLOSED_BYTES
    assert choice.choose("kda", 64, "cpu", **sizes).name == "chunkwise"
    assert choice.choose("gated_delta_rule", 64, "cpu", **sizes).name == "closed"


def test_the_papers_batch_gets_the_closed_form(recurrence):
    assert choice.choose(recurrence, 8, "cpu", batch=256, heads=32, key_dim=256).name == "closed"


def test_an_explicit_form_is_used(recurrence, case):
    inputs = case(9)
    outputs = [choice.choose(recurrence, 9, "cpu", name).form(*inputs.arguments) for name in choice.FORMS]
    for output in outputs[1:]:
        torch.testing.assert_close(output, outputs[0], rtol=1e-9, atol=1e-11)


def test_a_form_that_cannot_serve_is_refused():
    with pytest.raises(
        UnavailableError, match=r"closed form of gla serves at most 64 frames, not 65.*chunkwise"
    ):
        choice.choose("gla", 65, "cpu", "closed")


def test_an_unknown_form_is_refused_with_the_known_ones():
    with pytest.raises(UnavailableError, match=r"'warp' for gla on cpu: choose from auto, recurrent, closed"):
        choice.choose("gla", 8, "cpu", "warp")


def test_an_unknown_recurrence_is_refused():
    with pytest.raises(ConfigurationError, match="unknown recurrence 'rwkv'"):
        choice.choose("rwkv", 8, "cpu")
