# SPDX-License-Identifier: Apache-2.0
"""Whole trainings on a tiny archive: what is published, what resumes, what stops them."""

import numpy as np
import pytest
import torch

from isohypse.errors import TrainingError, UnavailableError
from isohypse.storage import read_json
from isohypse.training import trainer as trainer_module
from isohypse.training.forecaster import load_forecaster
from isohypse.training.frames import open_frames
from isohypse.training.log import read_metrics
from isohypse.training.trainer import Trainer

from .conftest import CPU, TIMED, Kill, assert_equal_results


def test_publishes_weights_metrics_and_record(finished):
    names = {path.name for path in finished.destination.iterdir()}
    assert names == {"weights.safetensors", "metrics.csv", "run.json"}
    assert not finished.work.exists()
    rows = read_metrics(finished.destination / "metrics.csv")
    assert {row[0] for row in rows} == {4, 8, 12}
    train_metrics = {"loss", "rmse", "learning_rate", "grad_norm", TIMED}
    assert {row[2] for row in rows if row[1] == "train"} == train_metrics
    assert {row[2] for row in rows if row[1] == "validation"} == {"loss", "rmse", "rmse_m", "acc"}
    record = read_json(finished.destination / "run.json")
    assert record["run"] == "in4-out2/500hPa/standard/transformer-debug/seed3"
    assert record["parameters"] == sum(tensor.numel() for tensor in finished.weights().values())
    assert record["settings"]["training"]["steps"] == record["steps"] == 12
    assert record["provenance"]["settings_digest"] == finished.settings.digest
    assert record["frames_per_second"] > 0
    assert record["seconds"] > 0


def test_loss_falls(folders):
    run = folders(steps=60, evaluate_every=20)
    run.train()
    losses = [row[3] for row in run.rows() if row[1:3] == ("validation", "loss")]
    assert losses[-1] < 0.5 * losses[0]


def test_same_seed_same_result(folders, finished):
    again = folders()
    again.train()
    assert_equal_results(again, finished)


@pytest.mark.parametrize("step", [3, 5, 7, 10, 11])
def test_killed_and_resumed_equals_uninterrupted(folders, finished, monkeypatch, step):
    run = folders()
    with pytest.raises(Kill):
        run.train_until(step, Kill(), monkeypatch)
    assert not run.destination.exists()
    run.train()
    assert_equal_results(run, finished)


def test_broken_checkpoint_falls_back_to_the_one_before(folders, finished, monkeypatch, capsys):
    run = folders()
    with pytest.raises(Kill):
        run.train_until(11, Kill(), monkeypatch)
    (run.work / "checkpoints" / "step-00000010" / "model.safetensors").write_bytes(b"")
    run.train()
    assert "going on after step 5" in capsys.readouterr().err
    assert_equal_results(run, finished)


def test_other_settings_start_anew(folders, finished, monkeypatch, capsys):
    run = folders(learning_rate=1e-2)
    with pytest.raises(Kill):
        run.train_until(7, Kill(), monkeypatch)
    run.train(finished.settings)
    assert "starting anew" in capsys.readouterr().err
    assert_equal_results(run, finished)


def test_tensorboard_moves_into_the_run(folders):
    run = folders(steps=4)
    run.train(execution=CPU.model_copy(update={"tensorboard": True}))
    assert list((run.destination / "tensorboard").iterdir())
    assert not run.work.exists()


def test_streamed_training_equals_resident(folders, finished, monkeypatch):
    monkeypatch.setattr("isohypse.training.batches.RESIDENT_FRACTION", 0.0)
    run = folders()
    run.train()
    assert_equal_results(run, finished)


def test_stretches_are_a_training_of_their_own_that_streams_and_resumes_to_the_same_bits(
    folders, finished, monkeypatch
):
    resident, streamed = folders("resident", stretch_windows=4), folders("streamed", stretch_windows=4)
    resident.train()
    assert resident.rows() != finished.rows()
    monkeypatch.setattr("isohypse.training.batches.RESIDENT_FRACTION", 0.0)
    with pytest.raises(Kill):
        streamed.train_until(7, Kill(), monkeypatch)
    streamed.train()
    assert_equal_results(streamed, resident)


def test_head_starts_at_the_mean_training_frame(study, tmp_path):
    settings = study.settings()
    frames = open_frames(study.stores, (500,), study.statistics(settings.run.task))
    made = Trainer(settings, frames, tmp_path, CPU)
    training = frames.read(slice(0, int(0.7 * frames.shape[0])))
    bias = made.network.head.bias.detach().numpy().reshape(2, *frames.shape[1:])
    np.testing.assert_allclose(bias[1], training.mean(axis=0), atol=1e-5)


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a GPU that must not be there")
def test_missing_gpu_is_refused(folders):
    with pytest.raises(UnavailableError, match="cuda"):
        folders().train(execution=CPU.model_copy(update={"device": "cuda"}))


def test_bf16_on_a_cpu_is_obeyed_when_asked_for(folders):
    run = folders(steps=4, precision="bf16")
    run.train()
    assert read_json(run.destination / "run.json")["precision"] == "bf16"


@pytest.mark.parametrize("levels_hpa", [(500,), (300, 500)])
def test_forecaster_gives_the_validation_scores_of_its_training(folders, study, levels_hpa):
    """Metres in, metres out: the error of the last evaluation comes back from the published weights."""
    run = folders(levels_hpa=levels_hpa, protocol="paper")
    run.train()
    statistics = study.statistics(run.settings.run.task)
    forecaster = load_forecaster(run.destination, statistics)
    frames = open_frames(study.stores, levels_hpa, statistics)
    windows = trainer_module.task_windows(run.settings.run.task, run.settings.split, frames)["validation"]
    heights = frames.heights.values
    inputs, truth = heights[windows.inputs(slice(10))], heights[windows.targets(slice(10))]
    forecast = forecaster.forecast(inputs, frames.time[windows.last_input[:10]])
    assert forecast.dtype == np.float32
    assert forecast.shape == truth.shape
    rmse_m = next(v for s, split, metric, v in reversed(run.rows()) if metric == "rmse_m")
    assert np.sqrt(((forecast - truth) ** 2).mean()) == pytest.approx(rmse_m, rel=1e-4)
    assert (forecaster.name, forecaster.label) == ("transformer-debug/seed3", "Transformer")
    assert (forecaster.t_in, forecaster.t_out) == (4, 2)


def test_forecaster_refuses_what_is_no_run(tmp_path, study):
    with pytest.raises(TrainingError, match="not a finished training"):
        load_forecaster(tmp_path, study.statistics(study.settings().run.task))
