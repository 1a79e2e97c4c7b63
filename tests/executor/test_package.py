# SPDX-License-Identifier: Apache-2.0
"""The plugin could be published on its own: it needs Snakemake's executor interface and nothing else."""

import ast
import sys
from pathlib import Path

from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry

import snakemake_executor_plugin_isohypse_pbs as plugin

INTERFACES = {"snakemake_interface_common", "snakemake_interface_executor_plugins"}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module.partition(".")[0]


def test_it_imports_the_interfaces_and_the_standard_library_only():
    found = {name for path in Path(plugin.__file__).parent.glob("*.py") for name in imported(path)}
    assert found - sys.stdlib_module_names <= INTERFACES


def test_snakemake_accepts_it_and_every_setting_has_a_line_in_the_documentation():
    registry = ExecutorPluginRegistry()
    registry.register_plugin(plugin.__name__, plugin)
    settings = registry.get_plugin("isohypse-pbs").get_settings_info()
    manual = (Path(plugin.__file__).parents[2] / "docs" / "executor.md").read_text()
    assert all(f"| `{setting['name'].replace('_', '-')}` |" in manual for setting in settings)
    assert not any(setting["required"] for setting in settings), "a dry run needs none"
