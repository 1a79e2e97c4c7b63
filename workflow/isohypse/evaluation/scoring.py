# SPDX-License-Identifier: Apache-2.0
"""Score a forecaster: archive, climatology and a Forecaster in, a folder with scores.nc and examples.nc out.

scores.nc, float64 per forecast, so that every mean and interval can be had later without a new forecast:
`mse` (m2), `bias` (m) and `acc` by (definition, sample, lead_time in hours, level in hPa); `init_time` of
each sample. `metrics.py` says what the definitions are. ACC is NaN where a forecast is the climatology.

examples.nc, float32 metres: `forecast`, `truth` (case, example, lead_time, level, latitude, longitude) and
`last_input` of windows of the training range (case `train`) and of the scored ones (`evaluation`). They lie
in the middle of their range, or evenly spaced in it, since its first days belong to one season.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from isohypse.config.experiment import Task
from isohypse.config.settings import BaselineSettings, ModelSettings
from isohypse.data.windows import Windows
from isohypse.errors import DataError
from isohypse.evaluation import metrics
from isohypse.evaluation.baselines import fit_baseline
from isohypse.evaluation.cases import Cases, batches, open_cases, read_frames
from isohypse.forecasting import Forecaster, lead_time_hours, valid_times
from isohypse.progress import Progress
from isohypse.provenance import provenance
from isohypse.storage import atomic_path

Settings = BaselineSettings | ModelSettings
UNITS = {"mse": "m2", "bias": "m", "acc": "1"}
TIME_ENCODING = {"units": "hours since 1800-01-01", "calendar": "proleptic_gregorian", "dtype": "int64"}


@dataclass(frozen=True, eq=False)
class Forecast:
    """A batch of forecasts beside what happened, float32 metres. `inputs`: [sample, t_in, level, latitude,
    longitude]; the others: [sample, t_out, level, latitude, longitude]. init_time: datetime64[ns] [sample].
    """

    init_time: np.ndarray
    inputs: np.ndarray
    truth: np.ndarray
    forecast: np.ndarray


def score_baseline(
    settings: BaselineSettings, stores: Sequence[Path], climatology: Path, destination: Path
) -> None:
    """Fit the baseline on the training windows, score it, and write the folder `destination`."""
    cases = open_cases(settings.task, settings.split, settings.evaluation, stores, climatology)
    forecaster = fit_baseline(settings.baseline, cases, settings.task.protocol, settings.ridge_var)
    _write(forecaster, settings, cases, destination)


def score_to_files(
    forecaster: Forecaster, settings: Settings, stores: Sequence[Path], climatology: Path, destination: Path
) -> None:
    """Score `forecaster` on the windows of `settings`; write the folder `destination`, whole or not at all.

    Raises DataError if the forecaster is not one of this task, or forecasts something that is no height.
    """
    task = _task(settings)
    _write(
        forecaster,
        settings,
        open_cases(task, settings.split, settings.evaluation, stores, climatology),
        destination,
    )


def _write(forecaster: Forecaster, settings: Settings, cases: Cases, destination: Path) -> None:
    attributes = _attributes(forecaster, settings, cases)
    scores = score(forecaster, cases).assign_attrs(attributes)
    examples = forecast_examples(forecaster, cases, settings.evaluation.examples).assign_attrs(attributes)
    with atomic_path(destination) as folder:
        folder.mkdir()
        for name, dataset in (("scores.nc", scores), ("examples.nc", examples)):
            dataset.to_netcdf(folder / name, engine="netcdf4", encoding={"init_time": TIME_ENCODING})


def score(forecaster: Forecaster, cases: Cases) -> xr.Dataset:
    """The scores of every window of `cases.scored`, in batches, as in scores.nc."""
    parts = []
    with Progress(len(cases.scored), f"score {forecaster.name}", "forecasts") as progress:
        for batch in batches(cases.scored):
            parts.append(_score_batch(run_forecast(forecaster, cases, batch), cases))
            progress.advance(len(batch))
    dims = ("definition", "sample", "lead_time", "level")
    values = {name: np.concatenate([part[name] for part in parts], axis=1) for name in UNITS}
    coords = {
        "definition": [definition.name for definition in metrics.DEFINITIONS],
        "init_time": ("sample", cases.time[cases.scored.last_input]),
        **_lead_and_level(cases),
    }
    return xr.Dataset({name: (dims, values[name], {"units": UNITS[name]}) for name in UNITS}, coords)


def run_forecast(forecaster: Forecaster, cases: Cases, batch: Windows) -> Forecast:
    """Forecast the windows `batch`. Raises DataError for a wrong shape or a value that is not finite."""
    if (forecaster.t_in, forecaster.t_out) != (batch.t_in, batch.t_out):
        raise DataError(
            f"{forecaster.name}: forecasts {forecaster.t_out} frames from {forecaster.t_in}, but the task is "
            f"{batch.t_out} from {batch.t_in}"
        )
    frames = read_frames(cases.heights, np.concatenate([batch.inputs(), batch.targets()], axis=1))
    inputs, truth = frames[:, : batch.t_in], frames[:, batch.t_in :]
    init_time = cases.time[batch.last_input]
    forecast = forecaster.forecast(inputs, init_time)
    if forecast.shape != truth.shape:
        raise DataError(f"{forecaster.name}: forecast has shape {forecast.shape}, expected {truth.shape}")
    finite = np.isfinite(forecast).reshape(len(batch), -1).all(axis=1)
    if not finite.all():
        first = np.datetime64(init_time[~finite][0], "h")
        raise DataError(
            f"{forecaster.name}: {np.sum(~finite)} forecasts are not finite, the first of {first}"
        )
    return Forecast(init_time, inputs, truth, forecast)


def _score_batch(batch: Forecast, cases: Cases) -> dict[str, np.ndarray]:
    """Each metric of UNITS, float64 [definition, sample, lead_time, level]."""
    expected = {
        "paper": cases.evaluation_mean,
        "standard": cases.climatology.at(valid_times(batch.init_time, batch.truth.shape[1])),
    }
    found: dict[str, list[np.ndarray]] = {name: [] for name in UNITS}
    pair = (batch.forecast, batch.truth)
    for definition in metrics.DEFINITIONS:
        errors = definition.error_weights(cases.latitude)
        anomalies = definition.anomaly_weights(cases.latitude)
        found["mse"].append(metrics.mean_squared_error(*pair, errors))
        found["bias"].append(metrics.bias(*pair, errors))
        found["acc"].append(metrics.anomaly_correlation(*pair, expected[definition.name], anomalies))
    return {name: np.stack(values) for name, values in found.items()}


def forecast_examples(forecaster: Forecaster, cases: Cases, count: int) -> xr.Dataset:
    """`count` forecasts of training windows and of scored windows, as in examples.nc."""
    grid = ("level", "latitude", "longitude")
    shown = {
        "train": run_forecast(forecaster, cases, middle(cases.windows["train"], count)),
        "evaluation": run_forecast(forecaster, cases, middle(cases.scored, count)),
    }
    fields = {
        name: np.stack([getattr(case, name) for case in shown.values()]) for name in ("forecast", "truth")
    }
    last = np.stack([case.inputs[:, -1] for case in shown.values()])
    dims, units = ("case", "example", "lead_time", *grid), {"units": "m"}
    return xr.Dataset(
        {name: (dims, field.astype(np.float32), units) for name, field in fields.items()}
        | {"last_input": (("case", "example", *grid), last, units)},
        {
            "case": list(shown),
            "init_time": (("case", "example"), np.stack([case.init_time for case in shown.values()])),
            "latitude": cases.dataset["latitude"],
            "longitude": cases.dataset["longitude"],
            **_lead_and_level(cases),
        },
    )


def middle(windows: Windows, count: int) -> Windows:
    """The middle window, or `count` of them, each in the middle of its share of the range."""
    place = ((np.arange(count) + 0.5) * len(windows) / count).astype(np.int64)
    return Windows(windows.starts[place], windows.t_in, windows.t_out)


def _lead_and_level(cases: Cases) -> dict[str, object]:
    # Not `units: hours`: xarray would read the lead time back as a time difference in nanoseconds.
    lead = ("lead_time", lead_time_hours(cases.scored.t_out), {"long_name": "lead time in hours"})
    return {"lead_time": lead, "level": cases.dataset["level"]}


def _attributes(forecaster: Forecaster, settings: Settings, cases: Cases) -> dict[str, object]:
    task = _task(settings)
    record = provenance(settings.digest) | {"data_sha256": cases.dataset.attrs["data_sha256"]}
    run = {"kind": "baseline"}
    if isinstance(settings, ModelSettings):
        run = {"kind": "model", "seed": settings.run.seed}
    return {
        "method": forecaster.name,
        "label": forecaster.label,
        **run,
        "task": str(task),
        "protocol": task.protocol,
        "climatology": cases.climatology.label,
        "synthetic": int(cases.dataset.attrs["synthetic"]),
        "provenance": json.dumps(record, sort_keys=True),
    }


def _task(settings: Settings) -> Task:
    return settings.run.task if isinstance(settings, ModelSettings) else settings.task
