# SPDX-License-Identifier: Apache-2.0
"""Trainings on smooth fields: the fields, and the measurements `losses` and `endurance` without a GPU."""

from dataclasses import asdict

import numpy as np
import pytest
import torch

from isohypse.benchmark import endurance, losses
from isohypse.benchmark.endurance import Endurance, endure
from isohypse.benchmark.losses import compare_losses, deviation
from isohypse.benchmark.smooth import GAP_FRAMES, NOISE, SmoothTraining, smooth_fields
from isohypse.cli import main
from isohypse.errors import ConfigurationError
from isohypse.storage import read_json

CPU = torch.device("cpu")
SMALL = {"model": "gla", "flavour": "debug", "steps": 12, "warmup_steps": 3, "batch_size": 2, "frames": 3}
torch.set_num_threads(1)


@pytest.fixture
def training(monkeypatch):
    """Of few windows, so that it takes no time."""
    monkeypatch.setattr(SmoothTraining, "training_windows", 30)
    return SmoothTraining(**SMALL, layers=1, device="cpu")


def test_fields_are_smooth_in_time_and_the_same_every_time():
    fields = smooth_fields(20, CPU)
    assert fields.shape == (20, 1, 73, 144)
    assert torch.equal(fields, smooth_fields(20, CPU))
    steps = (fields[1:] - fields[:-1]).std()
    assert NOISE * 2**0.5 < steps < 0.5 * fields.std()  # the noise alone would be the first


def test_batches_are_windows_of_the_frames_that_validation_never_sees(training):
    frames = training.smooth_frames(windows=5)
    validation = training.windows_after(5)
    known = frames.read(np.arange(validation.frames.start - GAP_FRAMES))
    batches = training.batches(frames, "fp32")
    for step in range(4):
        batches.load(step)
        inputs, targets = (part.numpy() for part in batches.gather())
        for window, target in zip(inputs, targets):
            (start,) = np.flatnonzero((known == window[0]).all(axis=(1, 2, 3)))
            np.testing.assert_array_equal(np.concatenate([window, target]), known[start : start + 4])
    assert validation.frames.stop == len(frames.heights)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "lstm"}, "unknown model 'lstm'"),
        ({"layers": 0}, "layers is 0, not at least 1"),
        ({"steps": 0}, "steps is 0"),
    ],
)
def test_a_training_that_cannot_be_is_refused(change, message):
    with pytest.raises(ConfigurationError, match=message):
        SmoothTraining(**SMALL | change)


def test_losses_fall_and_bf16_stays_near_float32(training):
    plain, half, resumed = compare_losses(asdict(training))
    assert (plain["step"], plain["precision"]) == ("eager", "fp32")
    assert (half["step"], half["precision"]) == ("eager", "bf16")
    assert len(plain["losses"]) == len(half["losses"]) == 12
    assert np.mean(plain["losses"][-3:]) < np.mean(plain["losses"][:3])
    assert "largest_deviation" not in plain
    assert 0 < half["largest_deviation"] < 0.01
    assert resumed["resume"]["losses_equal"]
    assert resumed["resume"]["weights_equal"]
    assert (resumed["resume"]["steps"], resumed["resume"]["break_after"]) == (12, 7)


def test_moments_that_are_lost_are_found_out(training, monkeypatch):
    monkeypatch.setattr(losses, "restore_optimizer", lambda *_: None)
    found = losses.resume(training, training.smooth_frames(), "fp32")
    assert not found["losses_equal"]
    assert not found["weights_equal"]


def test_a_way_that_fails_leaves_the_others(training, monkeypatch):
    monkeypatch.setattr(losses, "ways", lambda _: [("eager", "fp32"), ("auto", "none"), ("eager", "bf16")])
    real = SmoothTraining.step

    def step(self, network, frames, precision, **options):
        if precision == "none":
            raise RuntimeError("no such\nprecision")
        return real(self, network, frames, precision, **options)

    monkeypatch.setattr(SmoothTraining, "step", step)
    rows = list(compare_losses(asdict(training)))
    assert rows[1] == {"precision": "none", "cannot_run": "RuntimeError: no such precision"}
    assert 0 < rows[2]["largest_deviation"] < 0.01
    text = losses.tables([{"label": "GLA", "rows": rows}])
    assert "| GLA |  | none | cannot run: RuntimeError: no such precision |" in text
    assert "| equal to the bit | equal to the bit |" in text


def test_the_deviation_is_relative_and_the_largest():
    assert deviation([1.0, 2.2, 0.9], [1.0, 2.0, 1.0]) == pytest.approx(0.1)


def test_endurance_counts_steps_and_evaluations(monkeypatch):
    monkeypatch.setattr(SmoothTraining, "training_windows", 30)
    wanted = Endurance(**SMALL, layers=1, device="cpu", evaluate_every=5, windows=4)
    before = endurance.time.time()
    reports = list(endure(asdict(wanted), started=before - 100))
    assert [report["steps_done"] for report in reports] == [1, 2, 3, 4, 6, 7, 8, 9, 10, 12]
    assert [report["evaluations"] for report in reports] == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]
    last = reports[-1]
    assert 100 < last["first_step_seconds"] < last["wall_seconds"]
    assert 0 < last["seconds_a_step"] < 1  # the time before the first step is not in it
    assert last["scores"]["rmse_m"] == pytest.approx(150 * last["scores"]["rmse"], rel=0.5)
    assert -1 < last["scores"]["acc"] < 1


def test_the_commands_write_records_and_print_tables(tmp_path, capsys):
    small = ["--models", "gla", "--flavour", "debug", "--steps", "3", "--batch", "1", "--frames", "2"]
    path = tmp_path / "losses.json"
    assert main(["benchmark", "losses", *small, "--device", "cpu", "--output", str(path)]) == 0
    (model,) = read_json(path)["models"]
    assert model["layers"] == 4
    assert [row.get("precision") for row in model["rows"]] == ["fp32", "bf16", None]
    assert "| GLA (debug) | eager | bf16 | closed |" in capsys.readouterr().out
    path = tmp_path / "endurance.json"
    more = ["--evaluate-every", "2", "--windows", "3", "--device", "cpu", "--output", str(path)]
    assert main(["benchmark", "endurance", *small, *more]) == 0
    (row,) = read_json(path)["rows"]
    assert (row["steps_done"], row["evaluations"], row["layers"]) == (3, 1, None)
    assert row["wall_seconds"] > row["first_step_seconds"] > 0
    assert "| GLA (debug) | 3 | 1 |" in capsys.readouterr().out


def test_a_training_that_is_stopped_has_a_row_that_says_so(tmp_path):
    wanted = Endurance(**SMALL, device="cpu")
    text = endurance.benchmark_endurance([wanted], tmp_path / "x.json", limit_seconds=0.2)
    assert text.splitlines()[-1].startswith("| GLA (debug) | cannot run: stopped after 0 s |")
    (row,) = read_json(tmp_path / "x.json")["rows"]
    assert row["cannot_run"] == "stopped after 0 s"
