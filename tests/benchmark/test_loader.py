# SPDX-License-Identifier: Apache-2.0
"""The table of `benchmark loader`, on a grid that takes no time."""

import json

import pytest

from isohypse.benchmark import loader


@pytest.mark.parametrize("step_seconds", [0.0, pytest.param(0.02, marks=pytest.mark.slow)])
def test_every_way_to_a_batch_is_timed(tmp_path, monkeypatch, step_seconds):
    monkeypatch.setattr(loader, "GRID", (5, 8))
    monkeypatch.setattr(loader, "YEAR_FRAMES", 60)
    monkeypatch.setattr(loader, "ROUNDS", 2)
    monkeypatch.setattr(loader, "choose_device", lambda asked: loader.torch.device("cpu"))
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
