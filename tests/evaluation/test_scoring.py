# SPDX-License-Identifier: Apache-2.0
"""From a Zarr archive and a climatology to scores.nc, examples.nc and the tidy table."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from isohypse.config.assessment import Evaluation, RidgeVar
from isohypse.config.experiment import Run, Task
from isohypse.config.sections import Split
from isohypse.config.settings import BASELINES, BaselineSettings, ModelSettings, ScoresSettings
from isohypse.data.windows import Windows
from isohypse.errors import DataError
from isohypse.evaluation import metrics
from isohypse.evaluation.baselines import fit_baseline
from isohypse.evaluation.scoring import forecast_examples, middle, score, score_baseline, score_to_files
from isohypse.evaluation.tables import COLUMNS, tabulate_scores

TASK = Task(t_in=3, t_out=2, levels_hpa=(500, 300), protocol="standard")
SPLIT = Split(train=(0.0, 0.7), validation=(0.7, 1.0), gap_frames=5)
EVALUATION = Evaluation(examples=2)
VAR = RidgeVar(eofs=4, frames=2)


@dataclass
class Shifted:
    """The truth of a persistent world, `by_m` too high; `defect` spoils the forecast on purpose."""

    by_m: float = 0.0
    defect: str = ""
    t_in: int = 3
    t_out: int = 2
    name: str = "kda-debug/seed3"
    label: str = "KDA"

    def forecast(self, frames: np.ndarray, init_time: np.ndarray) -> np.ndarray:
        made = np.repeat(frames[:, -1:], self.t_out, axis=1) + np.float32(self.by_m)
        if self.defect == "nan":
            made[1, 0, 0, 0, 0] = np.nan
        return made[:, :1] if self.defect == "shape" else made


@pytest.fixture
def archive(tmp_path, make_dataset, red_noise) -> tuple[list[Path], Path]:
    """A Zarr store of 400 frames at two levels and the climatology of 5,500 m."""
    dataset = make_dataset(red_noise(400, np.full((2, 5, 6), 0.9), seed=1))
    dataset.to_zarr(tmp_path / "2001.zarr", zarr_format=3, consolidated=False)
    mean = xr.full_like(dataset.geopotential_height[:1].drop_vars("time"), 5500)
    mean = mean.rename(time="dayofyear").expand_dims(hour=1, axis=1)
    mean.to_dataset().assign_attrs(label="constant").to_netcdf(tmp_path / "climatology.nc")
    return [tmp_path / "2001.zarr"], tmp_path / "climatology.nc"


def _baseline(name: str, protocol: str = "standard") -> BaselineSettings:
    task = TASK.model_copy(update={"protocol": protocol})
    return BaselineSettings(
        version=1, task=task, split=SPLIT, baseline=name, evaluation=EVALUATION, ridge_var=VAR
    )


def _model() -> ModelSettings:
    run = Run(task=TASK, model="kda", flavour="debug", seed=3)
    return ModelSettings(version=1, run=run, split=SPLIT, evaluation=EVALUATION)


def _open(folder: Path, name: str = "scores.nc") -> xr.Dataset:
    with xr.open_dataset(folder / name, decode_timedelta=False) as dataset:
        return dataset.load()


def test_a_shift_is_all_bias_and_its_square_is_the_error(make_cases):
    cases = make_cases(np.zeros((40, 2, 5, 6)), training=20)
    scores = score(Shifted(by_m=3), cases)
    np.testing.assert_allclose(scores.bias, 3, rtol=1e-9)
    np.testing.assert_allclose(scores.mse, 9, rtol=1e-9)


def test_scores_are_those_of_the_metrics(cases):
    scores = score(Shifted(), cases)
    sample, lead, level = 70, 1, 1  # in the second batch
    frame = cases.heights.values
    truth = frame[cases.scored.targets(sample)[lead], level]
    forecast = frame[cases.scored.last_input[sample], level]
    weights = {"paper": np.ones(5), "standard": metrics.cell_weights(cases.latitude)}
    cosine = np.cos(np.radians(cases.latitude))[:, None]
    for definition, weight in weights.items():
        found = scores.sel(definition=definition).isel(sample=sample, lead_time=lead, level=level)
        expected = np.average(np.square(forecast - truth, dtype=float).mean(axis=1), weights=weight)
        assert found.mse == pytest.approx(expected, rel=1e-9)
    f, o = ((field - cases.evaluation_mean[level].astype(float)) * cosine for field in (forecast, truth))
    expected = (f * o).sum() / np.sqrt((f**2).sum() * (o**2).sum())
    found = scores.acc.sel(definition="paper")[sample, lead, level]
    assert found == pytest.approx(expected, rel=1e-9)
    assert scores.init_time.values[sample] == cases.time[cases.scored.last_input[sample]]


def test_climatology_has_no_correlation_with_itself_but_with_the_other_mean(cases):
    for protocol, other in (("standard", "paper"), ("paper", "standard")):
        acc = score(fit_baseline("climatology", cases, protocol, EVALUATION), cases).acc
        assert np.isnan(acc.sel(definition=protocol)).all()
        assert np.isfinite(acc.sel(definition=other)).all()


def test_examples_are_forecasts_from_the_middle_of_their_range(cases):
    examples = forecast_examples(Shifted(by_m=2), cases, 1)
    assert examples.forecast.dims == ("case", "example", "lead_time", "level", "latitude", "longitude")
    for case, windows in (("train", cases.windows["train"]), ("evaluation", cases.scored)):
        start = windows.starts[len(windows) // 2]
        found = examples.sel(case=case).isel(example=0)
        np.testing.assert_array_equal(found.last_input, cases.heights[start + 2])
        np.testing.assert_array_equal(found.truth, cases.heights[start + 3 : start + 5])
        np.testing.assert_array_equal(found.forecast[1], cases.heights[start + 2] + 2)
        assert found.init_time.values == cases.time[start + 2]


def test_several_examples_are_spread_over_the_range():
    windows = Windows(np.arange(100, 200), 3, 2)
    np.testing.assert_array_equal(middle(windows, 4).starts, [112, 137, 162, 187])


@pytest.mark.parametrize(
    ("forecaster", "message"),
    [
        (Shifted(defect="nan"), r"1 forecasts are not finite, the first of 2001-03-"),
        (Shifted(defect="shape"), r"shape \(64, 1, 2, 5, 6\), expected \(64, 2, 2, 5, 6\)"),
        (Shifted(t_out=4), "forecasts 4 frames from 3, but the task is 2 from 3"),
    ],
)
def test_a_broken_forecaster_is_refused_and_leaves_nothing(archive, tmp_path, forecaster, message):
    before = sorted(tmp_path.iterdir())
    with pytest.raises(DataError, match=message):
        score_to_files(forecaster, _model(), *archive, tmp_path / "scored")
    assert sorted(tmp_path.iterdir()) == before


def test_files_say_what_they_are(archive, tmp_path):
    score_to_files(Shifted(), _model(), *archive, tmp_path / "model")
    score_baseline(_baseline("persistence"), *archive, tmp_path / "baseline")
    model, baseline = _open(tmp_path / "model"), _open(tmp_path / "baseline")
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["examples.nc", "scores.nc"]
    assert {name: model.attrs[name] for name in ("method", "label", "kind", "seed", "synthetic")} == {
        "method": "kda-debug/seed3",
        "label": "KDA",
        "kind": "model",
        "seed": 3,
        "synthetic": 1,
    }
    assert (baseline.attrs["kind"], "seed" in baseline.attrs) == ("baseline", False)
    assert model.attrs["task"] == "in3-out2/500+300hPa/standard"
    assert model.attrs["climatology"] == "constant"
    assert json.loads(model.attrs["provenance"])["settings_digest"] == _model().digest
    assert model.lead_time.values.tolist() == [6, 12]
    assert model.sizes == {"definition": 2, "sample": 111, "lead_time": 2, "level": 2}
    xr.testing.assert_identical(model.mse, baseline.mse)  # both are persistence
    assert _open(tmp_path / "model", "examples.nc").sizes["example"] == 2


def test_equal_work_gives_equal_scores(archive, tmp_path):
    for name in ("first", "second"):
        score_baseline(_baseline("ridge_var"), *archive, tmp_path / name)
    xr.testing.assert_identical(_open(tmp_path / "first"), _open(tmp_path / "second"))


def test_a_climatology_of_another_grid_is_refused(archive, tmp_path):
    stores, climatology = archive
    with xr.open_dataset(climatology) as dataset:
        dataset.isel(level=[0]).to_netcdf(tmp_path / "other.nc")
    with pytest.raises(DataError, match="its level is not that of the archive"):
        score_baseline(_baseline("persistence"), stores, tmp_path / "other.nc", tmp_path / "scored")


def _tabulate(archive, tmp_path: Path) -> tuple[pd.DataFrame, dict[str, xr.Dataset]]:
    for name in BASELINES:
        score_baseline(_baseline(name), *archive, tmp_path / name)
    score_to_files(Shifted(by_m=30), _model(), *archive, tmp_path / "model")
    folders = [tmp_path / name for name in (*BASELINES, "model")]
    settings = ScoresSettings(version=1, task=TASK, confidence=0.9)
    tabulate_scores(settings, [folder / "scores.nc" for folder in folders], tmp_path / "scores.csv")
    return pd.read_csv(tmp_path / "scores.csv"), {folder.name: _open(folder) for folder in folders}


def test_the_table_is_tidy_and_complete(archive, tmp_path):
    table, _ = _tabulate(archive, tmp_path)
    assert tuple(table.columns) == COLUMNS
    keys = ["method", "definition", "lead_time_hours", "level_hpa", "metric"]
    assert not table.duplicated(keys).any()
    # Definitions x leads with `all` x levels x metrics; persistence does not differ from itself.
    assert len(table) == 2 * 3 * 2 * (5 * 4 - 1)
    assert set(table.lead_time_hours) == {"6", "12", "all"}
    assert table.groupby("method").seed.first().dropna().to_dict() == {"kda-debug/seed3": 3}
    defined = table[table.value.notna()]
    assert ((defined.low <= defined.value) & (defined.value <= defined.high)).all()
    empty = table[table.value.isna()]
    assert set(zip(empty.method, empty.definition, empty.metric)) == {("climatology", "standard", "acc")}


def test_the_table_holds_the_means_of_the_scores(archive, tmp_path):
    table, scores = _tabulate(archive, tmp_path)
    table = table[(table.definition == "standard") & (table.level_hpa == 300)].set_index(
        ["method", "metric", "lead_time_hours"]
    )
    model, kept = (scores[name].sel(definition="standard", level=300) for name in ("model", "persistence"))
    rmse, of_persistence = np.sqrt(model.mse.mean("sample")), np.sqrt(kept.mse.mean("sample"))
    key = "kda-debug/seed3"
    assert table.value[key, "rmse_m", "12"] == pytest.approx(float(rmse[1]), rel=1e-6)
    assert table.value[key, "rmse_m", "all"] == pytest.approx(float(np.sqrt(model.mse.mean())), rel=1e-6)
    assert table.value[key, "acc", "6"] == pytest.approx(float(model.acc[:, 0].mean()), rel=1e-6)
    assert table.value[key, "bias_m", "all"] == pytest.approx(float(model.bias.mean()), rel=1e-6)
    difference = table.value[key, "rmse_difference_m", "12"]
    assert difference == pytest.approx(float(rmse[1] - of_persistence[1]), rel=1e-6)
    assert table.low[key, "rmse_difference_m", "12"] > 0  # 30 m of bias are worse than persistence, surely


def test_scores_of_other_forecasts_or_tasks_and_methods_given_twice_are_refused(archive, tmp_path):
    for name, settings in (("a", _baseline("persistence")), ("paper", _baseline("persistence", "paper"))):
        score_baseline(settings, *archive, tmp_path / name)
    fewer = _baseline("climatology").model_copy(update={"evaluation": Evaluation(max_windows=9)})
    score_baseline(fewer, *archive, tmp_path / "fewer")
    first, settings = tmp_path / "a/scores.nc", ScoresSettings(version=1, task=TASK, confidence=0.9)
    for others, message in (
        ([tmp_path / "paper/scores.nc"], "scores of the task in3-out2/500.300hPa/paper, expected"),
        ([tmp_path / "fewer/scores.nc"], "its forecasts are not those of"),
        ([first], "persistence is already scored by"),
        ([tmp_path / "missing.nc"], "not a file of scores"),
    ):
        with pytest.raises(DataError, match=message):
            tabulate_scores(settings, [first, *others], tmp_path / "scores.csv")
    with pytest.raises(DataError, match="no file was given"):
        tabulate_scores(settings, [], tmp_path / "scores.csv")
    assert not (tmp_path / "scores.csv").exists()
