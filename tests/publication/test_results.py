# SPDX-License-Identifier: Apache-2.0
import csv
import json

import pandas as pd
import pytest

from isohypse.errors import DataError
from isohypse.publication import paper
from isohypse.publication.results import table4

PAPER_TASK = "in8-out1/500hPa/paper"


@pytest.fixture
def results(tmp_path, table_settings, write_scores, write_runs):
    """Table 4 of a task: rows of the CSV by method, and the HTML."""

    def make(settings=None, task="in8-out4/500hPa/standard", change=None, **named):
        scores = write_scores(task, leads=1 if "out1" in task else 4, **named)
        if change:
            change(pd.read_csv(scores)).to_csv(scores, index=False)
        grid, steps = ((73, 144), 5000) if named.get("flavour") == "paper" else ((37, 72), 200)
        runs = [path.with_name("run.json") for path in write_runs(task, grid=grid, steps=steps, **named)]
        paths = tmp_path / "table4.csv", tmp_path / "table4.html"
        table4(settings or table_settings(), scores, runs, *paths)
        rows = list(csv.DictReader(paths[0].open()))
        return {(row["method"], row["level_hpa"]): row for row in rows}, paths[1].read_text()

    return make


def test_scores_skill_and_training_stand_in_one_row(results):
    rows, html = results()
    kda = rows["KDA", "500"]
    assert (kda["rmse_6h_m"], kda["rmse_24h_m"]) == ("28.6", "34.6")
    assert float(kda["rmse_6h_m_low"]) == pytest.approx(28.6 * 0.95)
    assert float(kda["skill_24h"]) == pytest.approx(1 - 34.6 / 63.0)
    assert (kda["parameters"], kda["frames_per_second"], kda["device"]) == ("2155000", "4500", "cpu")
    assert rows["Persistence", "500"]["parameters"] == ""
    assert "28.6" in html
    assert "one seed (0)" in html


def test_who_wins_is_worked_out(results):
    _, html = results()
    assert "At 6 h: the best baseline, Ridge VAR (10.5 m), is ahead of every model" in html
    assert "none of 6 models beat persistence" in html
    assert "6 of 6 models beat persistence, 6 of them clearly" in html


def test_who_wins_follows_the_data(results):
    def better(table):
        models = table["kind"] == "model"
        table.loc[models & (table["metric"] == "rmse_m"), ["value", "low", "high"]] /= 4
        return table

    _, html = results(change=better)
    assert "At 6 h: the best model, KDA (7.2 m), is ahead of the best baseline, Ridge VAR (10.5 m)" in html


def test_a_demo_stands_beside_no_number_of_the_paper(results):
    rows, html = results()
    assert {row[key] for row in rows.values() for key in row if key.startswith("paper_")} == {""}
    assert html.count("Table 4: not comparable:") == 1
    for reason in ("the data are synthetic", "protocol is “standard”", "flavour is “small”", "200 steps"):
        assert reason in html


def test_the_papers_own_set_up_stands_beside_its_numbers(results, table_settings, paper_data):
    rows, html = results(table_settings(**paper_data), PAPER_TASK, flavour="paper", seeds=(0, 1))
    assert rows["GLA", "500"]["paper_acc"] == "0.920441"
    assert rows["Persistence", "500"]["paper_acc"] == ""
    assert paper.LEVEL_NOTE in html
    assert "2 seeds (0, 1)" in html
    assert "sees the truth" in html


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"synthetic": True, "source": "quasigeostrophic"}, "the data are synthetic"),
        ({"source": "files"}, "not NCEP/NCAR"),
        ({"years": (1979, 2024)}, "the years are 1979–2024"),
    ],
)
def test_other_data_are_not_comparable(results, table_settings, paper_data, change, reason):
    rows, html = results(table_settings(**(paper_data | change)), PAPER_TASK, flavour="paper")
    assert rows["GLA", "500"]["paper_acc"] == ""
    assert reason in html


def test_seeds_are_averaged_and_their_intervals_enveloped(results):
    rows, html = results(seeds=(0, 1))
    kda = rows["KDA", "500"]
    assert (kda["seeds"], kda["rmse_6h_m"]) == ("0, 1", "29")
    assert float(kda["rmse_6h_m_high"]) == pytest.approx(29.4 * 1.05)
    assert "means over seeds" in html


def test_levels_have_rows_of_their_own(results):
    rows, html = results(task="in8-out4/500+300hPa/standard")
    assert {level for _, level in rows} == {"500", "300"}
    assert "At 24 h (300 hPa):" in html


def test_runs_of_another_task_are_refused(tmp_path, table_settings, write_scores, write_runs):
    runs = [path.with_name("run.json") for path in write_runs(PAPER_TASK, steps=20, models=("gla",))]
    with pytest.raises(DataError, match="a run of the task in8-out1/500hPa/paper, expected in8-out4"):
        table4(table_settings(), write_scores(), runs, tmp_path / "t.csv", tmp_path / "t.html")
    assert not (tmp_path / "t.csv").exists()


def test_a_record_without_its_keys_is_refused(tmp_path, table_settings, write_scores, write_runs):
    path = write_runs(steps=20, models=("gla",))[0].with_name("run.json")
    path.write_text(json.dumps({"parameters": 1}))
    with pytest.raises(DataError, match=r"run\.json: lacks frames_per_second"):
        table4(table_settings(), write_scores(), [path], tmp_path / "t.csv", tmp_path / "t.html")
