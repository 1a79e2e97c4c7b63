# SPDX-License-Identifier: Apache-2.0
"""What all sections of the configuration are made of: a frozen model that knows its keys; common bounds."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(gt=0)]
NotNegative = Annotated[int, Field(ge=0)]
Level = Annotated[int, Field(gt=0, le=1100, description="pressure, hPa")]


class Section(BaseModel):
    """A frozen part of the configuration that knows all of its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def distinct(values: tuple) -> tuple:
    """`values` as they are. Raises ValueError if one stands twice."""
    if len(set(values)) != len(values):
        raise ValueError(f"each value may stand once, got {list(values)}")
    return values
