# SPDX-License-Identifier: Apache-2.0
import json

import numpy as np
import pytest

from isohypse.benchmark import data
from isohypse.config.sections import NCEP_LEVELS_HPA
from isohypse.data.levels import LEVEL_MEAN_M


@pytest.mark.slow
def test_every_contender_runs_and_is_told(tmp_path):
    table = data.benchmark_data(None, 1, 1, tmp_path / "benchmark.json")
    record = json.loads((tmp_path / "benchmark.json").read_text())
    assert set(record["measurements"]) | set(record["missing"]) == set(data.CONTENDERS)
    assert all(name in table for name in data.CONTENDERS)


def test_a_tool_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(data, "_measure", lambda *_: {"seconds": 2.0, "cpu_seconds": 1.0, "peak_mib": 9.0})
    table = data.benchmark_data(tmp_path / "hgt.2001.nc", 2, 1, tmp_path / "benchmark.json")
    assert "| cdo | not installed |  |  |  |" in table
    assert "| isohypse | 2.00 (2.00-2.00) | 1.00 | 9 | 1.00 |" in table


def test_levels_are_told_apart_by_their_height():
    assert set(LEVEL_MEAN_M) == set(NCEP_LEVELS_HPA)
    assert (np.diff([LEVEL_MEAN_M[level] for level in NCEP_LEVELS_HPA]) > 600).all()
