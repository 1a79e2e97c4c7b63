# SPDX-License-Identifier: Apache-2.0
"""The one door to the kernels: which form serves a recurrence at a given length, and under which name.

`auto` takes the closed form for sequences of one chunk, unless the tensors that it keeps for the backward
pass would pass `CLOSED_BYTES`; then, and for longer sequences, Triton kernels on a GPU that has them
(`external`), else the chunkwise form. A form asked for by name is used or refused, never replaced: a slow
path that nobody chose is how a benchmark goes wrong.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor

from isohypse.errors import ConfigurationError, UnavailableError
from isohypse.kernels import delta_rule, external, gated_delta_rule, gla, kda, ssd
from isohypse.kernels.decay import BLOCK
from isohypse.kernels.scan import CHUNK

RECURRENCES: dict[str, ModuleType] = {
    "gla": gla,
    "delta_rule": delta_rule,
    "gated_delta_rule": gated_delta_rule,
    "kda": kda,
    "ssd": ssd,
}
FORMS = ("recurrent", "closed", "chunkwise")
"""The forms in plain PyTorch, which a compiler can see through."""
CLOSED_FRAMES = CHUNK
"""Longest sequence of the closed form, in frames: its work grows with the square of the length."""
CLOSED_BYTES = 1 << 30
"""Largest pairwise decay tensor (bytes, one layer) for which `auto` takes the closed form."""
_PER_CHANNEL = ("gla", "kda")


@dataclass(frozen=True)
class Kernel:
    """A chosen form and its name. A compiler traces the function `form` and never sees this object."""

    recurrence: str
    name: str
    form: Callable[..., Tensor]
    """The recurrence's arguments -> the output, from an empty state. One function for equal choices."""


def choose(
    recurrence: str,
    frames: int,
    device: torch.device | str,
    backend: str = "auto",
    *,
    batch: int = 1,
    heads: int = 1,
    key_dim: int = 1,
) -> Kernel:
    """The kernel for a sequence of `frames` on `device`; its `name` belongs into every result.

    `batch`, `heads` and `key_dim` size the closed form's temporaries; they matter to `auto` only.

    Raises ConfigurationError for an unknown recurrence, UnavailableError for a backend that cannot serve.
    """
    if recurrence not in RECURRENCES:
        raise ConfigurationError(f"unknown recurrence {recurrence!r}: choose from {', '.join(RECURRENCES)}")
    name = _automatic(recurrence, frames, device, batch, heads, key_dim) if backend == "auto" else backend
    if name == external.NAME:
        return Kernel(recurrence, *external.load(recurrence, device))
    if name not in FORMS:
        raise UnavailableError(
            f"there is no kernel {name!r} for {recurrence} on {torch.device(device).type}: "
            f"choose from auto, {', '.join((*available(frames), external.NAME))}"
        )
    if name not in available(frames):
        raise UnavailableError(
            f"the closed form of {recurrence} serves at most {CLOSED_FRAMES} frames, not {frames}: "
            f"choose from auto, {', '.join((*available(frames), external.NAME))}"
        )
    form = getattr(RECURRENCES[recurrence], name)
    return Kernel(recurrence, name, form if name == "closed" else _output_of(form))


@functools.cache
def _output_of(form: Callable) -> Callable[..., Tensor]:
    """`form` without its final state."""
    return lambda *arguments: form(*arguments)[0]


def available(frames: int) -> tuple[str, ...]:
    """Names of the forms that serve a sequence of `frames`."""
    return tuple(name for name in FORMS if name != "closed" or frames <= CLOSED_FRAMES)


def closed_bytes(recurrence: str, batch: int, frames: int, heads: int, key_dim: int) -> int:
    """Bytes of the closed form's pairwise decays in float32: `[t, s]`, or `[t, s in its block, channel]`."""
    pairs = batch * heads * frames * (min(frames, BLOCK) * key_dim if recurrence in _PER_CHANNEL else frames)
    return 4 * pairs


def _automatic(
    recurrence: str, frames: int, device: torch.device | str, batch: int, heads: int, key_dim: int
) -> str:
    fits = closed_bytes(recurrence, batch, frames, heads, key_dim) <= CLOSED_BYTES
    if frames <= CLOSED_FRAMES and fits:
        return "closed"
    on_gpu = torch.device(device).type == "cuda" and external.installed()
    return external.NAME if on_gpu else "chunkwise"
