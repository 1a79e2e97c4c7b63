# SPDX-License-Identifier: Apache-2.0
"""The parts of a training, built from its settings: windows, network, batches, validation."""

from pathlib import Path

import numpy as np
import torch

from isohypse.config.experiment import Task
from isohypse.config.sections import Split, Training
from isohypse.config.settings import TrainSettings
from isohypse.data.windows import Order, Windows, split_windows
from isohypse.errors import ConfigurationError
from isohypse.models.exchange import read_backbone
from isohypse.models.network import Network
from isohypse.models.registry import build
from isohypse.storage import sha256
from isohypse.training.batches import Batches, Draw, ResidentBatches, reside
from isohypse.training.frames import Frames
from isohypse.training.streaming import StreamedBatches
from isohypse.training.validation import Validation, validation_windows


def task_windows(task: Task, split: Split, frames: Frames) -> dict[str, Windows]:
    """Training, validation and test windows of a task on these frames."""
    return split_windows(frames.time, split, task.protocol, task.t_in, task.t_out)


def build_network(
    settings: TrainSettings, frames: Frames, mean_frame: np.ndarray, initial_weights: Path | None = None
) -> Network:
    """The run's network, initialised on the CPU from its seed, so that every device starts alike.

    mean_frame: normalised [level, latitude, longitude], where the head starts if the settings say so.
    initial_weights: where the backbone starts; projection and head are drawn as ever. Raises
    ConfigurationError if it is not the file of the settings, DataError if it does not fit the run.
    """
    _check_initial(settings, initial_weights)
    run = settings.run
    _, levels, latitude, longitude = frames.shape
    torch.manual_seed(run.seed)
    network = build(
        run.model,
        run.flavour,
        t_in=run.task.t_in,
        t_out=run.task.t_out,
        levels=levels,
        latitude=latitude,
        longitude=longitude,
        backend=settings.training.kernel,
    )
    if settings.training.head_bias == "mean_frame":
        network.start_head_at(torch.from_numpy(mean_frame))
    if initial_weights is not None:
        read_backbone(network.backbone, run.model, initial_weights)
    return network


def _check_initial(settings: TrainSettings, path: Path | None) -> None:
    wanted = settings.initial_weights
    if (path is None) != (wanted is None):
        problem = (
            "--initial-weights is missing" if path is None else "no --initial-weights is in the settings"
        )
        raise ConfigurationError(f"{settings.run}: {problem}; `isohypse settings train` prints the settings")
    if path is not None and (not path.is_file() or sha256(path) != wanted):
        raise ConfigurationError(f"{path} is not the file with SHA-256 {wanted[:12]}... of the settings")


def build_batches(
    windows: Windows,
    frames: Frames,
    training: Training,
    seed: int,
    device: torch.device,
    precision: str,
    part: slice = slice(None),
) -> Batches:
    """Training batches in the order of the seed: resident on the device if the frames fit, else streamed.

    part: which windows of a batch are this process's. Inputs come as autocast would round them.
    """
    order = Order(windows.starts, training.batch_size, seed, training.stretch_windows, part)
    input_type = torch.bfloat16 if precision == "bf16" else torch.float32
    draw = Draw(order, windows.t_in, windows.t_out, input_type)
    heights = reside(frames, draw.frames, device)
    if heights is not None:
        return ResidentBatches(heights, draw, frames.normalisation)
    return StreamedBatches(frames, draw, device)


def build_validation(
    windows: Windows, frames: Frames, settings: TrainSettings, mean_frame: np.ndarray, device: torch.device
) -> Validation:
    """The fixed set of validation windows; `standard` takes anomalies from the mean training frame."""
    protocol = settings.run.task.protocol
    chosen = validation_windows(len(windows), settings.training.evaluate_windows, protocol)
    reference = None if protocol == "paper" else mean_frame
    return Validation(windows, chosen, frames, protocol, device, reference)
