# SPDX-License-Identifier: Apache-2.0
"""One word for a stage everywhere: rule file, package, command, results, logs. Files of a readable size."""

import ast
import re
from pathlib import Path

import pytest

from isohypse.cli import build_parser
from isohypse.config.layout import project_root
from isohypse.config.settings import VERSIONS

ROOT = project_root()
STAGES = ("data", "training", "evaluation", "scaling", "publication")
RULE = re.compile(r"^rule (\w+):\n(.*?)(?=^rule |\Z)", re.M | re.S)
COLLECTED = {"data", "training", "evaluation", "scaling", "figures"}  # targets that run nothing themselves
SOURCES = sorted((ROOT / "workflow").rglob("*.py")) + sorted((ROOT / "tests").rglob("*.py"))


def rules_of(stage: str) -> dict[str, str]:
    return dict(RULE.findall((ROOT / "workflow" / "rules" / f"{stage}.smk").read_text()))


def commands_of(stage: str) -> set[str]:
    stages = next(a for a in build_parser()._actions if a.choices and stage in a.choices)
    return set(next(a for a in stages.choices[stage]._actions if a.choices).choices)


@pytest.mark.parametrize("stage", STAGES)
def test_rule_file_package_command_results_and_logs_bear_the_same_word(stage):
    assert (ROOT / "workflow" / "isohypse" / stage / "__init__.py").is_file()
    rules = {name: body for name, body in rules_of(stage).items() if name not in COLLECTED}
    assert rules.keys() == commands_of(stage)
    for name, body in rules.items():
        assert f'"isohypse {stage} {name} ' in body, name
        assert f'"<logs>/{stage}/' in body, name
        outputs = body.split("output:")[1].split("params:")[0]
        assert f"<results>/{stage}/" in outputs or "<downloads>/" in outputs, name


def test_every_rule_passes_the_version_of_its_code():
    for stage in STAGES:
        for name, body in rules_of(stage).items():
            if name not in COLLECTED:
                assert "settings=" in body, name
                assert re.sub(r"\d", "", name) in VERSIONS, name


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_have_a_readable_size(path: Path):
    text = path.read_text()
    assert text.startswith("# SPDX-License-Identifier: Apache-2.0")
    assert text.count("\n") <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 60, node.name
