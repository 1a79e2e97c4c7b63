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
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
from safetensors.torch import save_file

from isohypse.config.sections import Execution
from isohypse.config.settings import TrainSettings
from isohypse.data.windows import training_range
from isohypse.errors import TrainingError
from isohypse.progress import Progress
from isohypse.storage import atomic_path, write_json
from isohypse.training.assembly import build_batches, build_network, build_validation, task_windows
from isohypse.training.checkpoint import Checkpoint, Checkpoints
from isohypse.training.clock import Clock
from isohypse.training.frames import Frames, open_frames
from isohypse.training.hardware import PeakMemory, choose_device, choose_precision
from isohypse.training.interruption import StopRequest, ask_to_continue, deadline, in_words, leave
from isohypse.training.lock import exclusive
from isohypse.training.log import MetricsLog
from isohypse.training.parallel import share, share_of
from isohypse.training.ranks import Ranks, joined, ranks_of
from isohypse.training.record import record_of
from isohypse.training.state import restore, whole_moments, whole_weights
from isohypse.training.step import Step, build_step


def train(
    settings: TrainSettings,
    stores: Sequence[Path],
    statistics: Path,
    destination: Path,
    work: Path,
    execution: Execution,
    threads: int,
    initial_weights: Path | None = None,
) -> None:
    """Train one run on `stores` and publish it in `destination`; `work` keeps what survives a kill.

    initial_weights: the file that the settings know by its digest; None if they know none.

    Raises UnavailableError for a device, precision or kernel that is not there, DataError for data that do
    not suit the run, TrainingError when the loss is no longer finite, KeyboardInterrupt or SystemExit after
    a signal.
    """
    torch.set_num_threads(threads)
    frames = open_frames(stores, settings.run.task.levels_hpa, statistics)
    device = choose_device(execution.device)
    with joined(ranks_of(), device.type) as ranks, exclusive(Path(work)) if ranks.main else nullcontext():
        trainer = Trainer(settings, frames, Path(work), execution, ranks, initial_weights)
        try:
            trainer.resume()
            trainer.fit()
            trainer.publish(Path(destination))
        finally:
            trainer.close()
        if ranks.main:
            shutil.rmtree(work)


