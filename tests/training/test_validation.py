# SPDX-License-Identifier: Apache-2.0
"""Validation scores against the same numbers written out in numpy."""

import numpy as np
import pytest
import torch
from torch import nn

from isohypse.data.area import area_weights
from isohypse.training.assembly import build_validation, task_windows
from isohypse.training.frames import open_frames
from isohypse.training.validation import validation_windows

CPU = torch.device("cpu")


class Persistence(nn.Module):
    """Repeats the last frame; the truth if `t_out` frames come along."""

    def forward(self, x):
        return x[:, -1:].expand(-1, 2, -1, -1, -1)


@pytest.fixture(params=["paper", "standard"])
def case(request, study):
    """(settings, frames, windows, mean frame, validation) for two levels."""
    settings = study.settings(protocol=request.param, levels_hpa=(500, 300))
    frames = open_frames(study.stores, (500, 300), study.statistics(settings.run.task))
    windows = task_windows(settings.run.task, settings.split, frames)["validation"]
    mean = frames.mean(0, 100)
    return settings, frames, windows, mean, build_validation(windows, frames, settings, mean, CPU)


def test_scores_are_the_definitions(case):
    settings, frames, windows, mean, validation = case
    paper = settings.run.task.protocol == "paper"
    chosen = validation_windows(len(windows), 10, settings.run.task.protocol)
    truth = np.stack([frames.read(index) for index in windows.targets(chosen)]).astype(float)
    forecast = (
        np.stack([frames.read(index[-1:]) for index in windows.inputs(chosen)]).repeat(2, 1).astype(float)
    )
    area = np.ones(7) if paper else area_weights(frames.latitude)
    error_m = (forecast - truth) * frames.normalisation.std_m
    reference = truth.mean(axis=(0, 1)) if paper else mean
    weights = (np.cos(np.deg2rad(frames.latitude)) ** 2 if paper else area)[:, None]
    f, t = forecast - reference, truth - reference
    products = [(weights * a * b).sum(axis=(-2, -1)) for a, b in ((f, t), (f, f), (t, t))]
    expected = {
        "loss": ((forecast - truth) ** 2).mean(),
        "rmse": ((forecast - truth) ** 2).mean() ** 0.5,
        "rmse_m": (error_m**2 * area[:, None]).mean() ** 0.5,
        "acc": (products[0] / np.sqrt(products[1] * products[2])).mean(),
    }
    assert validation.measure(Persistence(), batch_size=4) == pytest.approx(expected, rel=1e-5)


def test_batch_size_does_not_matter(case):
    validation = case[-1]
    whole = validation.measure(Persistence(), batch_size=10)
    assert validation.measure(Persistence(), batch_size=3) == pytest.approx(whole, rel=1e-6)


def test_paper_takes_the_first_windows_and_standard_spreads_them():
    assert validation_windows(100, 4, "paper").tolist() == [0, 1, 2, 3]
    assert validation_windows(100, 4, "standard").tolist() == [0, 33, 66, 99]
    assert validation_windows(3, 256, "standard").tolist() == [0, 1, 2]
