# SPDX-License-Identifier: Apache-2.0
"""Scores of a network on a fixed set of validation windows, while it trains.

loss: unweighted mean squared error of normalised heights, as in training; rmse: its root. Protocol `paper`:
rmse_m (metres) is unweighted; acc takes anomalies from the mean of the truth of this very set and multiplies
cos(latitude) into both anomalies, as the published code does. Protocol `standard`: rmse_m is weighted with
cell areas; acc takes anomalies from the mean training frame and weights with cell areas. Both acc are
uncentred, one number a window, lead time and level, then averaged.

These follow training. The study's results come from the `evaluation` stage.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from isohypse.data.area import area_weights
from isohypse.data.windows import Windows

if TYPE_CHECKING:  # needs the data's libraries
    from isohypse.training.frames import Frames


class Validation:
    """Holds the windows' inputs and targets [window, frame, level, latitude, longitude] on the device."""

    def __init__(
        self,
        windows: Windows,
        chosen: np.ndarray,
        frames: Frames,
        protocol: str,
        device: torch.device,
        mean_frame: np.ndarray | None,
    ):
        """chosen: which windows. mean_frame: normalised [level, latitude, longitude], for `standard`."""
        self.inputs = _read(windows.inputs(chosen), frames, device)
        self.targets = _read(windows.targets(chosen), frames, device)
        self.std_m = torch.from_numpy(frames.normalisation.std_m).to(device)
        if protocol == "paper":
            rmse_weights = np.ones(len(frames.latitude))
            acc_weights = np.cos(np.deg2rad(frames.latitude)) ** 2
            self.reference = self.targets.mean(dim=(0, 1))
        else:
            rmse_weights = acc_weights = area_weights(frames.latitude)
            self.reference = torch.from_numpy(mean_frame).to(device)
        self.rmse_weights = _column(rmse_weights, device)
        self.acc_weights = _column(acc_weights, device)

    @torch.inference_mode()
    def measure(self, forecast: Callable[[Tensor], Tensor], batch_size: int) -> dict[str, float]:
        """loss, rmse, rmse_m, acc. forecast: inputs -> normalised fields of all lead times."""
        totals = sum(
            self._sums(forecast(inputs).float(), targets)
            for inputs, targets in zip(self.inputs.split(batch_size), self.targets.split(batch_size))
        )
        loss, mse_m2, acc = (totals / len(self.inputs)).tolist()
        return {"loss": loss, "rmse": loss**0.5, "rmse_m": mse_m2**0.5, "acc": acc}

    def _sums(self, forecast: Tensor, targets: Tensor) -> Tensor:
        """float64 [3]: loss, squared error (m2) and acc; means over all but the windows, which are summed."""
        error = (forecast - targets) * self.std_m
        means = [
            F.mse_loss(forecast, targets),
            (error.square() * self.rmse_weights).mean(),
            self._acc(forecast - self.reference, targets - self.reference).mean(),
        ]
        return torch.stack(means).double() * len(targets)

    def _acc(self, forecast: Tensor, truth: Tensor) -> Tensor:
        """[window, frame, level]: uncentred correlation of two anomalies over the grid."""
        weighted = forecast * self.acc_weights
        covariance = (weighted * truth).sum((-2, -1))
        variances = (weighted * forecast).sum((-2, -1)) * (truth.square() * self.acc_weights).sum((-2, -1))
        return covariance / variances.sqrt().clamp_min(torch.finfo(torch.float32).tiny)


def validation_windows(count: int, wanted: int, protocol: str) -> np.ndarray:
    """int64: which of `count` windows are looked at: the first in `paper`, evenly spaced in `standard`."""
    number = min(count, wanted)
    if protocol == "paper":
        return np.arange(number)
    return np.linspace(0, count - 1, number).round().astype(np.int64)


def _column(weights: np.ndarray, device: torch.device) -> Tensor:
    return torch.tensor(weights, dtype=torch.float32, device=device)[:, None]


def _read(index: np.ndarray, frames: Frames, device: torch.device) -> Tensor:
    """The frames at index [window, frame], each read once."""
    needed, position = np.unique(index, return_inverse=True)
    return torch.from_numpy(frames.read(needed)[position.reshape(index.shape)]).to(device)