class Trainer:
    """Everything of one training, in one of its processes. `done` counts the steps that it has behind it."""

    def __init__(
        self,
        settings: TrainSettings,
        frames: Frames,
        work: Path,
        execution: Execution,
        ranks: Ranks | None = None,
        initial_weights: Path | None = None,
    ):
        self.settings, self.frames, self.work, self.execution = settings, frames, work, execution
        self.ranks = ranks or Ranks()
        self.run, self.training = settings.run, settings.training
        self.device = choose_device(execution.device)
        self.precision = choose_precision(self.training.precision, self.device)
        self.memory = PeakMemory(self.device)
        windows = task_windows(self.run.task, settings.split, frames)
        known = training_range(frames.time, settings.split)
        self.mean_frame = frames.mean(known.start, known.stop)
        network = build_network(settings, frames, self.mean_frame, initial_weights)
        self.network = network.to(self.device)
        self.parameters = sum(parameter.numel() for parameter in self.network.parameters())
        self.identity = self._identity()
        batch_size, seed = self.training.batch_size, self.run.seed
        part = share_of(batch_size, execution, self.ranks)
        kernels = self.network.kernel_names(batch=execution.micro_batch or part.stop - part.start)
        self.parallel = share(self.network, execution, self.ranks, self.precision)
        self.batches = build_batches(
            windows["train"], frames, self.training, seed, self.device, self.precision, part
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
            kernels=kernels,
            mode=execution.step,
            parallel=self.parallel,
            micro_batch=execution.micro_batch,
            recompute=execution.activation_checkpointing,
        )
        self.checkpoints = Checkpoints(work / "checkpoints", execution.keep_checkpoints)
        self.done, self.clock, self.log = 0, Clock(), None
        self.evaluated: tuple[int, float | None] = (0, None)  # step and validation loss

    def _identity(self) -> str:
        """Digest of all that the numbers follow from: settings, data, shapes of the weights."""
        normalisation = self.frames.normalisation
        data = [self.frames.digest, normalisation.mean_m.tolist(), normalisation.std_m.tolist()]
        shapes = [(name, tuple(p.shape)) for name, p in self.network.named_parameters()]
        return hashlib.sha256(repr((self.settings.to_json(), data, shapes)).encode()).hexdigest()

    def resume(self) -> None:
        """Go on from the newest checkpoint of this training; leftovers of another one are removed."""
        found = self._found() if self.ranks.main else None
        step = self.ranks.greatest(found.step if found else -1)
        if step >= 0:
            found = found or self.checkpoints.read(step)
            restore(found, self.parallel, self.step)
            self.done, self.clock = found.step, Clock(**found.clock)
        if self.ranks.main:
            self.log = MetricsLog(self.work, self.done, self.execution.tensorboard)

    def _found(self) -> Checkpoint | None:
        found = self.checkpoints.newest()
        if found is not None and found.identity != self.identity:
            print(f"isohypse: {self.run}: settings or data have changed, starting anew", file=sys.stderr)
            found = None
        if found is None:
            shutil.rmtree(self.work, ignore_errors=True)
        else:
            print(f"isohypse: {self.run}: going on after step {found.step}", file=sys.stderr)
        return found

    def fit(self) -> None:
        """Take the steps that are left."""
        steps, every = self.training.steps, self.execution.checkpoint_every
        end = deadline(self.execution.walltime_margin_seconds)
        with StopRequest(end) as stop, self._progress() as progress:
            self.clock.start()
            while self.done < steps:
                self.step.advance(self.done)
                self.done += 1
                progress.advance()
                last = self.done == steps
                reason = self.ranks.greatest(0 if last else stop.reason)
                if self.done % self.training.evaluate_every == 0 or last:
                    self._evaluate(progress)
                if reason:
                    self._leave(reason, stop)
                if self.done % every == 0 and not last:
                    self._save(stop)
            self.clock.stop()

    def _leave(self, reason: int, stop: StopRequest) -> None:
        """Stop before the end; the same command goes on from the newest checkpoint.

        One that was being written when the stop was asked for will do: there may be no time for another.
        """
        written = self.checkpoints.wait()
        if not self.ranks.greatest(written >= stop.asked):
            self._save()
            self.checkpoints.wait()
        if self.ranks.main:
            words = f"stopped after step {self.done}, {in_words(reason)}"
            print(f"isohypse: {self.run}: {words}", file=sys.stderr)
            ask_to_continue(reason)
        self.ranks.greatest(0)  # a launcher ends all processes when the first one leaves
        leave(reason)

    def _progress(self) -> Progress:
        silent = not self.ranks.main
        return Progress(self.training.steps, str(self.run), "step", initial=self.done, silent=silent)

    def _evaluate(self, progress: Progress) -> None:
        """Log the steps since the last evaluation and score the validation windows."""
        recent = self._checked_recent()
        self.checkpoints.check()
        self.clock.stop()
        if self.ranks.main or self.parallel.divided:
            self._score(recent, progress)
        self.clock.start()

    def _score(self, recent: torch.Tensor, progress: Progress) -> None:
        rate = self.logged_steps * self.training.batch_size * self.run.task.t_in / self.clock.lap()
        loss, grad_norm = recent.double().mean(dim=0).tolist()
        learning_rate = self.step.rate.item()
        metrics = {"loss": loss, "rmse": math.sqrt(loss), "learning_rate": learning_rate}
        metrics |= {"grad_norm": grad_norm, "frames_per_second": rate}
        if self.training.not_finite == "skip":
            metrics["skipped_steps"] = self.logged_steps - len(recent)
        scores = self.validation.measure(self.step.forecast, self.training.batch_size)
        self.evaluated = (self.done, scores["loss"])
        if self.log is not None:
            self.log.write(self.done, "train", metrics)
            self.log.write(self.done, "validation", scores)
        notes = {"loss": f"{loss:.4f}", "validation": f"{scores['rmse_m']:.1f} m", "frames/s": f"{rate:.0f}"}
        progress.advance(0, **notes)

    @property
    def logged_steps(self) -> int:
        """Steps that the next row of the log is about."""
        return (self.done - 1) % self.training.evaluate_every + 1

    def _checked_recent(self) -> torch.Tensor:
        """[steps since the last evaluation, (loss, gradient norm)], those that were finite.

        Raises TrainingError if one was not and the policy is to stop, or if none was.
        """
        recent = self.step.recent(self.logged_steps, self.done)
        finite = recent.isfinite().all(dim=1)
        if finite.all() or (self.training.not_finite == "skip" and finite.any()):
            return recent[finite]
        self.checkpoints.wait()
        step = self.done - len(recent) + 1 + int(finite.logical_not().nonzero()[0])
        best = self.checkpoints.best()
        raise TrainingError(
            f"{self.run}: loss or gradient is not finite at step {step}; lower training.learning_rate, "
            "lengthen training.warmup_steps or use precision fp32"
            + (f"; the best checkpoint is {best}" if best else "")
        )

    def _save(self, stop: StopRequest | None = None) -> None:
        """Write a checkpoint. stop: what may be asked for meanwhile, if the training goes on; None if not."""
        if self.training.not_finite == "stop":
            self._checked_recent()  # a checkpoint of a broken state would be resumed for ever
        self.clock.stop()
        step, loss = self.evaluated
        weights, moments = whole_weights(self.parallel), whole_moments(self.parallel, self.step)
        if self.ranks.main:
            self.checkpoints.wait()
        if self.ranks.main and not (stop and stop.reason):  # a stop has its own, if the one before won't do
            checkpoint = Checkpoint(
                step=self.done,
                identity=self.identity,
                model=weights,
                optimizer=moments | self.step.tensors(),
                clock=self.clock.state(),
                validation_loss=loss if step == self.done else None,
            )
            self.checkpoints.save(checkpoint, final=stop is None)
        self.clock.start()

    def publish(self, destination: Path) -> None:
        """Write the finished run."""
        weights = whole_weights(self.parallel)
        if not self.ranks.main:
            return
        self.checkpoints.wait()
        record = record_of(self)
        self.log.close()
        with atomic_path(destination) as folder:
            folder.mkdir()
            weights = {name: tensor.contiguous() for name, tensor in weights.items()}
            save_file(weights, folder / "weights.safetensors")
            shutil.copyfile(self.log.path, folder / "metrics.csv")
            if (self.work / "tensorboard").exists():
                shutil.copytree(self.work / "tensorboard", folder / "tensorboard")
            write_json(folder / "run.json", record)

    def close(self) -> None:
        self.step.close()
        self.batches.close()
        self.checkpoints.close()
        if self.log is not None:
            self.log.close()
