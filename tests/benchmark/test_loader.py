# SPDX-License-Identifier: Apache-2.0
"""The table of `benchmark loader`, on a grid that takes no time."""

import json

import pytest

from isohypse.benchmark import loader
from isohypse.errors import ConfigurationError


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(loader, "GRID", (5, 8))
    monkeypatch.setattr(loader, "YEAR_FRAMES", 60)
    monkeypatch.setattr(loader, "ROUNDS", 2)
    monkeypatch.setattr(loader, "choose_device", lambda asked: loader.torch.device("cpu"))


def test_an_unknown_model_is_refused_before_anything_is_made(tmp_path):
    with pytest.raises(ConfigurationError, match="unknown model 'lstm'"):
        loader.benchmark_loader(10**6, 0.0, tmp_path / "loader.json", "lstm")


@pytest.mark.slow
def test_training_steps_are_timed(tmp_path, monkeypatch, small):
    monkeypatch.setattr(loader, "BATCH", 4)
    loader.benchmark_loader(2, 0.0, tmp_path / "loader.json", "gla", "debug")
    record = json.loads((tmp_path / "loader.json").read_text())
    assert record["step"] == {"model": "gla", "flavour": "debug"}
    assert record["provenance"]["kernels"] == {"gla": "closed"}
    assert len(record["seconds_a_step"]) == 5
    assert all(min(seconds) > 0 for seconds in record["seconds_a_step"].values())


@pytest.mark.parametrize("step_seconds", [0.0, pytest.param(0.02, marks=pytest.mark.slow)])
def test_every_way_to_a_batch_is_timed(tmp_path, small, step_seconds):
    table = loader.benchmark_loader(2, step_seconds, tmp_path / "loader.json")
    record = json.loads((tmp_path / "loader.json").read_text())
    seconds, sent = record["seconds_a_step"], record["bytes_sent_a_step"]
    assert all(f"| {name} | " in table for name in seconds)
    assert all(len(values) == loader.ROUNDS and min(values) >= step_seconds for values in seconds.values())
    frame = 2 * 2 * 5 * 8  # bytes in int16
    assert sent["resident, int16"] == 0
    assert sent["streamed by weeks, int16"] == pytest.approx(256 * 36 / 28 * frame)
    assert sent["streamed by weeks, float32"] == 2 * sent["streamed by weeks, int16"]
    assert sent["streamed, all windows mixed, int16"] == 256 * 9 * frame
