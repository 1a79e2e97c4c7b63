# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of a training: written whole or not at all, read back or passed over, never unpickled.

checkpoints/step-00000500/ holds model.safetensors (weights), optimizer.safetensors (moments, step counter,
recent losses) and state.json (step, identity of the training, seconds, validation loss). The newest that can
be read is used.

The training goes on while a thread writes: `save` only copies the tensors to host memory. At most one
checkpoint is being written; the next `save`, `check` or `wait` tells of a failure.
"""

import math
import shutil
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from isohypse.errors import StorageError, TrainingError
from isohypse.storage import atomic_path, read_json, write_json

MODEL, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"


@dataclass(frozen=True)
class Checkpoint:
    """What a training was after `step` steps. `identity` says which training it was.

    validation_loss: at this step; None if it was not measured here.
    """

    step: int
    identity: str
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    clock: dict[str, float]
    validation_loss: float | None = None


class Checkpoints:
    """The checkpoints in `folder`: the last `keep` and the one with the least validation loss are kept.

    The best outlives the last ones for the day when a training diverges: it is there, and told of, then.
    """

    def __init__(self, folder: Path, keep: int):
        self.folder, self.keep = folder, keep
        self.writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self.writing: Future[float] | None = None
        self.host: dict[str, Tensor] = {}  # pinned memory for tensors that come from a GPU
        self.losses: dict[str, float] = {}
        self.written = -math.inf

    def save(self, checkpoint: Checkpoint, final: bool = False) -> None:
        """Copy `checkpoint` and start to write it, once the one before is written.

        final: its tensors do not change any more, so that those on the host need no copy.

        Raises TrainingError if the one before could not be written.
        """
        self.wait()
        model = self._snapshot("model", checkpoint.model, final)
        optimizer = self._snapshot("optimizer", checkpoint.optimizer, final)
        copied = torch.cuda.Event() if self.host else None
        if copied is not None:
            copied.record()
        self.writing = self.writer.submit(partial(self._write, checkpoint, model, optimizer, copied))

    def check(self) -> None:
        """Raises TrainingError if a checkpoint could not be written; does not wait."""
        if self.writing is not None and self.writing.done():
            self.wait()

    def wait(self) -> float:
        """Until nothing is being written. Returns when the last one was, as time.monotonic() has it.

        -inf: none yet. Raises TrainingError if it could not be written.
        """
        writing, self.writing = self.writing, None
        if writing is None:
            return self.written
        try:
            self.written = writing.result()
        except (OSError, SafetensorError, StorageError) as error:
            reason = "no room on this disk" if isinstance(error, StorageError) else error
            raise TrainingError(
                f"{self.folder}: a checkpoint could not be written ({reason}); the earlier ones are intact: "
                "make room and start again"
            ) from None
        return self.written

    def close(self) -> None:
        """Let what is being written be finished; its failure is not told any more."""
        self.writer.shutdown(wait=True)

    def newest(self) -> Checkpoint | None:
        """The newest one that can be read. A broken one is told of, removed, and the one before is used."""
        for leftover in self.folder.glob(".*"):  # of a process that was killed while it wrote
            shutil.rmtree(leftover, ignore_errors=True)
        for path in reversed(self._found()):
            try:
                return _read(path)
            except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
                print(
                    f"isohypse: checkpoint {path} cannot be read ({error}); using the one before",
                    file=sys.stderr,
                )
                shutil.rmtree(path)
        return None

    def read(self, step: int) -> Checkpoint:
        """The one after `step` steps, which another process has found to be readable."""
        return _read(self.folder / f"step-{step:08d}")

    def best(self) -> Path | None:
        """The one with the least validation loss, if there is one that has any."""
        losses = {path: self._loss(path) for path in self._found()}
        best = min(losses, key=losses.__getitem__, default=None)
        return best if best is not None and losses[best] < float("inf") else None

    def _snapshot(self, part: str, tensors: dict[str, Tensor], final: bool) -> dict[str, Tensor]:
        return {name: self._copy(f"{part}.{name}", value.detach(), final) for name, value in tensors.items()}

    def _copy(self, key: str, tensor: Tensor, final: bool) -> Tensor:
        if not tensor.is_cuda:
            return tensor.contiguous() if final else tensor.clone(memory_format=torch.contiguous_format)
        if key not in self.host:
            self.host[key] = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        return self.host[key].copy_(tensor, non_blocking=True)

    def _write(
        self,
        checkpoint: Checkpoint,
        model: dict[str, Tensor],
        optimizer: dict[str, Tensor],
        copied: torch.cuda.Event | None,
    ) -> float:
        if copied is not None:
            copied.synchronize()
        with atomic_path(self.folder / f"step-{checkpoint.step:08d}") as path:
            path.mkdir()
            save_file(model, path / MODEL)
            save_file(optimizer, path / OPTIMIZER)
            names = ("step", "identity", "clock", "validation_loss")
            write_json(path / STATE, {name: getattr(checkpoint, name) for name in names})
        kept = {*self._found()[-self.keep :], self.best()}
        for old in set(self._found()) - kept:
            shutil.rmtree(old)
        return time.monotonic()

    def _loss(self, path: Path) -> float:
        """Validation loss of a checkpoint; infinite if it has none or cannot be read."""
        if path.name not in self.losses:
            try:
                loss = read_json(path / STATE)["validation_loss"]
            except (OSError, ValueError, KeyError, TypeError):
                loss = None
            self.losses[path.name] = float("inf") if loss is None else loss
        return self.losses[path.name]

    def _found(self) -> list[Path]:
        return sorted(self.folder.glob("step-*"))


def _read(path: Path) -> Checkpoint:
    state: dict[str, Any] = read_json(path / STATE)
    return Checkpoint(
        step=int(state["step"]),
        identity=state["identity"],
        model=load_file(path / MODEL),
        optimizer=load_file(path / OPTIMIZER),
        clock=state["clock"],
        validation_loss=state["validation_loss"],
    )
