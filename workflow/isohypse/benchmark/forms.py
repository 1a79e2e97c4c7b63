# SPDX-License-Identifier: Apache-2.0
"""The forms of each recurrence against each other on this processor: forward and backward, eager, float32.

File out: one JSON. No other library runs these layers on a CPU: there are the definition frame by frame
(`recurrent`, what flash-linear-attention calls naive), the chunkwise form of the papers, and the closed form;
for attention PyTorch's own kernel. What a form is given is what the mixer of a model gives it, at the sizes
of a flavour and from random frames; the mixer's projections, which all forms share, are not timed. Forms take
turns within a round, so that a slow moment of the machine hits all.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from isohypse.benchmark.report import markdown
from isohypse.errors import ConfigurationError
from isohypse.kernels import attention
from isohypse.kernels.choice import available, choose
from isohypse.models.backbone import Backbone
from isohypse.models.catalogue import MODELS, Flavour, flavour_of, label_of
from isohypse.models.mixer import Mixer
from isohypse.models.network import Network
from isohypse.models.registry import MODELS as PARTS
from isohypse.models.transformer import Plan
from isohypse.provenance import provenance
from isohypse.storage import write_json
from isohypse.training.hardware import device_name

WARMUP = 2
CPU = torch.device("cpu")
Form = Callable[..., Tensor]


def benchmark_forms(
    models: Sequence[str] | None,
    flavour: str,
    batch_size: int,
    frames: int,
    rounds: int,
    threads: int,
    destination: Path,
) -> str:
    """Measure, write `destination`, return the table. Nothing else should run meanwhile.

    models: all by default. Raises ConfigurationError for names or numbers that cannot be.
    """
    if min(batch_size, frames, rounds) < 1:
        raise ConfigurationError("benchmark forms: batch, frames and rounds must be at least 1")
    torch.set_num_threads(threads)
    rows = [measure(model, flavour, batch_size, frames, rounds) for model in models or MODELS]
    record = {"batch_size": batch_size, "frames": frames, "threads": threads, "models": rows}
    record["provenance"] = provenance("", device_name(CPU))
    write_json(destination, record)
    return table(record)


def measure(model: str, flavour: str, batch_size: int, frames: int, rounds: int) -> dict[str, Any]:
    """Seconds of each form of one model's recurrence, and how far each is from the first."""
    sizes = replace(flavour_of(model, flavour), layers=1)
    mixer = _mixer(model, sizes)
    arguments = arguments_of(mixer, torch.randn(batch_size, frames, sizes.d_model))
    forms = forms_of(mixer, frames)
    outputs = {name: form(*arguments).detach() for name, form in forms.items()}
    reference = next(iter(outputs.values()))
    gradient = torch.randn_like(reference)
    seconds = _seconds(forms, arguments, gradient, rounds)
    return {
        "model": model,
        "label": label_of(model),
        "flavour": flavour,
        "seconds": {name: _spread(values) for name, values in seconds.items()},
        "difference": {
            name: ((output - reference).norm() / reference.norm()).item() for name, output in outputs.items()
        },
    }


def forms_of(mixer: Mixer, frames: int) -> dict[str, Form]:
    """Every form that can serve `frames`, by name; the closed one first, if it can."""
    if mixer.recurrence == "attention":
        return {"closed": attention.closed, "sdpa": attention.sdpa}
    names = sorted(available(frames), key=("closed", "chunkwise", "recurrent").index)
    return {name: choose(mixer.recurrence, frames, CPU, name).form for name in names}


def arguments_of(mixer: Mixer, x: Tensor) -> list[Tensor]:
    """What `mixer` gives to its recurrence for x `[batch, frame, d_model]`, as leaves that want gradients."""
    plan, seen = mixer.plan(x), []

    def form(*arguments: Tensor) -> Tensor:
        seen.extend(arguments)
        return inner(*arguments)

    inner = plan.form if isinstance(plan, Plan) else plan
    mixer(x, plan._replace(form=form) if isinstance(plan, Plan) else form)
    return [argument.detach().contiguous().requires_grad_() for argument in seen]


def table(record: dict[str, Any]) -> str:
    """Milliseconds, median (least-greatest); x: against the closed form's median."""
    where = (
        f"{record['provenance']['device']}, {record['threads']} threads, batch {record['batch_size']}, "
        f"T {record['frames']}, float32: milliseconds forward and backward, median (least-greatest)"
    )
    rows = []
    for row in record["models"]:
        closed = row["seconds"].get("closed")
        for name, found in row["seconds"].items():
            cells = "{median:.2f} ({min:.2f}-{max:.2f})".format(**{k: 1000 * v for k, v in found.items()})
            times = f"{found['median'] / closed['median']:.2f}" if closed else ""
            label = f"{row['label']} ({row['flavour']})"
            rows.append((label, name, cells, times, f"{row['difference'][name]:.0e}"))
    return f"{where}\n\n{markdown(('model', 'form', 'ms', 'x closed', 'difference'), rows)}"


def _mixer(model: str, sizes: Flavour) -> Mixer:
    """The first mixer of the model, freshly drawn."""
    torch.manual_seed(0)
    parts = PARTS[model]
    backbone = Backbone(parts.mixer, parts.block, sizes, "auto")
    return Network(backbone, t_in=1, t_out=1, levels=1, latitude=1, longitude=1).backbone.mixers[0]


def _seconds(
    forms: dict[str, Form], arguments: list[Tensor], gradient: Tensor, rounds: int
) -> dict[str, list[float]]:
    """Of one pass forward and backward, for each form and round."""
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    for number in range(WARMUP + rounds):
        for name, form in forms.items():
            start = time.perf_counter()
            torch.autograd.grad(form(*arguments), arguments, gradient)
            if number >= WARMUP:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}
