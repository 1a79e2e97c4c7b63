# SPDX-License-Identifier: Apache-2.0
"""The captions are rendered as `snakemake --report` does it: Jinja, then docutils."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from docutils.core import publish_parts
from jinja2 import Environment

REPORT = Path(__file__).parents[2] / "workflow" / "report"
STUDY_WIDE = ("figure6", "table2", "table3")
BY_TASK = ("figure2", "figure3", "figure4", "figure5", "table4")


def render(name: str, settings: str, task: str = "in8-out4/500hPa/standard", inputs=()) -> str:
    environment = Environment(trim_blocks=True, lstrip_blocks=True)
    wildcards = SimpleNamespace()
    if name in BY_TASK:
        wildcards.task = task
    elif name == "table1":
        wildcards.fields = task.split("/", 1)[1]
    job = SimpleNamespace(params=SimpleNamespace(settings=settings), wildcards=wildcards, input=list(inputs))
    text = environment.from_string((REPORT / f"{name}.rst").read_text()).render(snakemake=job)
    # level 2: a warning, for instance of a broken list, is an error
    return publish_parts(text, writer="html", settings_overrides={"halt_level": 2})["body"]


def runs(*seeds: int) -> list[str]:
    return [
        f"results/demo/training/in8-out4/500hPa/standard/kda-small/seed{seed}/metrics.csv" for seed in seeds
    ]


@pytest.mark.parametrize("name", [*STUDY_WIDE, *BY_TASK])
def test_captions_tell_synthetic_from_real_data(name, figure_settings, paper_data):
    assert "SYNTHETIC data" in render(name, figure_settings().to_json())
    real = render(name, figure_settings(**paper_data).to_json())
    assert "SYNTHETIC" not in real
    assert "1948–2024" in real


@pytest.mark.parametrize("name", BY_TASK)
def test_captions_say_task_and_protocol(name, figure_settings):
    html = render(name, figure_settings().to_json(), "in6-out2/300hPa/paper")
    for part in ("300hPa", "6 six-hourly frames in", "2 out (lead times up to 12 h)", "<em>paper</em>"):
        assert part in html


@pytest.mark.parametrize("name", ["figure2", "figure3", "figure4"])
def test_captions_name_the_seeds(name, figure_settings):
    settings = figure_settings().to_json()
    assert "seeds: 0 (one seed" in render(name, settings, inputs=runs(0, 0)) or name != "figure2"
    assert "0, 3" in render(name, settings, inputs=runs(0, 3))


def test_the_definition_follows_the_protocol(figure_settings):
    settings = figure_settings().to_json()
    assert "sees the" in render("figure5", settings, "in8-out4/500hPa/paper")
    assert "WeatherBench 2" in render("figure5", settings)


def test_the_description_of_the_workflow_renders():
    text = Environment().from_string((REPORT / "workflow.rst").read_text()).render()
    html = publish_parts(text, writer="html", settings_overrides={"halt_level": 2})["html_body"]
    for stage in ("data", "training", "evaluation", "scaling", "publication"):
        assert f"<strong>{stage}</strong>" in html
