# SPDX-License-Identifier: Apache-2.0
"""The sections of what comes after training: evaluation and its baselines, scaling, publication."""

from importlib.util import find_spec
from typing import Annotated, Literal

from pydantic import Field, field_validator

from isohypse.config.base import Positive, Section, distinct


class Climatology(Section):
    """How the climatology of the training range is smoothed."""

    window_days: Annotated[int, Field(ge=1, le=181)] = 61


class RidgeVar(Section):
    """The linear baseline: a ridge regression on empirical orthogonal functions."""

    eofs: Positive = 250
    frames: Positive = 4
    penalty: Annotated[float, Field(gt=0)] = 1.0


class Evaluation(Section):
    """Which windows are scored."""

    max_windows: Positive | None = None
    window_step: Positive = 1
    examples: Positive = 1


class Scaling(Section):
    """Cost against sequence length (Fig. 6)."""

    flavour: str
    lengths: Annotated[tuple[Positive, ...], Field(min_length=1)]
    batch_size: Positive = 1
    repeats: Annotated[int, Field(ge=3)] = 5

    @field_validator("lengths")
    @classmethod
    def _each_once(cls, values: tuple[int, ...]) -> tuple[int, ...]:
        return distinct(values)


class Publication(Section):
    """How figures look and how wide their intervals are."""

    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    format: Literal["png", "pdf", "svg"] = "png"
    dpi: Annotated[int, Field(ge=50, le=1200)] = 150
    height_colormap: str = "viridis"
    error_colormap: str = "RdBu_r"
    projection: Literal["plate-carree", "robinson"] = "plate-carree"

    @field_validator("height_colormap", "error_colormap")
    @classmethod
    def _colour_map_exists(cls, name: str) -> str:
        from matplotlib import colormaps  # late: only who draws, or plans to, needs it

        if name not in colormaps:
            raise ValueError(
                f"matplotlib has no colour map {name!r}; there are viridis, cividis, RdBu_r, PuOr, ..."
            )
        return name

    @field_validator("projection")
    @classmethod
    def _projection_can_be_drawn(cls, projection: str) -> str:
        if projection == "robinson" and find_spec("cartopy") is None:
            raise ValueError("robinson needs cartopy: pip install 'isohypse[maps]'")
        return projection
