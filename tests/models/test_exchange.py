# SPDX-License-Identifier: Apache-2.0
"""Weights move to flash-linear-attention's names and back, bit for bit, or not at all."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from isohypse.errors import DataError
from isohypse.models import catalogue
from isohypse.models.exchange import fla_options, read_backbone, write_backbone
from isohypse.models.registry import build

FLA_PARAMETERS = json.loads((Path(__file__).parent / "fla_parameters.json").read_text())
MLP = {f"mlp.{name}_proj.weight" for name in ("gate", "up", "down")}


def backbone_of(model, flavour="debug", seed=0):
    torch.manual_seed(seed)
    return build(model, flavour, t_in=4, t_out=1, levels=1, latitude=2, longitude=3).backbone


def equal(first, second):
    return all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.fixture
def exported(tmp_path):
    """A function (model, flavour) -> (backbone, its file)."""

    def make(model, flavour="debug"):
        backbone, path = backbone_of(model, flavour), tmp_path / f"{model}-{flavour}.safetensors"
        write_backbone(backbone, model, flavour, path)
        return backbone, path

    return make


@pytest.mark.parametrize("flavour", ["debug", "small"])
def test_round_trip_is_bit_exact(model, flavour, exported):
    backbone, path = exported(model, flavour)
    other = backbone_of(model, flavour, seed=1)
    assert not equal(backbone, other)
    read_backbone(other, model, path)
    assert equal(backbone, other)


def test_names_are_those_of_flas_models(model, exported):
    """Blocks as FLA 0.6.0's `*Block`, around the layer of the committed table; the final norm as `*Model`."""
    _, path = exported(model)
    mixer, norms, mlp = ("mixer", {"norm.weight"}, set())
    if model != "mamba2":
        mixer, norms, mlp = "attn", {"attn_norm.weight", "mlp_norm.weight"}, MLP
    block = {f"{mixer}.{name}" for name in FLA_PARAMETERS[model]} | norms | mlp
    final = "norm_f.weight" if model == "mamba2" else "norm.weight"
    assert load_file(path).keys() == {f"layers.{i}.{name}" for i in range(2) for name in block} | {final}


def test_header_tells_what_builds_it(exported):
    _, path = exported("kda")
    with safe_open(path, "pt") as file:
        header = file.metadata()
    assert (header["model"], header["flavour"], header["format"]) == ("kda", "debug", "pt")
    config = json.loads(header["fla_config"])
    assert config == fla_options(catalogue.flavour_of("kda", "debug"))
    assert config["head_dim"] == asdict(catalogue.flavour_of("kda", "debug"))["head_dim"]


@pytest.mark.parametrize(("model", "prefix"), [("gla", "model."), ("mamba2", "backbone.")])
def test_a_language_models_backbone_is_found_in_it(model, prefix, exported):
    backbone, path = exported(model)
    whole = {prefix + name: weight for name, weight in load_file(path).items()}
    whole |= {f"{prefix}embeddings.weight": torch.zeros(5, 32), "lm_head.weight": torch.zeros(5, 32)}
    save_file(whole, path)
    other = backbone_of(model, seed=1)
    read_backbone(other, model, path)
    assert equal(backbone, other)


def test_bfloat16_is_read_without_loss(exported):
    _, path = exported("deltanet")
    rounded = {name: weight.bfloat16() for name, weight in load_file(path).items()}
    save_file(rounded, path)
    other = backbone_of("deltanet", seed=1)
    read_backbone(other, "deltanet", path)
    for name, weight in other.state_dict().items():
        assert weight.dtype == torch.float32
        assert torch.equal(weight, rounded[name].float())


def test_every_difference_is_named_and_nothing_is_loaded(exported):
    _, path = exported("gla")
    tensors = load_file(path)
    del tensors["layers.1.attn.q_proj.weight"]
    tensors["layers.2.attn_norm.weight"] = torch.ones(32)
    tensors["norm.weight"] = torch.ones(31)
    tensors["layers.0.attn.k_proj.weight"] = tensors["layers.0.attn.k_proj.weight"].double()
    save_file(tensors, path)
    backbone, untouched = backbone_of("gla", seed=1), backbone_of("gla", seed=1)
    with pytest.raises(DataError) as error:
        read_backbone(backbone, "gla", path)
    assert str(error.value).endswith(
        "does not fit this gla: missing: layers.1.attn.q_proj.weight; "
        "unexpected: layers.2.attn_norm.weight; "
        "of another shape: norm.weight (31,) instead of (32,); "
        "not exact in float32: layers.0.attn.k_proj.weight torch.float64"
    )
    assert equal(backbone, untouched)


def test_a_long_list_is_cut(exported, tmp_path):
    save_file({"norm.weight": torch.ones(32)}, tmp_path / "norm.safetensors")
    with pytest.raises(DataError, match=r"missing: layers\.0\..* and \d+ more$"):
        read_backbone(backbone_of("gla"), "gla", tmp_path / "norm.safetensors")


def test_another_model_and_another_format_are_refused(exported, tmp_path):
    _, path = exported("gla")
    with pytest.raises(DataError, match="holds the weights of gla, not of deltanet"):
        read_backbone(backbone_of("deltanet"), "deltanet", path)
    (tmp_path / "weights.bin").write_bytes(b"PK")
    refusals = {"weights.bin": "cannot be read as safetensors", "absent.safetensors": "does not exist"}
    for name, why in refusals.items():
        with pytest.raises(DataError, match=f"{name} {why}"):
            read_backbone(backbone_of("gla"), "gla", tmp_path / name)


def test_flas_own_model_loads_the_file(model, exported):
    """With flash-linear-attention at hand: its model, built from the header, takes every weight."""
    models = pytest.importorskip("fla.models", exc_type=ImportError)
    prefixes = {"gla": "GLA", "deltanet": "DeltaNet", "gated_deltanet": "GatedDeltaNet", "kda": "KDA"}
    prefix = (prefixes | {"mamba2": "Mamba2"}).get(model)
    if prefix is None:
        pytest.skip("FLA's Attention needs flash-attn to be built")
    _, path = exported(model)
    with safe_open(path, "pt") as file:
        options = json.loads(file.metadata()["fla_config"])
    theirs = getattr(models, f"{prefix}Model")(getattr(models, f"{prefix}Config")(**options, vocab_size=5))
    missing, unexpected = theirs.load_state_dict(load_file(path), strict=False)
    assert (missing, unexpected) == (["embeddings.weight"], [])
