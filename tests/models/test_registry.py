# SPDX-License-Identifier: Apache-2.0
"""Names, sizes and parameter names: what a configuration or a checkpoint relies on."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from isohypse.errors import ConfigurationError, UnavailableError
from isohypse.models import catalogue, registry
from isohypse.models.sizes import parameter_rows

# Counted on flash-linear-attention 0.6.0's own classes (no token embedding, no language-model head), plus
# projection (10,765,312) and head for one frame out (10,774,800) on the paper's 73 x 144 grid.
TOTALS = {
    ("transformer", "paper"): 329_871_632,
    ("gla", "paper"): 330_479_888,
    ("deltanet", "paper"): 330_366_224,
    ("mamba2", "paper"): 338_391_824,
    ("gated_deltanet", "paper"): 468_276_236,
    ("kda", "paper"): 473_748_878,
    ("gated_deltanet", "matched"): 335_955_188,
    ("kda", "matched"): 330_915_970,
}
# Names and shapes of one layer at debug size (hidden 32, two heads, expand_v 1; Mamba2: head 16, state 16),
# written from `state_dict()` of the layer classes of flash-linear-attention 0.6.0: Attention,
# GatedLinearAttention, DeltaNet, GatedDeltaNet, KimiDeltaAttention, Mamba2.
FLA_PARAMETERS = json.loads((Path(__file__).parent / "fla_parameters.json").read_text())


def shapes(module):
    return {name: list(value.shape) for name, value in module.state_dict().items()}


def test_catalogue_and_registry_have_the_same_models():
    assert list(catalogue.MODELS) == list(registry.MODELS)


def test_catalogue_needs_no_torch():
    code = "import sys, isohypse.models.catalogue; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_parameters_at_the_papers_size():
    rows = {(row.model, row.flavour): row for row in parameter_rows()}
    assert {key: rows[key].total_parameters[1] for key in TOTALS} == TOTALS
    transformer = rows["transformer", "paper"]
    assert transformer.stack_parameters == TOTALS["transformer", "paper"] - 10_765_312 - 10_774_800
    assert transformer.total_parameters[4] - transformer.total_parameters[1] == 3 * 10_774_800
    assert (transformer.layers, transformer.d_model, transformer.heads) == (24, 1024, 16)
    assert rows["mamba2", "paper"].heads == 32


def test_small_models_are_of_one_size():
    rows = [r for r in parameter_rows(latitude=37, longitude=72) if r.flavour == "small"]
    assert len(rows) == 6
    assert all(2.1e6 < row.total_parameters[4] < 2.2e6 for row in rows)


def test_only_the_two_oversized_models_have_a_matched_flavour():
    with_matched = [name for name, entry in catalogue.MODELS.items() if "matched" in entry.flavours]
    assert with_matched == ["gated_deltanet", "kda"]


def test_layer_parameters_are_named_as_in_fla(model, debug):
    assert shapes(debug(model).backbone.mixers[0]) == FLA_PARAMETERS[model]


def test_layer_loads_into_flas_own(model, debug):
    """With flash-linear-attention at hand, the table is checked against the classes themselves."""
    layers = pytest.importorskip("fla.layers", exc_type=ImportError)
    sizes = {"hidden_size": 32, "num_heads": 2}
    gated = {**sizes, "head_dim": 16, "expand_v": 1}
    theirs = {
        "gla": ("GatedLinearAttention", sizes),
        "deltanet": ("DeltaNet", sizes),
        "gated_deltanet": ("GatedDeltaNet", gated),
        "kda": ("KimiDeltaAttention", gated),
        "mamba2": ("Mamba2", {"hidden_size": 32, "head_dim": 16, "state_size": 16}),
    }
    if model not in theirs:
        pytest.skip("FLA's Attention needs flash-attn to be built")
    name, options = theirs[model]
    getattr(layers, name)(**options).load_state_dict(debug(model).backbone.mixers[0].state_dict())


def test_block_parameters_are_named_as_in_fla(debug):
    names = {name.split(".")[0] for name, _ in debug("gla").backbone.layers[0].named_parameters()}
    assert names == {"attn_norm", "attn", "mlp_norm", "mlp"}
    names = {name.split(".")[0] for name, _ in debug("mamba2").backbone.layers[0].named_parameters()}
    assert names == {"norm", "mixer"}


def test_another_number_of_layers_changes_nothing_else():
    grid = {"t_in": 3, "t_out": 1, "levels": 1, "latitude": 4, "longitude": 6}
    shapes = [
        {name: p.shape for name, p in registry.build("kda", "debug", **grid, layers=n).named_parameters()}
        for n in (1, 3)
    ]
    assert shapes[0].items() < shapes[1].items()
    assert {name.split(".")[2] for name in shapes[1].keys() - shapes[0].keys()} == {"1", "2"}


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises(
        ConfigurationError, match=r"unknown model 'lstm': choose from transformer, gla, deltanet"
    ):
        catalogue.flavour_of("lstm", "debug")
    with pytest.raises(
        ConfigurationError, match=r"gla has no flavour 'matched': choose from debug, small, paper"
    ):
        catalogue.flavour_of("gla", "matched")


def test_a_backend_that_cannot_serve_is_refused_at_once(debug):
    with pytest.raises(UnavailableError, match="at most 64 frames, not 128"):
        debug("kda", t_in=128, backend="closed")


def test_attention_has_one_form_whatever_is_asked_of_the_recurrences(debug):
    assert debug("transformer", t_in=128, backend="closed").kernel_names() == {"attention": "sdpa"}


def test_mlp_width_follows_flas_rule():
    assert catalogue.mlp_width(1024) == 2816
    assert catalogue.mlp_width(2048) == 5632


def test_initialisation_is_reproducible_and_survives_the_meta_device(model, debug):
    first, second = debug(model), debug(model)
    late = debug(model, device="meta").to_empty(device="cpu")
    torch.manual_seed(0)
    late.initialise()
    for a, b, c in zip(first.parameters(), second.parameters(), late.parameters()):
        assert torch.equal(a, b)
        assert torch.equal(a, c)
