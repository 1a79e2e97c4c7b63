# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of a training: written whole or not at all, read back or passed over, never unpickled.

checkpoints/step-00000500/ holds model.safetensors (weights), optimizer.safetensors (moments, step counter,
recent losses) and state.json (step, identity of the training, seconds). The newest that can be read is used.
"""

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from isohypse.storage import atomic_path, read_json, write_json

MODEL, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"


@dataclass(frozen=True)
class Checkpoint:
    """What a training was after `step` steps. `identity` says which training it was."""

    step: int
    identity: str
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    clock: dict[str, float]


class Checkpoints:
    """The checkpoints in `folder`, of which the last `keep` are kept."""

    def __init__(self, folder: Path, keep: int):
        self.folder, self.keep = folder, keep

    def save(self, checkpoint: Checkpoint) -> None:
        with atomic_path(self.folder / f"step-{checkpoint.step:08d}") as path:
            path.mkdir()
            save_file(_contiguous(checkpoint.model), path / MODEL)
            save_file(_contiguous(checkpoint.optimizer), path / OPTIMIZER)
            state = {"step": checkpoint.step, "identity": checkpoint.identity, "clock": checkpoint.clock}
            write_json(path / STATE, state)
        for old in self._found()[: -self.keep]:
            shutil.rmtree(old)

    def newest(self) -> Checkpoint | None:
        """The newest one that can be read. A broken one is told of, removed, and the one before is used."""
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
    )


def _contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
