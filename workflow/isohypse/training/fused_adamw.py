# SPDX-License-Identifier: Apache-2.0
"""Clipping and AdamW for all parameters in two passes over memory (Triton).

    norm = |all gradients|                                     pass 1: reads gradients
    g = gradient / max(1, (norm + 1e-6) / clip_norm)           pass 2: reads and writes everything once
    w = (1 - rate * decay) w
    m = m + (1 - beta1) (g - m)
    v = beta2 v + (1 - beta2) g^2
    w = w - rate / (1 - beta1^n) * m / (sqrt(v) / sqrt(1 - beta2^n) + epsilon)
    working weight = bf16(w)                                   where there is one

The second line is `torch.nn.utils.clip_grad_norm_`, the others are `torch.optim.AdamW` in the order of its
own kernels, in float32; 1 - beta^n is taken in float64, since 1 - 0.999 in float32 is off in the fifth digit.
Traffic a parameter: weight and two moments in float32 read and written (24 bytes), gradient read twice (2 + 2
in bf16), working weight written (2).

One launch serves many tensors: a table on the device holds their addresses, a list of chunks says which part
of which tensor a program treats. Gradients are allocated anew by every backward pass, so that the table is
filled when their addresses are known: at once when launched eagerly, and after the capture (`commit`) when
launched into a CUDA graph, where they stay what they were.

Loshchilov, Hutter, arXiv:1711.05101.
"""

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial

import torch
import triton
import triton.language as tl
from torch import Tensor

from isohypse.kernels.aside import leave
from isohypse.training.working_copy import Place

BLOCK = 2048
"""Elements of one program."""
WARPS = 4
_COLUMNS = 8
_COLUMNS_IN_KERNEL = tl.constexpr(_COLUMNS)


