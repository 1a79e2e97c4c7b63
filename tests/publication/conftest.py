# SPDX-License-Identifier: Apache-2.0
"""Small tidy inputs, laid out in folders as the earlier stages do."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from isohypse.config.assessment import Publication
from isohypse.config.settings import FigureSettings, TableSettings

TASK = "in8-out4/500hPa/standard"
MODELS = ("transformer", "gla", "deltanet", "gated_deltanet", "mamba2", "kda")
LABELS = {
    "transformer": "Transformer",
    "gla": "GLA",
    "deltanet": "DeltaNet",
    "mamba2": "Mamba2",
    "kda": "KDA",
}
RMSE_M = {
    "persistence": (21.2, 38.0, 52.4, 63.0),
    "climatology": (92.6, 92.7, 92.6, 92.6),
    "damped_persistence": (20.8, 36.0, 48.9, 57.5),
    "ridge_var": (10.5, 14.7, 20.6, 27.0),
    "transformer": (29.0, 30.2, 33.0, 36.8),
    "gla": (29.7, 31.2, 34.3, 38.1),
    "deltanet": (28.9, 29.7, 32.0, 35.5),
    "gated_deltanet": (28.9, 29.7, 32.1, 35.6),
    "mamba2": (28.8, 29.2, 31.4, 34.7),
    "kda": (28.6, 29.0, 31.2, 34.6),
}
"""Area-weighted, by lead 6, 12, 18, 24 h: a small study on the embedded model."""


def _label(**changes) -> dict:
    return {
        "version": 1, "study": "demo", "synthetic": True, "source": "quasigeostrophic", "years": (2001, 2010),
    } | changes  # fmt: skip


@pytest.fixture
def figure_settings():
    def make(publication: dict | None = None, **changes) -> FigureSettings:
        return FigureSettings(publication=Publication(**(publication or {})), **_label(**changes))

    return make


@pytest.fixture
def table_settings():
    return lambda **changes: TableSettings(**_label(**{"confidence": 0.95} | changes))


@pytest.fixture
def paper_data() -> dict:
    """What makes a study's data the paper's."""
    return {"study": "paper", "synthetic": False, "source": "ncep-r1", "years": (1948, 2024)}


def score_rows(method: str, level: int, definition: str, rmse: tuple[float, ...]) -> list[dict]:
    architecture, _, seed = method.partition("/seed")
    name = architecture.partition("-")[0]
    kind = "model" if seed else "baseline"
    label = LABELS.get(name, name)
    if (name, definition) == ("climatology", "paper"):
        label = "climatology (evaluation mean, sees the truth)"
    common = {"method": method, "label": label, "kind": kind, "seed": seed or None, "definition": definition}
    rows = []
    for lead, error in zip((6, 12, 18, 24), rmse, strict=False):
        gain = error - RMSE_M["persistence"][lead // 6 - 1]
        values = {"rmse_m": (error, 0.05), "acc": (1 - 0.5 * (error / 93) ** 2, 0.01), "bias_m": (0.3, 0.2)}
        values["rmse_difference_m"] = (gain, 0.04)
        for metric, (value, spread) in values.items():
            half = abs(value) * spread
            rows.append(common | {
                "lead_time_hours": lead, "level_hpa": level, "metric": metric, "value": value,
                "low": value - half, "high": value + half, "samples": 360,
            })  # fmt: skip
    mean = float(np.sqrt(np.mean(np.square(rmse))))
    rows.append(common | {
        "lead_time_hours": "all", "level_hpa": level, "metric": "rmse_m", "value": mean, "low": mean - 1,
        "high": mean + 1, "samples": 360,
    })  # fmt: skip
    return rows


@pytest.fixture
def write_scores(tmp_path):
    def write(task: str = TASK, seeds=(0,), flavour="small", leads: int = 4, models=MODELS) -> Path:
        rows = []
        for level in map(int, task.split("/")[1][:-3].split("+")):
            for definition in ("paper", "standard"):
                for name, rmse in RMSE_M.items():
                    if name in MODELS and name not in models:
                        continue
                    methods = [f"{name}-{flavour}/seed{s}" for s in seeds] if name in MODELS else [name]
                    for place, method in enumerate(methods):
                        shifted = tuple(error + 0.8 * place for error in rmse[:leads])
                        rows += score_rows(method, level, definition, shifted)
        path = tmp_path / "results" / "evaluation" / task / "scores.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(rows).to_csv(path, index=False)
        return path

    return write


@pytest.fixture
def write_runs(tmp_path):
    """Writes metrics.csv and run.json of each run; returns the paths of the metrics."""

    def write(
        task: str = TASK, seeds=(0,), flavour="small", steps: int = 1500, models=MODELS, grid=(37, 72)
    ) -> list[Path]:
        paths = []
        for place, model in enumerate(models):
            for seed in seeds:
                folder = tmp_path / "results" / "training" / task / f"{model}-{flavour}" / f"seed{seed}"
                folder.mkdir(parents=True, exist_ok=True)
                metrics_table(steps, place, seed).to_csv(folder / "metrics.csv", index=False)
                record = run_record(place, steps, grid)
                (folder / "run.json").write_text(json.dumps(record))
                paths.append(folder / "metrics.csv")
        return paths

    return write


def run_record(place: int, steps: int, grid: tuple[int, int] = (37, 72)) -> dict:
    return {
        "parameters": 2_150_000 + 1000 * place, "frames_per_second": 7000.0 - 500 * place,
        "peak_memory_bytes": 900 * 2**20, "device": "cpu", "steps": steps, "kernels": {"kda": "closed"},
        "grid": {"latitude": [0.0] * grid[0], "longitude": [0.0] * grid[1]},
    }  # fmt: skip


def metrics_table(steps: int, place: int, seed: int) -> pd.DataFrame:
    generator = np.random.default_rng(100 * place + seed)
    step = np.arange(1, steps + 1)
    curve = 0.012 + 0.002 * place + 0.9 / (1 + (step / 12) ** 1.4)
    train = curve * np.exp(0.12 * generator.standard_normal(steps))
    validation = (1.1 * curve)[step % 20 == 0]
    tables = [
        pd.DataFrame({"step": step, "split": "train", "metric": "loss", "value": train}),
        pd.DataFrame({"step": step, "split": "train", "metric": "rmse", "value": np.sqrt(train)}),
        pd.DataFrame(
            {"step": step[step % 20 == 0], "split": "validation", "metric": "loss", "value": validation}
        ),
    ]
    return pd.concat(tables)


@pytest.fixture
def write_examples(tmp_path):
    def write(methods, task: str = TASK, latitude=None, longitude=None) -> list[Path]:
        latitude = np.linspace(90, -90, 37) if latitude is None else np.asarray(latitude, dtype=float)
        longitude = np.arange(0, 360, 5.0) if longitude is None else np.asarray(longitude, dtype=float)
        levels = list(map(int, task.split("/")[1][:-3].split("+")))
        paths = []
        for place, method in enumerate(methods):
            path = tmp_path / "results" / "evaluation" / task / method / "examples.nc"
            path.parent.mkdir(parents=True, exist_ok=True)
            examples(place, latitude, longitude, levels).to_netcdf(path)
            paths.append(path)
        return paths

    return write


def waves(latitude: np.ndarray, longitude: np.ndarray, phase: float) -> np.ndarray:
    """Heights like those of 500 hPa: high in the tropics, waves in middle latitudes."""
    lat, lon = np.deg2rad(latitude)[:, None], np.deg2rad(longitude)[None, :]
    storm = (
        160 * np.sin(2 * lat) ** 2 * (np.sin(5 * lon + phase) + 0.5 * np.sin(3 * lon - 2 * phase + 4 * lat))
    )
    return 5880 - 850 * np.sin(lat) ** 4 - 60 * np.sin(lat) + storm


def examples(place: int, latitude: np.ndarray, longitude: np.ndarray, levels: list[int]) -> xr.Dataset:
    leads = np.array([6, 12, 18, 24])
    phases = np.array([[0.0, 0.7], [1.0, 1.7]])  # case, example
    first = np.array(["2006-01-03T00", "2010-03-04T18"], dtype="datetime64[ns]")
    times = first[:, None] + np.array([0, 5], dtype="timedelta64[D]")

    def field(hours: int) -> np.ndarray:
        """[case, example, level, latitude, longitude]"""
        of_phase = [[waves(latitude, longitude, phase + hours / 60) for phase in row] for row in phases]
        return np.stack([np.array(of_phase) + level for level in levels], axis=2)

    last, truth = field(0), np.stack([field(lead) for lead in leads], axis=2)
    forecast = truth + 0.35 * (place + 1) * (last[:, :, None] - truth)
    grid = ("level", "latitude", "longitude")
    return xr.Dataset(
        {
            "forecast": (("case", "example", "lead_time", *grid), forecast.astype("float32")),
            "truth": (("case", "example", "lead_time", *grid), truth.astype("float32")),
            "last_input": (("case", "example", *grid), last.astype("float32")),
        },
        coords={
            "case": ["train", "evaluation"], "lead_time": leads, "level": levels, "latitude": latitude,
            "longitude": longitude, "init_time": (("case", "example"), times),
        },
    )  # fmt: skip


@pytest.fixture
def write_statistics(tmp_path):
    def write(fields: str = "500hPa/standard", mean: float = 5508.1) -> Path:
        levels, protocol = fields.split("hPa/")
        levels = list(map(int, levels.split("+")))
        found = {
            "levels_hpa": levels, "mean": [mean + 0.04] * len(levels), "std": [343.2] * len(levels),
            "minimum": [4370.0] * len(levels), "maximum": [6050.0] * len(levels),
            "area_mean": [5600.5] * len(levels),
            "area_std": [280.1] * len(levels), "period": ["2001-01-01T00:00:00", "2009-12-31T18:00:00"],
            "frames": 13148, "protocol": protocol,
        }  # fmt: skip
        path = tmp_path / "results" / "data" / fields / "statistics.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"statistics": found, "provenance": {}}))
        return path

    return write


@pytest.fixture
def write_costs(tmp_path):
    def write(lengths=(8, 128, 1024, 16384), device="NVIDIA H100") -> Path:
        rows = []
        for place, model in enumerate(MODELS):
            for length in lengths:
                quadratic = 1 + (length / 9000) if model == "transformer" else 1
                speed = 21000 / (1 + 0.06 * place) / quadratic * min(1, (length / 256) ** 0.5)
                rows.append({
                    "model": model, "label": LABELS.get(model, model), "flavour": "small", "length": length,
                    "batch_size": 1, "grid": "73 × 144", "frames_per_second": speed,
                    "frames_per_second_min": 0.96 * speed, "frames_per_second_max": 1.03 * speed,
                    "device": device,
                    "peak_memory_bytes": (2.2 + 0.1 * place + length / 1500) * 2**30,
                })  # fmt: skip
        path = tmp_path / "results" / "scaling" / "costs.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(rows).to_csv(path, index=False)
        return path

    return write
