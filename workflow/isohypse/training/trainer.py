# SPDX-License-Identifier: Apache-2.0
"""The training loop: one run from its settings to its published folder.

Files in: Zarr stores, statistics.json, and checkpoints under `work` if an earlier attempt left some. Files
out, in `destination`: weights.safetensors, metrics.csv, run.json, tensorboard/; all at once, after the last
step.

A training that was killed goes on to the same numbers: batches follow from (seed, step), everything else is
in the checkpoint.
"""

import hashlib
import math
import shutil
import statistics as stats
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from isohypse.config.sections import Execution
from isohypse.config.settings import TrainSettings
from isohypse.data.windows import training_range
from isohypse.errors import TrainingError
from isohypse.models.catalogue import label_of
from isohypse.progress import Progress
from isohypse.provenance import provenance
from isohypse.storage import atomic_path, write_json
from isohypse.training.assembly import (
    build_batches,
    build_network,
    build_validation,
    task_windows,
)
from isohypse.training.checkpoint import Checkpoint, Checkpoints
from isohypse.training.clock import Clock
from isohypse.training.frames import Frames, open_frames
from isohypse.training.hardware import PeakMemory, choose_device, choose_precision, device_name
from isohypse.training.interruption import StopRequest
from isohypse.training.lock import exclusive
from isohypse.training.log import MetricsLog, read_metrics
from isohypse.training.optimizer import optimizer_tensors, restore_optimizer
from isohypse.training.step import Step, build_step


def train(
    settings: TrainSettings,
    stores: Sequence[Path],
    statistics: Path,
    destination: Path,
    work: Path,
    execution: Execution,
    threads: int,
) -> None:
    """Train one run on `stores` and publish it in `destination`; `work` keeps what survives a kill.

    Raises UnavailableError for a device, precision or kernel that is not there, DataError for data that do
    not suit the run, TrainingError when the loss is no longer finite, KeyboardInterrupt or SystemExit after
    a signal.
    """
    torch.set_num_threads(threads)
    frames = open_frames(stores, settings.run.task.levels_hpa, statistics)
    with exclusive(Path(work)):
        trainer = Trainer(settings, frames, Path(work), execution)
        try:
            trainer.resume()
            trainer.fit()
            trainer.publish(Path(destination))
        finally:
            trainer.close()
        shutil.rmtree(work)


