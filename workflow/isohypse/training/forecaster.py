# SPDX-License-Identifier: Apache-2.0
"""A trained run as a Forecaster: metres in, metres out.

Files in: the run's folder (run.json, weights.safetensors) and the statistics that it was trained with.
Forecasts are made in fp32 on every device: a bf16 output would round heights to metres.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from isohypse.data.statistics import Statistics
from isohypse.errors import TrainingError
from isohypse.models.network import Network
from isohypse.models.registry import build
from isohypse.storage import read_json
from isohypse.training.frames import Normalisation
from isohypse.training.hardware import choose_device

BATCH = 64  # windows in one forward pass
RECORD = "run.json"
"""What every finished training has."""


class NetworkForecaster:
    """Satisfies `isohypse.forecasting.Forecaster`. `name` is e.g. `kda-small/seed0`, `label` e.g. `KDA`."""

    def __init__(self, name: str, label: str, network: Network, normalisation: Normalisation):
        self.name, self.label = name, label
        self.network, self.normalisation = network.eval(), normalisation
        self.t_in, self.t_out = network.t_in, network.t_out
        self.device = next(network.parameters()).device

    @torch.inference_mode()
    def forecast(self, frames: np.ndarray, init_time: np.ndarray) -> np.ndarray:
        """float32 metres [sample, t_in, level, latitude, longitude] -> [sample, t_out, ...] of any time."""
        forecast = np.empty((len(frames), self.t_out, *frames.shape[2:]), np.float32)
        for first in range(0, len(frames), BATCH):
            part = slice(first, first + BATCH)
            inputs = torch.from_numpy(self.normalisation.normalise(frames[part])).to(self.device)
            forecast[part] = self.normalisation.restore(self.network(inputs).cpu().numpy())
        return forecast


def load_forecaster(
    run_folder: Path, statistics: Path, device: str = "cpu", threads: int | None = None
) -> NetworkForecaster:
    """Rebuild the network of a finished run on `device` (auto, cpu or cuda); None leaves torch's threads.

    Raises TrainingError if the folder is not one, DataError if the statistics are of other levels,
    UnavailableError for a GPU that is not there.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    record, network = load_run(run_folder)
    levels_hpa = sorted(record["task"]["levels_hpa"], reverse=True)
    normalisation = Normalisation(Statistics.read(statistics), levels_hpa)
    name = f"{record['model']}-{record['flavour']}/seed{record['seed']}"
    return NetworkForecaster(name, record["label"], network.to(choose_device(device)), normalisation)


def load_run(run_folder: Path) -> tuple[dict[str, Any], Network]:
    """run.json of a finished run, and its network on the CPU. Raises TrainingError if it is not one."""
    run_folder = Path(run_folder)
    if not (run_folder / RECORD).is_file():
        raise TrainingError(_no_run(run_folder))
    try:
        record = read_json(run_folder / RECORD)
        network = _rebuild(record)
        network.load_state_dict(load_file(run_folder / "weights.safetensors"))
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise TrainingError(f"{run_folder} is not a finished training ({reason}); train it again") from None
    return record, network


def _no_run(folder: Path) -> str:
    beneath = sorted(str(path.parent.relative_to(folder)) for path in folder.glob(f"*/{RECORD}"))
    there = f"; in it are {', '.join(beneath)}" if beneath else ""
    what = f"a folder with {RECORD}, e.g. .../kda-small/seed0"
    return f"{folder} is not a finished training, which is {what}{there}"


def _rebuild(record: dict[str, Any]) -> Network:
    """The network of run.json, with the kernel that suits this machine: that of its training may not."""
    task, grid = record["task"], record["grid"]
    return build(
        record["model"],
        record["flavour"],
        t_in=task["t_in"],
        t_out=task["t_out"],
        levels=len(task["levels_hpa"]),
        latitude=len(grid["latitude"]),
        longitude=len(grid["longitude"]),
    )
