# SPDX-License-Identifier: Apache-2.0
"""What stops a training between two steps, and what it leaves: a checkpoint, a status, perhaps a marker."""

import os
import signal
import time
from itertools import chain, repeat

import pytest
import torch

from isohypse.config.sections import Execution
from isohypse.errors import ConfigurationError, TrainingError
from isohypse.storage import read_json
from isohypse.training import checkpoint as checkpoint_module
from isohypse.training import trainer as trainer_module
from isohypse.training.interruption import CONTINUES, DEADLINES, OUT_OF_TIME, StopRequest, deadline
from isohypse.training.log import read_metrics

from .conftest import CPU, assert_equal_results

SELDOM = CPU.model_copy(update={"checkpoint_every": 100})


@pytest.fixture(params=CONTINUES)
def marker(request, tmp_path, monkeypatch):
    """The file that asks to be continued; no deadline is known unless a test sets one."""
    for name in DEADLINES:
        monkeypatch.delenv(name, raising=False)
    for name in CONTINUES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(request.param, str(tmp_path / "continue"))
    return tmp_path / "continue"


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (signal.SIGTERM, SystemExit),
        (signal.SIGUSR1, SystemExit),
        (signal.SIGINT, KeyboardInterrupt),
    ],
)
def test_signal_writes_a_checkpoint_and_leaves(folders, finished, marker, monkeypatch, number, error):
    run = folders()
    handler = signal.getsignal(number)
    with pytest.raises(error) as raised:
        run.train_until(6, number, monkeypatch, SELDOM)
    assert signal.getsignal(number) == handler
    if error is SystemExit:
        assert raised.value.code == 128 + number
    assert marker.exists() == (error is SystemExit)
    assert (run.work / "checkpoints" / "step-00000007").is_dir()
    run.train()
    assert_equal_results(run, finished)


@pytest.mark.parametrize("moment", ["between two steps", "while the next checkpoint waits for this one"])
def test_a_stop_waits_for_one_checkpoint_only(folders, finished, marker, monkeypatch, moment):
    """The bound of a stop is one write: the checkpoint of step 5 takes long, and is the last."""

    def save_slowly(*arguments) -> None:
        time.sleep(next(delays))
        if moment != "between two steps" and not written:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.2)
        written.append(arguments)
        original(*arguments)

    run, written, delays = folders(), [], chain([0.5], repeat(0.0))
    original = checkpoint_module.save_file
    monkeypatch.setattr(checkpoint_module, "save_file", save_slowly)
    with pytest.raises(SystemExit) as raised:
        run.train_until(5 if moment == "between two steps" else 99, signal.SIGTERM, monkeypatch)
    monkeypatch.setattr(checkpoint_module, "save_file", original)
    assert raised.value.code == 128 + signal.SIGTERM
    assert marker.exists()
    assert [path.name for path in (run.work / "checkpoints").iterdir()] == ["step-00000005"]
    run.train()
    assert_equal_results(run, finished)


def test_a_deadline_stops_in_time_and_asks_to_be_continued(folders, finished, marker, monkeypatch, capsys):
    run = folders()
    monkeypatch.setenv("SNAKEMAKE_PBS_DEADLINE", str(int(time.time()) + 100))
    with pytest.raises(SystemExit) as raised:
        run.train(execution=CPU.model_copy(update={"walltime_margin_seconds": 200}))
    assert raised.value.code == OUT_OF_TIME
    assert "stopped after step 1, the job's time is nearly over" in capsys.readouterr().err
    assert marker.exists()
    assert (run.work / "checkpoints" / "step-00000001").is_dir()
    run.train(execution=CPU.model_copy(update={"walltime_margin_seconds": 10}))
    assert_equal_results(run, finished)


def test_the_first_deadline_that_is_set_counts():
    assert deadline(10, {}) is None
    assert deadline(10, {"SLURM_JOB_END_TIME": "1000"}) == 990
    assert deadline(10, {"SLURM_JOB_END_TIME": "1000", "ISOHYPSE_DEADLINE": "500.5"}) == 490.5
    with pytest.raises(ConfigurationError, match=r"\$ISOHYPSE_DEADLINE is 'soon'"):
        deadline(10, {"ISOHYPSE_DEADLINE": "soon"})


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGUSR1])
def test_a_launcher_may_pass_a_signal_on_a_second_time(second):
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(second)
        assert stop.reason == signal.SIGTERM


def test_a_second_ctrl_c_acts_at_once(monkeypatch):
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)  # the same key, passed on by a launcher
        assert stop.reason == signal.SIGINT
        stop.noted -= 2
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def spoil(monkeypatch, *steps: int) -> None:
    """Let the normalised frames be NaN in these steps (from 0)."""
    original = trainer_module.Step.advance

    def advance(self, number: int) -> None:
        mean = self.batches.mean_m
        whole = mean.clone()
        if number in steps:
            mean.fill_(float("nan"))
        original(self, number)
        mean.copy_(whole)

    monkeypatch.setattr(trainer_module.Step, "advance", advance)


def test_loss_that_is_not_finite_is_named_and_publishes_nothing(folders, marker, monkeypatch):
    run = folders(evaluate_every=12)  # the checkpoint after step 10 must notice
    spoil(monkeypatch, 6)
    with pytest.raises(TrainingError, match="at step 7;"):
        run.train()
    assert not run.destination.exists()
    assert not marker.exists(), "the same would happen again"
    assert [path.name for path in (run.work / "checkpoints").iterdir()] == ["step-00000005"]


def test_the_best_checkpoint_is_named_when_a_training_diverges(folders, marker, monkeypatch):
    run = folders(evaluate_every=5)
    spoil(monkeypatch, 11)
    with pytest.raises(TrainingError, match=r"the best checkpoint is .*step-00000010"):
        run.train()


def test_skipped_steps_update_nothing_and_are_counted(folders, marker, monkeypatch):
    run, plain = folders("a", not_finite="skip"), folders("b", not_finite="skip")
    with monkeypatch.context() as patch:
        spoil(patch, 4, 10)
        run.train()
    plain.train()
    rows = read_metrics(run.destination / "metrics.csv")
    counts = {step: value for step, split, metric, value in rows if metric == "skipped_steps"}
    assert counts == {4: 0, 8: 1, 12: 1}
    assert read_json(run.destination / "run.json")["skipped_steps"] == 2
    assert read_json(plain.destination / "run.json")["skipped_steps"] == 0
    assert all(tensor.isfinite().all() for tensor in run.weights().values())
    assert not torch.equal(run.weights()["head.weight"], plain.weights()["head.weight"])


def test_nothing_but_skipped_steps_is_the_end(folders, marker, monkeypatch):
    run = folders(not_finite="skip")
    spoil(monkeypatch, 4, 5, 6, 7)
    with pytest.raises(TrainingError, match="at step 5;"):
        run.train()


def test_no_stop_is_asked_for_without_a_deadline():
    assert Execution().walltime_margin_seconds == 120
    assert StopRequest(None).reason == 0
    assert StopRequest(time.time() + 60).reason == 0
    assert StopRequest(time.time() - 1).reason == OUT_OF_TIME
