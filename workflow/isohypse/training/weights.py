# SPDX-License-Identifier: Apache-2.0
"""A finished run's backbone to a file of flash-linear-attention's names, and such a file into a run.

Files: a run's folder (run.json, weights.safetensors) and the safetensors of `models/exchange.py`. A run with
other weights is a folder too, which can be scored; it has no metrics.csv, since its weights have no history
here.
"""

from pathlib import Path

from safetensors.torch import save_file

from isohypse.errors import ConfigurationError, TrainingError
from isohypse.models.exchange import read_backbone, write_backbone
from isohypse.storage import atomic_path, sha256, write_json
from isohypse.training.forecaster import load_run


def export_run(run_folder: Path, destination: Path) -> None:
    """Write the run's backbone to `destination`, in place of a file that is there.

    Raises TrainingError if the folder is not a run, ConfigurationError if `destination` is not named as a
    safetensors file.
    """
    if Path(destination).suffix != ".safetensors":
        raise ConfigurationError(f"export: {destination} must be the name of a .safetensors file")
    record, network = load_run(run_folder)
    write_backbone(network.backbone, record["model"], record["flavour"], destination)


def import_run(source: Path, run_folder: Path, destination: Path) -> None:
    """Write to `destination` the run of `run_folder` with the backbone of `source`.

    Projection and head remain the run's. run.json stays that of the run but for `imported`, the name and
    digest of `source`. Raises TrainingError if the folder is not a run or `destination` exists, DataError as
    `read_backbone` does.
    """
    if Path(destination).exists():
        raise TrainingError(f"{destination} exists: import into a new folder")
    record, network = load_run(run_folder)
    read_backbone(network.backbone, record["model"], source)
    record["imported"] = {"file": Path(source).name, "sha256": sha256(source)}
    with atomic_path(destination) as folder:
        folder.mkdir()
        save_file(network.state_dict(), folder / "weights.safetensors")
        write_json(folder / "run.json", record)
