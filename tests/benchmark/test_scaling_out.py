# SPDX-License-Identifier: Apache-2.0
"""`isohypse benchmark scaling-out`: what is planned, measured on one and two processes, and reported."""

import dataclasses
import json
from types import SimpleNamespace

import pytest

from isohypse.benchmark import scaling_out
from isohypse.benchmark.rank_trial import Measurement
from isohypse.benchmark.scaling_out import Plan
from isohypse.benchmark.scaling_report import COLUMNS, report
from isohypse.cli import main
from isohypse.errors import ConfigurationError, UnavailableError
from isohypse.models.catalogue import MODELS

TINY = ["--models", "gla", "--flavour", "debug", "--gpus", "1", "2", "--modes", "replicate"]
TINY += ["--scalings", "weak", "strong", "--batch", "3", "--frames", "4", "--rounds", "3", "--steps", "2"]


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Three windows a process, then three in all, which two processes cannot share."""
    folder = tmp_path_factory.mktemp("scaling-out")
    command = ["benchmark", "scaling-out", *TINY, "--device", "cpu", "--limit", "90"]
    assert main([*command, "--output", str(folder)]) == 0
    rows = json.loads((folder / "rows.json").read_text())
    return SimpleNamespace(rows=rows, table=(folder / "table.md").read_text())


def test_one_and_two_processes_are_measured(measured):
    one, weak, _ = measured.rows
    assert [(r["scaling"], r["mode"], r["ranks"]) for r in (one, weak)] == [
        ("one", "alone", 1),
        ("weak", "replicate", 2),
    ]
    assert (one["batch_size"], weak["batch_size"]) == (3, 6)
    for row in (one, weak):
        seconds = row["step_seconds"]
        assert 0 < seconds["min"] <= seconds["median"] <= seconds["max"]
        assert row["windows_per_second"] == pytest.approx(row["batch_size"] / seconds["median"])
        assert row["frames_per_second"] == pytest.approx(4 * row["windows_per_second"])
        assert row["peak_memory_bytes"] > 4 * row["parameters"]
        assert row["last_loss"] == pytest.approx(1, abs=0.3), "noise has a variance of one"
        assert row["kernels"] == {"gla": "closed"}
        assert row["provenance"]["versions"]["torch"]
        assert row["nccl"]["NCCL_NVLS_ENABLE"] == "0", "what the measurement chose for NCCL"
    assert one["parameters"] == weak["parameters"]


def test_a_measurement_that_fails_is_a_row_that_says_why(measured):
    failed = measured.rows[2]
    assert (failed["scaling"], failed["ranks"]) == ("strong", 2)
    assert "3 windows cannot be shared evenly by 2 processes" in failed["failed"]
    assert "step_seconds" not in failed
    assert failed["failed"] in measured.table


def modes_of(measurements, scaling):
    return {(m.ranks, m.mode) for m in measurements if m.scaling == scaling}


def test_the_whole_plan():
    found = list(Plan(tuple(MODELS), "paper", device="cpu").measurements())
    assert len(set(found)) == len(found)
    weak = [m for m in found if m.scaling == "weak"]
    assert {m.batch_size // m.ranks for m in weak} == {256}
    assert {m.batch_size for m in found if m.scaling in ("one", "strong")} == {256}
    shared = {(n, mode) for n in (2, 4, 8) for mode in ("replicate", "fsdp", "tensor2")}
    shared |= {(4, "tensor4"), (8, "tensor4"), (8, "tensor8")}
    assert modes_of(found, "weak") == modes_of(found, "strong") == shared
    assert modes_of(found, "one") == {(1, "alone")}
    assert modes_of(found, "long") == {(1, "alone"), (2, "tensor2"), (4, "tensor4"), (8, "tensor8")}
    long = [m for m in found if m.scaling == "long"]
    assert {(m.frames, m.batch_size, m.steps, m.recompute) for m in long} == {(131_072, 1, 1, True)}
    assert {m.model for m in long} == set(MODELS)
    assert [m.execution.tensor_parallel for m in found if m.mode == "tensor4"][:1] == [4]
    assert {m.execution.parallel for m in found if m.mode == "fsdp"} == {"fsdp"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"models": ("lstm",)}, "unknown model 'lstm'"),
        ({"modes": ("tensor3",)}, "modes has no 'tensor3'; choose from replicate, fsdp, tensor2"),
        ({"scalings": ("wide",)}, "scalings has no 'wide'"),
        ({"gpus": (0, 1)}, "0 is not at least 1"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(change, message):
    with pytest.raises(ConfigurationError, match=message):
        Plan(**{"models": ("gla",), "flavour": "debug"} | change)


MEASUREMENT = Measurement("gla", "paper", "strong", "replicate", 8, 256, 8, False, 5, 10, "cuda")


def test_more_gpus_than_there_are_is_a_row_that_names_both(monkeypatch):
    monkeypatch.setattr(scaling_out.torch.cuda, "device_count", lambda: 2)
    assert scaling_out._row(MEASUREMENT, 1.0) == {"skipped": "needs 8 GPUs, here are 2"}


def test_nothing_measured_is_an_error(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(scaling_out, "_row", lambda *_: {"skipped": "needs 8 GPUs, here are 2"})
    with pytest.raises(UnavailableError, match="nothing could be measured"):
        scaling_out.benchmark_scaling_out(Plan(("gla",), "debug", device="cpu"), tmp_path)
    assert "gla debug, weak, tensor2, 2 process" in capsys.readouterr().err
    assert "needs 8 GPUs" in (tmp_path / "table.md").read_text()


def row(seconds, **changes):
    m = dataclasses.replace(MEASUREMENT, **changes)
    rate = m.batch_size / seconds
    return dataclasses.asdict(m) | {
        "step_seconds": {"median": seconds, "min": 0.9 * seconds, "max": 1.1 * seconds},
        "windows_per_second": rate,
        "frames_per_second": rate * m.frames,
        "peak_memory_bytes": 3 * 2**30,
        "communication": {"seconds": 0.3 * seconds, "exposed_seconds": 0.1 * seconds},
        "kernels": {"gla": "fused"},
        "nccl": {},
        "precision": "bf16",
        "provenance": {"device": "Card", "versions": {"torch": "2.11", "mamba-ssm": None}},
    }


def cells_of(text):
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line] for line in lines if "---" not in line[0]]


def test_the_tables_compare_with_one_gpu_and_with_the_paper():
    one = row(0.02, scaling="one", mode="alone", ranks=1)
    long = row(10.0, scaling="long", mode="tensor8", batch_size=1, frames=131_072)
    text = report([one, row(0.004), long])
    header, _, strong, paper_header, paper, _, long_row = cells_of(text)
    found = dict(zip(header, strong, strict=True))
    assert tuple(header) == COLUMNS
    assert (found["model"], found["GPUs"], found["windows"]) == ("GLA", "8", "256")
    assert (found["ms/step"], found["x one GPU"]) == ("4.00 (3.60-4.40)", "5.00")
    assert (found["communication"], found["hidden, ms"]) == ("10.0%", "0.80")
    assert "2 nodes of 4 A100-40GB" in text
    assert paper_header[2:4] == ["tokens/s a GPU", "the paper's"]
    assert paper[2:4] == ["672,768,000", "31,213"], "10,512 a frame: 256 x 8 frames in 4 ms on 8 GPUs"
    assert long_row[:6] == ["GLA", "tensor8", "8", "10.00 (9.00-11.00)", "13,107", "2,030"]
    assert text.startswith("Card, flavour paper, bf16; torch 2.11\n")
    chosen = report([one | {"nccl": {"NCCL_MAX_CTAS": "8"}}])
    assert chosen.startswith("Card, flavour paper, bf16; torch 2.11; NCCL_MAX_CTAS=8\n")
    assert "the paper's configuration" not in report([one]).lower()
