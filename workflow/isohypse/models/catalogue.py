# SPDX-License-Identifier: Apache-2.0
"""Names and sizes of the backbones: what a configuration may ask for. Imports no torch.

A flavour fixes a backbone's size:
    debug     seconds on a laptop: tests, continuous integration
    small     the demo: 2.1 to 2.2 million parameters on the 37 x 72 grid with four frames out
    paper     Table 2 of the paper
    matched   Gated DeltaNet and KDA cut to the size of the other four: as published (values twice as wide as
              keys) they have about 40 % more parameters, while the paper gives ~340M for all six
"""

from dataclasses import dataclass, replace

from isohypse.errors import ConfigurationError


@dataclass(frozen=True)
class Flavour:
    """What every backbone has."""

    layers: int
    d_model: int
    """Width of the residual stream."""


@dataclass(frozen=True)
class TransformerFlavour(Flavour):
    heads: int
    mlp_width: int
    rope_base: float = 10000.0


@dataclass(frozen=True)
class GLAFlavour(Flavour):
    heads: int
    mlp_width: int
    expand_k: float = 0.5
    """Width of all keys together, in units of d_model."""
    expand_v: float = 1.0
    gate_rank: int = 16
    """Inner width of the low-rank projection that gives the decay."""
    gate_normalizer: float = 16.0
    """Divides the log decay: larger means slower forgetting."""


@dataclass(frozen=True)
class DeltaNetFlavour(Flavour):
    heads: int
    mlp_width: int
    conv_size: int = 4


@dataclass(frozen=True)
class GatedDeltaNetFlavour(Flavour):
    heads: int
    mlp_width: int
    head_dim: int
    """Key channels of a head; heads * head_dim need not be d_model."""
    expand_v: float
    """Value channels of a head, in units of head_dim."""
    conv_size: int = 4


@dataclass(frozen=True)
class KDAFlavour(GatedDeltaNetFlavour):
    """The same sizes as Gated DeltaNet's; its decay per channel adds a low-rank projection."""


@dataclass(frozen=True)
class Mamba2Flavour(Flavour):
    head_dim: int
    state_size: int
    expand: int = 2
    """Width inside the mixer, in units of d_model."""
    groups: int = 1
    """Heads of a group share B and C."""
    conv_size: int = 4

    @property
    def heads(self) -> int:
        return self.expand * self.d_model // self.head_dim


@dataclass(frozen=True)
class Entry:
    """A backbone as people and configurations know it."""

    display_name: str
    flavours: dict[str, Flavour]


def mlp_width(d_model: int, ratio: float = 4) -> int:
    """Inner width of the SwiGLU: two thirds of `ratio` times d_model, rounded up to a multiple of 256."""
    return -(-int(d_model * ratio * 2 / 3) // 256) * 256


_WIDE = {"d_model": 1024, "mlp_width": mlp_width(1024)}
_SMALL = {"layers": 2, "d_model": 128, "heads": 4, "mlp_width": 344}
_DEBUG = {"layers": 2, "d_model": 32, "heads": 2, "mlp_width": 64}


def _gated(kind: type[GatedDeltaNetFlavour]) -> dict[str, Flavour]:
    paper = kind(layers=21, heads=6, head_dim=256, expand_v=2.0, **_WIDE)
    return {
        "debug": kind(head_dim=16, expand_v=1.0, **_DEBUG),
        "small": kind(head_dim=32, expand_v=1.0, **_SMALL),
        "paper": paper,
        "matched": replace(paper, layers=19, expand_v=1.0),
    }


MODELS: dict[str, Entry] = {
    "transformer": Entry(
        "Transformer",
        {
            "debug": TransformerFlavour(**_DEBUG),
            "small": TransformerFlavour(**_SMALL),
            "paper": TransformerFlavour(layers=24, heads=16, **_WIDE),
        },
    ),
    "gla": Entry(
        "GLA",
        {
            "debug": GLAFlavour(**_DEBUG),
            "small": GLAFlavour(**_SMALL),
            "paper": GLAFlavour(layers=24, heads=4, **_WIDE),
        },
    ),
    "deltanet": Entry(
        "DeltaNet",
        {
            "debug": DeltaNetFlavour(**_DEBUG),
            "small": DeltaNetFlavour(**_SMALL),
            "paper": DeltaNetFlavour(layers=24, heads=8, **_WIDE),
        },
    ),
    "gated_deltanet": Entry("Gated DeltaNet", _gated(GatedDeltaNetFlavour)),
    "kda": Entry("KDA", _gated(KDAFlavour)),
    "mamba2": Entry(
        "Mamba2",
        {
            "debug": Mamba2Flavour(layers=2, d_model=32, head_dim=16, state_size=16),
            "small": Mamba2Flavour(layers=4, d_model=128, head_dim=64, state_size=64),
            "paper": Mamba2Flavour(layers=48, d_model=1024, head_dim=64, state_size=128),
        },
    ),
}


def entry(model: str) -> Entry:
    """The catalogue's entry of `model`. Raises ConfigurationError for a name that is not there."""
    if model not in MODELS:
        raise ConfigurationError(f"unknown model {model!r}: choose from {', '.join(MODELS)}")
    return MODELS[model]


def flavours_of(model: str) -> tuple[str, ...]:
    """Names of the flavours that `model` comes in. Raises ConfigurationError for an unknown model."""
    return tuple(entry(model).flavours)


def label_of(model: str) -> str:
    """`model` as figures and tables call it. Raises ConfigurationError for an unknown model."""
    return entry(model).display_name


def flavour_of(model: str, flavour: str, layers: int | None = None) -> Flavour:
    """The sizes of `model` at `flavour`, with another number of `layers` if one is given.

    Raises ConfigurationError for a name that is not there.
    """
    flavours = entry(model).flavours
    if flavour not in flavours:
        raise ConfigurationError(f"{model} has no flavour {flavour!r}: choose from {', '.join(flavours)}")
    return flavours[flavour] if layers is None else replace(flavours[flavour], layers=layers)
