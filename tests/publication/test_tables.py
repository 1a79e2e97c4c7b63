# SPDX-License-Identifier: Apache-2.0
import csv
from html.parser import HTMLParser

import pytest

from isohypse.publication.document import Column, Table, as_csv, as_html
from isohypse.publication.tables import table1, table2, table3


class Balance(HTMLParser):
    """Checks that what opens is closed in order; `outside` collects what would be fetched."""

    def __init__(self):
        super().__init__()
        self.open, self.outside = [], []

    def handle_starttag(self, tag, attrs):
        self.outside += [value for name, value in attrs if name in ("src", "href")]
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def check_html(text: str) -> None:
    parser = Balance()
    parser.feed(text)
    assert parser.open == []
    assert parser.outside == []


@pytest.fixture
def written(tmp_path):
    """Calls a table's function with its two destinations; returns its CSV rows and its HTML."""

    def run(function, *arguments, **named):
        paths = tmp_path / "table.csv", tmp_path / "table.html"
        function(*arguments, *paths, **named)
        html = paths[1].read_text()
        check_html(html)
        return list(csv.DictReader(paths[0].open())), html

    return run


def test_table1_has_one_row_a_level_and_the_data_in_each(written, table_settings, write_statistics):
    rows, html = written(table1, table_settings(), [write_statistics("500+300hPa/standard")])
    assert [(row["level_hpa"], row["mean_m"]) for row in rows] == [("500", "5508.14"), ("300", "5508.14")]
    assert all("SYNTHETIC" in row["data"] and row["protocol"] == "standard" for row in rows)
    assert "5,508.1" in html
    assert 'class="synthetic">SYNTHETIC' in html


def test_table1_sets_no_number_of_the_paper_beside_synthetic_data(written, table_settings, write_statistics):
    rows, html = written(table1, table_settings(), [write_statistics("500hPa/paper")])
    assert rows[0]["paper_mean_m"] == ""
    assert html.count("not comparable: the data are synthetic") == 1
    assert "5,509.7" not in html


def test_table1_sets_the_paper_beside_its_own_data(written, table_settings, write_statistics, paper_data):
    files = [write_statistics("500hPa/paper"), write_statistics("500hPa/standard")]
    rows, html = written(table1, table_settings(**paper_data), files)
    assert [row["paper_mean_m"] for row in rows] == ["5509.7", ""]
    assert "300 hPa" in html


def test_table1_needs_the_papers_years(written, table_settings, write_statistics, paper_data):
    settings = table_settings(**(paper_data | {"years": (1990, 2000)}))
    rows, html = written(table1, settings, [write_statistics("500hPa/paper")])
    assert rows[0]["paper_mean_m"] == ""
    assert "not comparable: the years are 1990–2000, the paper&#x27;s 1948–2024" in html


def test_table2_counts_parameters_and_sets_the_paper_beside_its_flavour(written, table_settings):
    pairs = [("transformer", "debug"), ("transformer", "paper"), ("mamba2", "paper")]
    rows, html = written(table2, table_settings(), architectures=pairs, grid=(73, 144))
    assert [row["parameters_out1"] for row in rows[1:]] == ["329871632", "338391824"]
    assert [row["paper_layers"] for row in rows] == ["", "24", "48"]
    assert rows[2]["paper_heads"] == ""
    assert "329,871,632" in html


def test_table2_totals_grow_with_the_grid(written, table_settings):
    small, _ = written(table2, table_settings(), architectures=[("gla", "debug")], grid=(37, 72), t_outs=(1,))
    large, _ = written(
        table2, table_settings(), architectures=[("gla", "debug")], grid=(73, 144), t_outs=(1,)
    )
    assert int(small[0]["parameters_out1"]) < int(large[0]["parameters_out1"])
    assert small[0]["stack_parameters"] == large[0]["stack_parameters"]


def test_table3_compares_each_setting(written, table_settings):
    training = {
        "steps": 5000,
        "batch_size": 32,
        "schedule_steps": None,
        "precision": "auto",
        "head_bias": "zero",
    }
    rows, _ = written(table3, table_settings(), training=training)
    assert {row["setting"]: row["same"] for row in rows} == {
        "steps": "yes", "batch_size": "no", "schedule_steps": "no", "precision": "", "head_bias": "",
    }  # fmt: skip
    assert [row["paper_origin"] for row in rows[:3]] == ["Table 3", "Table 3", "published code"]


def test_html_escapes_and_marks_the_best(table_settings):
    columns = [Column("name", "Name"), Column("x", "x < y", "m", "{:.1f}", best="min", interval=True)]
    rows = [{"name": "<b>", "x": 2.0, "x_low": 1.0, "x_high": 3.0}, {"name": "c", "x": -1.0}, {"name": "d"}]
    html = as_html(Table("T", [], columns, rows), table_settings())
    check_html(html)
    assert "&lt;b&gt;" in html
    assert '<td class="best">−1.0</td>' in html
    assert '<td>2.0<span class="interval">1.0 to 3.0</span></td>' in html
    assert "<td>–</td>" in html


def test_csv_and_html_hold_nothing_that_changes(table_settings):
    table = Table("T", ["about"], [Column("x", "x", "", "{:.1f}")], [{"x": 1 / 3}], ["note"])
    assert as_csv(table, table_settings()) == as_csv(table, table_settings())
    assert as_csv(table, table_settings()).splitlines()[1].startswith("0.33333333,")
    assert as_html(table, table_settings()) == as_html(table, table_settings())