class Batch:
    """The parameters whose gradients are of one dtype: the table of their addresses and their chunks."""

    def __init__(self, places: Sequence[Place], state: dict, decayed: set[int]):
        self.places, self.state, self.decayed = places, state, decayed
        self.half = places[0].owner.dtype == torch.bfloat16
        device = places[0].master.device
        counts = torch.tensor([-(-place.master.numel() // BLOCK) for place in places])
        owner = torch.repeat_interleave(torch.arange(len(places)), counts)
        first = torch.repeat_interleave(counts.cumsum(0) - counts, counts)
        self.chunks = torch.stack([owner, torch.arange(len(owner)) - first], 1).int().to(device)
        self.table = torch.zeros(len(places), _COLUMNS, dtype=torch.int64, device=device)
        self.squares = torch.zeros(len(owner), device=device)
        self.watched = False
        self.addresses = self.table.cpu()

    def locate(self) -> None:
        """Note where everything lies now."""
        rows = []
        for place in self.places:
            master, state = place.master, self.state[place.master]
            tensors = (master, state["exp_avg"], state["exp_avg_sq"], place.gradient, place.value)
            size, decayed = master.numel(), id(master) in self.decayed
            rows.append([*(tensor.data_ptr() for tensor in tensors), size, decayed, 0])
        self.addresses = torch.tensor(rows)

    def watch(self) -> None:
        """Take each gradient's squares as soon as it is whole, which is when it is still in the cache."""
        owners = list(dict.fromkeys(place.owner for place in self.places))
        counts = [-(-owner.numel() // BLOCK) for owner in owners]
        self.squares = torch.zeros(sum(counts), device=self.table.device)
        for owner, squares in zip(owners, self.squares.split(counts)):
            owner.register_post_accumulate_grad_hook(partial(_leave_squares, squares))
        self.watched = True

    @property
    def aligned(self) -> bool:
        """Whether all addresses and sizes allow 16-byte accesses."""
        return not (self.addresses[:, :6] % 16).any()


def _leave_squares(squares: Tensor, owner: torch.nn.Parameter) -> None:
    gradient = owner.grad
    leave(
        lambda out: _squares_of[(len(out),)](gradient, out, gradient.numel(), BLOCK, num_warps=WARPS),
        squares,
        gradient,
    )


class FusedAdamW:
    """AdamW whose state is named as `torch.optim.AdamW` names it and exists from the start.

    It is no `torch.optim.Optimizer`, whose constructor loads PyTorch's compiler: seconds before a first step.

    groups: as for AdamW, with one `lr` tensor for all. places: where each parameter's gradient and working
    weight lie.
    """

    def __init__(
        self,
        groups: list[dict],
        places: Sequence[Place],
        *,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
    ):
        self.param_groups, self.state = groups, {}
        self.places, self.betas, self.eps, self.decay = places, betas, eps, weight_decay
        self.rate: Tensor = self.param_groups[0]["lr"]
        device = self.rate.device
        self.steps = torch.zeros((), device=device)
        self.log_betas = torch.tensor(betas, dtype=torch.float64, device=device).log()
        for parameter in (p for group in self.param_groups for p in group["params"]):
            moments = {name: torch.zeros_like(parameter.data) for name in ("exp_avg", "exp_avg_sq")}
            self.state[parameter] = {"step": self.steps, **moments}
        decayed = {id(p) for group in self.param_groups if group["weight_decay"] for p in group["params"]}
        kinds = [[p for p in places if (p.owner.dtype == torch.bfloat16) == half] for half in (True, False)]
        self.batches = [Batch(kind, self.state, decayed) for kind in kinds if kind]
        self.idle = False

    @torch.no_grad()
    def clipped_step(self, clip_norm: float) -> Tensor:
        """Clip by the whole norm and update; returns the norm before. One not finite updates nothing."""
        for batch in self.batches:
            batch.locate()
        if not (self.rate.is_cuda and torch.cuda.is_current_stream_capturing()):
            self.commit()
        norm = self._norm()
        self.steps += norm.isfinite()
        self._update(self._settings(norm, clip_norm))
        return norm

    def commit(self) -> None:
        """Bring the addresses to the device. While idle: none, so that the kernels touch nothing."""
        for batch in self.batches:
            batch.table.copy_(torch.zeros_like(batch.addresses) if self.idle else batch.addresses)

    @contextlib.contextmanager
    def idling(self) -> Iterator[None]:
        """Within, a step launches its kernels and changes nothing but `steps`: to warm up."""
        steps, self.idle = self.steps.clone(), True
        try:
            yield
        finally:
            self.steps.copy_(steps)
            self.idle = False

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Let go of all gradients: they lie at the working weights."""
        for place in self.places:
            place.owner.grad = None

    def watch(self) -> None:
        """Let the norm of the matrices' gradients be taken during the backward pass.

        For steps of one backward pass whose gradients are final: no micro-batches, nobody to share with.
        """
        for batch in self.batches:
            if batch.half:
                batch.watch()

    def _norm(self) -> Tensor:
        for batch in self.batches:
            if not batch.watched:
                _sum_squares[(len(batch.chunks),)](
                    batch.table, batch.chunks, batch.squares, batch.half, batch.aligned, BLOCK,
                    num_warps=WARPS,
                )  # fmt: skip
        return torch.stack([batch.squares.sum() for batch in self.batches]).sum().sqrt()

    def _settings(self, norm: Tensor, clip_norm: float) -> Tensor:
        """float32 [4] for the kernel: rate, divisor of gradients, rate / (1 - beta1^n), sqrt(1 - beta2^n).

        A divisor of 0 means that nothing is to be updated.
        """
        corrections = -torch.expm1(self.log_betas * self.steps)
        divisor = ((norm + 1e-6) / clip_norm).clamp(min=1).where(norm.isfinite(), 0)
        step_size, root = self.rate / corrections[0], corrections[1].sqrt()
        return torch.stack([self.rate, divisor, step_size.float(), root.float()])

    def _update(self, settings: Tensor) -> None:
        beta1, beta2 = self.betas
        for batch in self.batches:
            _adamw[(len(batch.chunks),)](
                batch.table,
                batch.chunks,
                settings,
                1 - beta1,
                beta2,
                1 - beta2,
                self.eps,
                self.decay,
                batch.half,
                batch.aligned,
                BLOCK,
                num_warps=WARPS,
            )


@triton.jit
def _place(table, chunks, ALIGNED: tl.constexpr, BLOCK: tl.constexpr):
    """This program's row of the table, its elements in that tensor and which of them exist."""
    chunk = chunks + 2 * tl.program_id(0)
    row = table + _COLUMNS_IN_KERNEL * tl.load(chunk)
    elements = tl.load(chunk + 1) * BLOCK + tl.arange(0, BLOCK)
    size = tl.load(row + 5).to(tl.int32)
    if ALIGNED:
        size = tl.multiple_of(size, 16)
    return row, elements, elements < size


@triton.jit
def _pointer(cell, elements, dtype: tl.constexpr, ALIGNED: tl.constexpr):
    """Addresses of `elements` in the tensor whose address is in the table's `cell`."""
    pointers = tl.load(cell).to(tl.pointer_type(dtype)) + elements
    if ALIGNED:  # in bytes; the compiler cannot see it through an address that was loaded
        pointers = tl.max_contiguous(tl.multiple_of(pointers, 16), 16)
    return pointers


@triton.jit
def _gradient(row, elements, there, HALF: tl.constexpr, ALIGNED: tl.constexpr):
    if HALF:
        pointer = _pointer(row + 3, elements, tl.bfloat16, ALIGNED)
    else:
        pointer = _pointer(row + 3, elements, tl.float32, ALIGNED)
    return tl.load(pointer, mask=there, other=0.0).to(tl.float32)


@triton.jit
def _sum_squares(table, chunks, squares, HALF: tl.constexpr, ALIGNED: tl.constexpr, BLOCK: tl.constexpr):
    row, elements, there = _place(table, chunks, ALIGNED, BLOCK)
    g = _gradient(row, elements, there, HALF, ALIGNED)
    tl.store(squares + tl.program_id(0), tl.sum(g * g))


@triton.jit
def _squares_of(gradient, squares, size, BLOCK: tl.constexpr):
    elements = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    g = tl.load(gradient + elements, mask=elements < size, other=0.0).to(tl.float32)
    tl.store(squares + tl.program_id(0), tl.sum(g * g))


@triton.jit
def _adamw(
    table,
    chunks,
    settings,
    share1,  # 1 - beta1
    beta2,
    share2,  # 1 - beta2, rounded after the subtraction
    eps,
    decay,
    HALF: tl.constexpr,
    ALIGNED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row, elements, there = _place(table, chunks, ALIGNED, BLOCK)
    rate, divisor = tl.load(settings), tl.load(settings + 1)
    there = there & (tl.full([BLOCK], 0.0, tl.float32) + divisor > 0.0)
    step_size, root = tl.load(settings + 2), tl.load(settings + 3)
    weights = _pointer(row, elements, tl.float32, ALIGNED)
    firsts = _pointer(row + 1, elements, tl.float32, ALIGNED)
    seconds = _pointer(row + 2, elements, tl.float32, ALIGNED)
    g = tl.div_rn(_gradient(row, elements, there, HALF, ALIGNED), divisor)
    m = tl.load(firsts, mask=there)
    v = tl.load(seconds, mask=there)
    w = tl.load(weights, mask=there)
    w *= 1 - rate * decay * tl.load(row + 6)
    m += share1 * (g - m)
    v = beta2 * v + share2 * g * g
    w -= step_size * tl.div_rn(m, tl.div_rn(tl.sqrt_rn(v), root) + eps)
    tl.store(firsts, m, mask=there)
    tl.store(seconds, v, mask=there)
    tl.store(weights, w, mask=there)
    if HALF:
        tl.store(_pointer(row + 4, elements, tl.bfloat16, ALIGNED), w.to(tl.bfloat16), mask=there)
