# SPDX-License-Identifier: Apache-2.0
"""The parts of a training, built from its settings: windows, network, batches, validation."""

import numpy as np
import torch

from isohypse.config.experiment import Task
from isohypse.config.sections import Split
from isohypse.config.settings import TrainSettings
from isohypse.data.windows import Windows, batch_order, split_windows
from isohypse.models.network import Network
from isohypse.models.registry import build
from isohypse.training.batches import Batches, ResidentBatches, StreamedBatches, fits, reside
from isohypse.training.frames import Frames
from isohypse.training.validation import Validation, validation_windows


def task_windows(task: Task, split: Split, frames: Frames) -> dict[str, Windows]:
    """Training, validation and test windows of a task on these frames."""
    return split_windows(frames.time, split, task.protocol, task.t_in, task.t_out)


def build_network(settings: TrainSettings, frames: Frames, mean_frame: np.ndarray) -> Network:
    """The run's network, initialised on the CPU from its seed, so that every device starts alike.

    mean_frame: normalised [level, latitude, longitude], where the head starts if the settings say so.
    """
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
    return network


def build_batches(
    windows: Windows,
    frames: Frames,
    batch_size: int,
    seed: int,
    device: torch.device,
    part: slice = slice(None),
) -> Batches:
    """Training batches in the order of the seed: resident on the device if the frames fit, else streamed.

    part: which windows of a batch are this process's.
    """

    def order(step: int) -> np.ndarray:
        return windows.starts[batch_order(len(windows), batch_size, seed, step)[part]]

    first, stop = windows.frames.start, windows.frames.stop
    if fits(stop - first, frames, device):
        resident = reside(frames, first, stop, device)
        return ResidentBatches(resident, first, order, windows.t_in, windows.t_out)
    return StreamedBatches(frames, order, windows.t_in, windows.t_out, device)


def build_validation(
    windows: Windows, frames: Frames, settings: TrainSettings, mean_frame: np.ndarray, device: torch.device
) -> Validation:
    """The fixed set of validation windows; `standard` takes anomalies from the mean training frame."""
    protocol = settings.run.task.protocol
    chosen = validation_windows(len(windows), settings.training.evaluate_windows, protocol)
    reference = None if protocol == "paper" else mean_frame
    return Validation(windows, chosen, frames, protocol, device, reference)