class Trainer:
    """Everything of one training. `done` counts the steps that it has behind it."""

    def __init__(self, settings: TrainSettings, frames: Frames, work: Path, execution: Execution):
        self.settings, self.frames, self.work, self.execution = settings, frames, work, execution
        self.run, self.training = settings.run, settings.training
        self.device = choose_device(execution.device)
        self.precision = choose_precision(self.training.precision, self.device)
        self.memory = PeakMemory(self.device)
        windows = task_windows(self.run.task, settings.split, frames)
        known = training_range(frames.time, settings.split)
        self.mean_frame = frames.mean(known.start, known.stop)
        self.network = build_network(settings, frames, self.mean_frame).to(self.device)
        self.kernels = self.network.kernel_names(batch=self.training.batch_size)
        self.batches = build_batches(
            windows["train"], frames, self.training.batch_size, self.run.seed, self.device
        )
        self.validation = build_validation(
            windows["validation"], frames, settings, self.mean_frame, self.device
        )
        self.step: Step = build_step(
            self.network,
            self.training,
            self.batches,
            self.device,
            self.precision,
            history=self.training.evaluate_every,
            kernels=self.kernels,
            mode=execution.step,
        )
        self.checkpoints = Checkpoints(work / "checkpoints", execution.keep_checkpoints)
        self.done, self.clock, self.log = 0, Clock(), None

    @property
    def identity(self) -> str:
        """Digest of all that the numbers follow from: settings, data, shapes of the weights."""
        normalisation = self.frames.normalisation
        data = [self.frames.digest, normalisation.mean_m.tolist(), normalisation.std_m.tolist()]
        shapes = [(name, tuple(p.shape)) for name, p in self.network.named_parameters()]
        return hashlib.sha256(repr((self.settings.to_json(), data, shapes)).encode()).hexdigest()

    def resume(self) -> None:
        """Go on from the newest checkpoint of this training; leftovers of another one are removed."""
        found = self.checkpoints.newest()
        if found is not None and found.identity != self.identity:
            print(f"isohypse: {self.run}: settings or data have changed, starting anew", file=sys.stderr)
            found = None
        if found is None:
            shutil.rmtree(self.work, ignore_errors=True)
        else:
            self.network.load_state_dict(found.model)
            restore_optimizer(self.network, self.step.optimizer, found.optimizer)
            self.step.restore(found.optimizer)
            self.done, self.clock = found.step, Clock(**found.clock)
            print(f"isohypse: {self.run}: going on after step {self.done}", file=sys.stderr)
        self.log = MetricsLog(self.work, self.done, self.execution.tensorboard)

    def fit(self) -> None:
        """Take the steps that are left."""
        steps, training = self.training.steps, self.training
        with StopRequest() as stop, Progress(steps, str(self.run), "step", initial=self.done) as progress:
            self.clock.start()
            while self.done < steps:
                self.step.advance(self.done)
                self.done += 1
                progress.advance()
                last = self.done == steps
                if self.done % training.evaluate_every == 0 or last:
                    self._evaluate(progress)
                if (self.done % self.execution.checkpoint_every == 0 or stop.requested) and not last:
                    self._save()
                if stop.requested and not last:
                    stop.leave()
            self.clock.stop()

    def _evaluate(self, progress: Progress) -> None:
        """Log the steps since the last evaluation and score the validation windows."""
        recent = self._checked_recent()
        self.clock.stop()
        trained = len(recent) * self.training.batch_size * self.run.task.t_in
        rate = trained / self.clock.lap()
        loss, grad_norm = recent.double().mean(dim=0).tolist()
        learning_rate = self.step.rate.item()
        metrics = {"loss": loss, "rmse": math.sqrt(loss), "learning_rate": learning_rate}
        metrics |= {"grad_norm": grad_norm, "frames_per_second": rate}
        self.log.write(self.done, "train", metrics)
        self.network.eval()
        scores = self.validation.measure(self.network, self.precision, self.training.batch_size)
        self.network.train()
        self.log.write(self.done, "validation", scores)
        notes = {"loss": f"{loss:.4f}", "validation": f"{scores['rmse_m']:.1f} m", "frames/s": f"{rate:.0f}"}
        progress.advance(0, **notes)
        self.clock.start()

    def _checked_recent(self) -> torch.Tensor:
        """[steps since the last evaluation, (loss, gradient norm)]. Raises TrainingError if not finite."""
        count = (self.done - 1) % self.training.evaluate_every + 1
        recent = self.step.recent(count, self.done)
        wrong = (~recent.isfinite().all(dim=1)).nonzero()
        if len(wrong):
            step = self.done - count + 1 + int(wrong[0])
            raise TrainingError(
                f"{self.run}: loss or gradient is not finite at step {step}; lower training.learning_rate, "
                "lengthen training.warmup_steps or use precision fp32"
            )
        return recent

    def _save(self) -> None:
        self._checked_recent()  # a checkpoint of a broken state would be resumed for ever
        self.clock.stop()
        moments = optimizer_tensors(self.network, self.step.optimizer)
        self.checkpoints.save(
            Checkpoint(
                step=self.done,
                identity=self.identity,
                model=self.network.state_dict(),
                optimizer=moments | self.step.tensors(),
                clock=self.clock.state(),
            )
        )
        self.clock.start()

    def publish(self, destination: Path) -> None:
        """Write the finished run."""
        record = self.record()
        self.log.close()
        with atomic_path(destination) as folder:
            folder.mkdir()
            weights = {name: tensor.contiguous() for name, tensor in self.network.state_dict().items()}
            save_file(weights, folder / "weights.safetensors")
            shutil.copyfile(self.log.path, folder / "metrics.csv")
            if (self.work / "tensorboard").exists():
                shutil.copytree(self.work / "tensorboard", folder / "tensorboard")
            write_json(folder / "run.json", record)

    def record(self) -> dict[str, Any]:
        """run.json: what was trained, on what, how fast. Rates are medians over the logged intervals."""
        task = self.run.task
        rates = [value for *_, metric, value in read_metrics(self.log.path) if metric == "frames_per_second"]
        frames_per_second = stats.median(rates)
        name = device_name(self.device)
        return {
            "run": str(self.run),
            "model": self.run.model,
            "flavour": self.run.flavour,
            "label": label_of(self.run.model),
            "seed": self.run.seed,
            "data_sha256": self.frames.digest,
            "task": task.model_dump(mode="json"),
            "grid": {"latitude": self.frames.latitude.tolist(), "longitude": self.frames.longitude.tolist()},
            "parameters": sum(parameter.numel() for parameter in self.network.parameters()),
            "kernels": self.kernels,
            "precision": self.precision,
            "device": name,
            "threads": torch.get_num_threads(),
            "steps": self.done,
            "seconds": self.clock.seconds,
            "steps_per_second": frames_per_second / (self.training.batch_size * task.t_in),
            "frames_per_second": frames_per_second,
            "peak_memory_bytes": self.memory.read(),
            "settings": self.settings.model_dump(mode="json"),
            "provenance": provenance(self.settings.digest, name, self.kernels),
        }

    def close(self) -> None:
        self.batches.close()
        if self.log is not None:
            self.log.close()
