# SPDX-License-Identifier: Apache-2.0
"""`benchmark step` without a GPU: what it asks for, what it refuses, and the table it writes."""

import pytest
import torch

from isohypse.benchmark.ceilings import Ceilings
from isohypse.benchmark.report import COLUMNS, table
from isohypse.benchmark.step import benchmark_step
from isohypse.benchmark.trial import RandomBatches, Trial
from isohypse.cli import main
from isohypse.errors import ConfigurationError, UnavailableError

NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a GPU that must not be there")
MILLISECOND = 1e-3


def spread(median):
    return {"median": median, "min": 0.9 * median, "max": 1.2 * median}


@pytest.fixture
def record():
    """A trial of 256 x 8 frames: 20 ms against 100 ms, floor 10 ms."""
    return {
        "model": "gla",
        "label": "GLA",
        "flavour": "paper",
        "batch_size": 256,
        "frames": 8,
        "parameters": 330_479_888,
        "first_step_seconds": 50.2,
        "peak_memory_bytes": 7 * 2**30,
        "step_seconds": {"ours": spread(20 * MILLISECOND), "peer": spread(100 * MILLISECOND)},
        "peer_peak_memory_bytes": 3 * 2**30,
        "peer_note": "as it is",
        "forecast_seconds": spread(4 * MILLISECOND),
        "carried_forecast_seconds": spread(2 * MILLISECOND),
        "peer_forecast_seconds": spread(40 * MILLISECOND),
        "ceilings": {
            "matmul_flops_per_second": 790e12,
            "copy_bytes_per_second": 3e12,
            "floor_seconds": 10 * MILLISECOND,
        },
        "provenance": {"device": "Card", "versions": {"torch": "2.11", "mamba-ssm": None}},
    }


def rows_of(text):
    """Header and rows as lists of cells."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "---" not in line]


def test_the_table_says_where_and_what(record):
    text = table([record])
    header, row = rows_of(text)
    assert tuple(header) == COLUMNS
    cells = dict(zip(header, row, strict=True))
    assert cells["model"] == "GLA (paper)"
    assert cells["parameters"] == "330M"
    assert cells["ms/step"] == "20.00 (18.00-24.00)"
    assert cells["frames/s"] == "102,400"
    assert cells["x floor"] == "2.00"
    assert cells["x FLA"] == "5.0"
    assert (cells["peak GiB"], cells["FLA peak GiB"]) == ("7.00", "3.00")
    assert cells["carried forecast ms"] == "2.00 (1.80-2.40)"
    assert text.startswith("Card, batch 256, T 8, bf16; 790 TFLOP/s in a bf16 product of 8192^3, 3.00 TB/s")
    assert "torch 2.11" in text
    assert "mamba-ssm" not in text


def test_a_peer_that_did_not_run_leaves_its_cells_empty(record):
    del record["step_seconds"]["peer"], record["peer_forecast_seconds"]
    record["peer_note"] = "cannot run: refused"
    header, row = rows_of(table([record]))
    cells = dict(zip(header, row, strict=True))
    peers = ("FLA ms/step", "x FLA", "FLA peak GiB", "FLA forecast ms")
    assert [cells[name] for name in peers] == [""] * 4
    assert cells["peer"] == "cannot run: refused"


def test_the_floor_adds_arithmetic_and_traffic():
    """330M parameters, 2,048 tokens: 6 N tokens operations and 28 N bytes."""
    ceilings = Ceilings(matmul_flops_per_second=1e12, copy_bytes_per_second=1e9)
    assert ceilings.floor_seconds(1_000_000, 500) == pytest.approx(6e6 * 500 / 1e12 + 28e6 / 1e9)
    assert ceilings.floor_seconds(1_000_000, 0) == pytest.approx(0.028)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "lstm"}, "unknown model 'lstm'"),
        ({"flavour": "matched"}, "gla has no flavour 'matched'"),
        ({"batch_size": 0}, "batch_size is 0, not at least 1"),
        ({"frames": 0}, "frames is 0"),
        ({"rounds": 0}, "rounds is 0"),
    ],
)
def test_a_trial_that_cannot_be_is_refused(change, message):
    values = {"model": "gla", "flavour": "paper", "batch_size": 4, "frames": 8} | change
    with pytest.raises(ConfigurationError, match=message):
        Trial(**values)


def test_batches_are_the_same_random_frames_every_time():
    trial = Trial("gla", "debug", batch_size=2, frames=3)
    first, second = (RandomBatches(trial, torch.device("cpu")).gather() for _ in range(2))
    assert first[0].shape == (2, 3, 1, 73, 144)
    assert torch.equal(first[1], first[0][:, -1:])
    assert torch.equal(first[0], second[0])


@NO_GPU
def test_without_a_gpu_it_says_so_and_writes_nothing(tmp_path, capsys):
    with pytest.raises(UnavailableError, match="needs a GPU"):
        benchmark_step([Trial("gla", "debug", batch_size=2, frames=3)], tmp_path / "out", limit_seconds=60)
    assert main(["benchmark", "step", "--output", str(tmp_path / "out")]) == 5
    assert "benchmark step needs a GPU" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_unknown_model_is_an_error_of_one_line(tmp_path, capsys):
    assert main(["benchmark", "step", "--models", "lstm", "--output", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("isohypse: unknown model 'lstm': choose from transformer")
