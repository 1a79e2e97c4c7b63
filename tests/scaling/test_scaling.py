# SPDX-License-Identifier: Apache-2.0
"""Measurements are complete and plausible; the table holds them all."""

import pandas as pd
import pytest
import torch

from isohypse.config.sections import Execution
from isohypse.config.settings import MeasureSettings
from isohypse.errors import DataError, UnavailableError
from isohypse.scaling import measure as measure_module
from isohypse.scaling.costs import tabulate_costs
from isohypse.scaling.measure import measure
from isohypse.storage import read_json

CPU = Execution(device="cpu")


def settings(model: str = "transformer", length: int = 8, **changes) -> MeasureSettings:
    values = {"flavour": "debug", "latitudes": 7, "longitudes": 12, "kernel": "auto", "precision": "auto"}
    values |= {"batch_size": 2, "repeats": 3}
    return MeasureSettings(version=1, model=model, length=length, **values | changes)


@pytest.fixture
def measured(tmp_path):
    """(model, length) -> path of its measurement."""

    def run(model: str, length: int):
        path = tmp_path / model / f"T{length}.json"
        measure(settings(model, length), path, CPU, threads=1)
        return path

    return run


@pytest.mark.parametrize(("model", "length"), [("transformer", 8), ("kda", 72)])
def test_measurement_is_complete(measured, model, length):
    record = read_json(measured(model, length))
    assert (record["model"], record["flavour"], record["length"], record["batch_size"]) == (
        model,
        "debug",
        length,
        2,
    )
    for name in ("frames_per_second", "latency_ms"):
        assert 0 < record[name]["min"] <= record[name]["median"] <= record[name]["max"]
    # A training step does all that a forecast does, and more.
    assert 1000 * 2 * length / record["frames_per_second"]["median"] > record["latency_ms"]["median"]
    assert record["peak_memory_bytes"] >= 0
    assert record["kernels"]
    assert record["fits"] is True


def test_peak_memory_sees_what_was_needed():
    memory = measure_module.PeakMemory(torch.device("cpu"))
    block = torch.ones(30_000_000)  # 120 MB
    del block
    assert 100e6 < memory.read() < 200e6


def test_memory_that_does_not_suffice_is_a_result(tmp_path, monkeypatch):
    def exhausted(*_arguments):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(measure_module, "_numbers", exhausted)
    measure(settings(), tmp_path / "T8.json", CPU, threads=1)
    assert read_json(tmp_path / "T8.json")["frames_per_second"] is None
    tabulate_costs([tmp_path / "T8.json"], tmp_path / "costs.csv")
    table = pd.read_csv(tmp_path / "costs.csv")
    assert table["frames_per_second"].isna().all()
    assert not table["fits"].any()


def test_kernel_that_cannot_serve_is_refused(tmp_path):
    with pytest.raises(UnavailableError, match="closed"):
        measure(settings("kda", 72, kernel="closed"), tmp_path / "T72.json", CPU, threads=1)
    assert not (tmp_path / "T72.json").exists()


def test_costs_hold_every_measurement(measured, tmp_path):
    paths = [measured("transformer", 16), measured("gla", 8), measured("transformer", 8)]
    tabulate_costs(paths, tmp_path / "costs.csv")
    table = pd.read_csv(tmp_path / "costs.csv")
    rows = list(zip(table["model"], table["length"]))
    assert rows == [("gla", 8), ("transformer", 8), ("transformer", 16)]
    record = read_json(paths[1])
    assert table["frames_per_second"][0] == record["frames_per_second"]["median"]
    assert table["latency_ms_max"][0] == record["latency_ms"]["max"]
    assert table["kernels"][0] == "gla closed"


def test_what_is_no_measurement_is_refused(tmp_path):
    (tmp_path / "T8.json").write_text("{}")
    with pytest.raises(DataError, match=r"T8\.json is not a measurement"):
        tabulate_costs([tmp_path / "T8.json"], tmp_path / "costs.csv")
    assert not (tmp_path / "costs.csv").exists()
