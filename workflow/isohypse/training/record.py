# SPDX-License-Identifier: Apache-2.0
"""run.json: what was trained, on what, how fast. Rates are medians over the logged intervals."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

import torch

from isohypse.models.catalogue import label_of
from isohypse.provenance import provenance
from isohypse.training.hardware import device_name
from isohypse.training.log import read_metrics

if TYPE_CHECKING:
    from isohypse.training.trainer import Trainer


def record_of(trainer: Trainer) -> dict[str, Any]:
    """The record of a finished training."""
    run, frames, settings = trainer.run, trainer.frames, trainer.settings
    rates = [value for *_, metric, value in read_metrics(trainer.log.path) if metric == "frames_per_second"]
    frames_per_second = statistics.median(rates)
    name = device_name(trainer.device)
    return {
        "run": str(run),
        "model": run.model,
        "flavour": run.flavour,
        "label": label_of(run.model),
        "seed": run.seed,
        "data_sha256": frames.digest,
        "task": run.task.model_dump(mode="json"),
        "grid": {"latitude": frames.latitude.tolist(), "longitude": frames.longitude.tolist()},
        "parameters": trainer.parameters,
        "kernels": trainer.step.kernels,
        "precision": trainer.precision,
        "device": name,
        "threads": torch.get_num_threads(),
        "steps": trainer.done,
        "skipped_steps": trainer.step.skipped_steps(),
        "seconds": trainer.clock.seconds,
        "steps_per_second": frames_per_second / (trainer.training.batch_size * run.task.t_in),
        "frames_per_second": frames_per_second,
        "peak_memory_bytes": trainer.memory.read(),
        "settings": settings.model_dump(mode="json"),
        "provenance": provenance(settings.digest, name, trainer.step.kernels),
    }
