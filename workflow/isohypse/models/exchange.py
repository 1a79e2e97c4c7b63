# SPDX-License-Identifier: Apache-2.0
"""A backbone's weights as a safetensors file that flash-linear-attention reads and writes.

Names are those of the `state_dict` of FLA 0.6.0's `TransformerModel`, `GLAModel`, `DeltaNetModel`,
`GatedDeltaNetModel`, `KDAModel` and `Mamba2Model`: ours but for the final norm of Mamba2, `norm_f`. What a
language model has around them (token embedding, output layer) has no place here, and projection and head have
none there: a file holds blocks and final norm.

The file's header (strings): `model`, `flavour`, `isohypse` (version), `fla_config` (JSON: what the library's
`GLAConfig(**...)` and its like take to build these sizes; vocabulary is free).
"""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

import isohypse
from isohypse.errors import DataError
from isohypse.models import catalogue
from isohypse.models.backbone import Backbone
from isohypse.storage import atomic_path

FINAL_NORM = {"mamba2": "norm_f.weight"}
AROUND = ("embeddings.weight", "lm_head.weight")
"""Of a language model."""
PREFIXES = ("model.", "backbone.")
"""Of the backbone in a whole language model, as published checkpoints have them."""
EXACT = (torch.float32, torch.bfloat16, torch.float16)
"""What float32 holds without loss."""
LISTED = 8


def fla_options(sizes: catalogue.Flavour) -> dict:
    """The library's configuration for our sizes."""
    options = {"hidden_size": sizes.d_model, "num_hidden_layers": sizes.layers, "num_heads": sizes.heads}
    if isinstance(sizes, catalogue.Mamba2Flavour):
        options |= {"head_dim": sizes.head_dim, "state_size": sizes.state_size, "expand": sizes.expand}
        return options | {"n_groups": sizes.groups}
    options["intermediate_size"] = sizes.mlp_width
    if isinstance(sizes, catalogue.GatedDeltaNetFlavour):
        options |= {"head_dim": sizes.head_dim, "expand_v": sizes.expand_v}
    return options


def write_backbone(backbone: Backbone, model: str, flavour: str, destination: Path) -> None:
    """Write the weights and the header."""
    header = {"format": "pt", "model": model, "flavour": flavour, "isohypse": isohypse.__version__}
    header["fla_config"] = json.dumps(fla_options(catalogue.flavour_of(model, flavour)))
    weights = {_theirs(model, name): w.contiguous().cpu() for name, w in backbone.state_dict().items()}
    with atomic_path(destination) as path:
        save_file(weights, path, header)


def read_backbone(backbone: Backbone, model: str, source: Path) -> None:
    """Load the weights of `source` into a backbone of `model`; the file may be a whole language model's.

    Raises DataError, and loads nothing, if the file is none of safetensors, is of another model, or if a
    weight is missing, unexpected, of another shape, or in a format that float32 cannot hold.
    """
    found, said = _read(source)
    if said not in (None, model):
        raise DataError(f"{source} holds the weights of {said}, not of {model}")
    wanted = {_theirs(model, name): weight for name, weight in backbone.state_dict().items()}
    problems = _differences(found, wanted)
    if problems:
        raise DataError(f"{source} does not fit this {model}: {'; '.join(problems)}")
    with torch.no_grad():
        for name, weight in wanted.items():
            weight.copy_(found[name])


def _theirs(model: str, name: str) -> str:
    return FINAL_NORM.get(model, name) if name == "norm.weight" else name


def _read(source: Path) -> tuple[dict[str, Tensor], str | None]:
    """Tensors of the backbone by their name in it, and the model that the header tells, if any."""
    try:
        with safe_open(source, "pt") as file:
            said = (file.metadata() or {}).get("model")
        tensors = load_file(source)
    except FileNotFoundError:
        raise DataError(f"{source} does not exist") from None
    except (OSError, SafetensorError) as error:
        raise DataError(f"{source} cannot be read as safetensors ({' '.join(str(error).split())})") from None
    for prefix in PREFIXES:
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return {name: tensor for name, tensor in tensors.items() if name not in AROUND}, said


def _differences(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> list[str]:
    both = [name for name in wanted if name in found]
    shapes = {name: (tuple(found[name].shape), tuple(wanted[name].shape)) for name in both}
    kinds = {
        "missing": [name for name in wanted if name not in found],
        "unexpected": [name for name in found if name not in wanted],
        "of another shape": [f"{name} {a} instead of {b}" for name, (a, b) in shapes.items() if a != b],
        "not exact in float32": [
            f"{name} {found[name].dtype}" for name in both if found[name].dtype not in EXACT
        ],
    }
    return [f"{kind}: {_listed(names)}" for kind, names in kinds.items() if names]


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
