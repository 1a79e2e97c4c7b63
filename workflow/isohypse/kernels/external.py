# SPDX-License-Identifier: Apache-2.0
"""Triton kernels for long sequences on a GPU, from flash-linear-attention and mamba-ssm.

They compute what the `chunkwise` forms compute, with matrix products in bf16 and states in float32. Each form
takes the arguments of its recurrence and gives the output from an empty state; what it makes of them for the
library can be had apart (`parts_of`). Where a library refuses, another of its kernels that contains the
recurrence serves:

    gated_delta_rule   chunk_kda with the decay of a head given to all its key channels, where FLA's own
                       backward pass refuses (Hopper with Triton 3.4 to 3.7.0: wrong gradients, FLA #640)
    delta_rule         chunk_kda without decay for float32 inputs, which FLA's chunk_delta_rule refuses
    ssd                mamba-ssm's scan, else FLA's chunk_gla with the decay of a head given to all channels

Both libraries are optional and are imported when a kernel is asked for. A compiler must not look inside. What
tuning them takes (minutes) is spent once a machine: `tuning` keeps the choices.
"""

import functools
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from isohypse.errors import UnavailableError
from isohypse.kernels import tuning

NAME = "triton"
"""The backend's name in a configuration."""


class External(NamedTuple):
    """A kernel of another library and what results call it."""

    name: str
    form: Callable


def installed() -> bool:
    """Whether flash-linear-attention and Triton are there."""
    return find_spec("triton") is not None and find_spec("fla") is not None


def load(recurrence: str, device: torch.device | str) -> External:
    """The kernel for a recurrence, the same function every time.

    Raises UnavailableError without a GPU or the library that has it.
    """
    if torch.device(device).type != "cuda":
        raise UnavailableError(f"the {NAME} kernel of {recurrence} needs a GPU: choose auto or chunkwise")
    if not installed():
        raise UnavailableError(
            f"the {NAME} kernel of {recurrence} needs flash-linear-attention: pip install 'isohypse[cuda]'"
        )
    return _loaded(recurrence)


@functools.cache
def _loaded(recurrence: str) -> External:
    tuning.keep_by_default()
    name, form = _LOADERS[recurrence]()
    tuning.pin("fla", "fla-core")
    return External(f"{NAME}:{name}", form)


def _as_they_are(*arguments: Tensor) -> tuple[Tensor, ...]:
    return arguments


def _form(kernel: Callable[..., Tensor], adapt: Callable[..., Sequence[Tensor]] = _as_they_are) -> Callable:
    """`kernel(*adapt(*arguments))`: adapt makes what the library takes of a recurrence's arguments."""
    form = torch.compiler.disable(lambda *arguments: kernel(*adapt(*arguments)))
    form.parts = (adapt, kernel)
    return form


def parts_of(form: Callable) -> tuple[Callable[..., Sequence[Tensor]], Callable[..., Tensor]]:
    """(adapt, kernel) of a form, which is `kernel(*adapt(*arguments))`."""
    return getattr(form, "parts", (_as_they_are, form))


def _first(kernel: Callable[..., tuple]) -> Callable[..., Tensor]:
    """The output without the final state."""
    return lambda *arguments: kernel(*arguments)[0]


def _gla() -> tuple[str, Callable]:
    from fla.ops.gla import chunk_gla

    return "chunk_gla", _form(_first(chunk_gla))


def _delta_rule() -> tuple[str, Callable]:
    from fla.ops.delta_rule import chunk_delta_rule
    from fla.ops.kda import chunk_kda

    def adapt(q: Tensor, k: Tensor, v: Tensor, beta: Tensor) -> tuple[Tensor, ...]:
        if q.dtype == torch.float32:
            return q, k, v, torch.zeros_like(k), beta
        return q, k, v, beta.to(q.dtype)

    def kernel(q: Tensor, *others: Tensor) -> Tensor:
        return (chunk_kda if q.dtype == torch.float32 else chunk_delta_rule)(q, *others)[0]

    return "chunk_delta_rule", _form(kernel, adapt)


def _gated_delta_rule() -> tuple[str, Callable]:
    from fla import utils
    from fla.ops.gated_delta_rule import chunk_gated_delta_rule
    from fla.ops.kda import chunk_kda

    def adapt(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor) -> tuple[Tensor, ...]:
        return q, k, v, log_decay[..., None].expand(k.shape).contiguous(), beta

    if utils.IS_NVIDIA_HOPPER and utils.TRITON_ABOVE_3_4_0 and not utils.TRITON_ABOVE_3_7_1:
        return "chunk_kda", _form(_first(chunk_kda), adapt)
    return "chunk_gated_delta_rule", _form(_first(chunk_gated_delta_rule))


def _kda() -> tuple[str, Callable]:
    from fla.ops.kda import chunk_kda

    return "chunk_kda", _form(_first(chunk_kda))


def _ssd() -> tuple[str, Callable]:
    if find_spec("mamba_ssm") is None:
        return _ssd_as_gla()
    # mamba-ssm 2.3.2 imports its compiled extension before anything else, though the scan does not need it.
    sys.modules.setdefault("selective_scan_cuda", ModuleType("selective_scan_cuda"))
    from mamba_ssm.ops.triton import ssd_bmm, ssd_chunk_scan, ssd_chunk_state, ssd_combined, ssd_state_passing

    tuning.keep_hooked([ssd_bmm, ssd_chunk_scan, ssd_chunk_state, ssd_combined, ssd_state_passing])
    tuning.pin("mamba_ssm", "mamba-ssm")
    scan = ssd_combined.mamba_chunk_scan_combined

    def kernel(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None = None) -> Tensor:
        return scan(x, dt, A, B, C, chunk_size=256, D=D)

    return "mamba_chunk_scan_combined", _form(kernel)


def _ssd_as_gla() -> tuple[str, Callable]:
    """Keys B, queries C, values dt x, the log decay dt A of a head in all its channels."""
    from fla.ops.gla import chunk_gla

    def adapt(
        x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None = None
    ) -> tuple[Tensor | None, ...]:
        B, C = (z.repeat_interleave(x.shape[2] // z.shape[2], 2) for z in (B, C))
        log_decay = (dt * A)[..., None].expand(B.shape).contiguous()
        through = None if D is None else D[:, None] * x
        return C, B, (dt[..., None] * x).to(x.dtype), log_decay, through

    def kernel(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, through: Tensor | None) -> Tensor:
        y = chunk_gla(q, k, v, log_decay, scale=1.0)[0]
        return y if through is None else (y + through).to(v.dtype)

    return "chunk_gla", _form(kernel, adapt)


_LOADERS: dict[str, Callable[[], tuple[str, Callable]]] = {
    "gla": _gla,
    "delta_rule": _delta_rule,
    "gated_delta_rule": _gated_delta_rule,
    "kda": _kda,
    "ssd": _ssd,
}
