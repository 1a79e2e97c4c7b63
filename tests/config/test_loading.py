# SPDX-License-Identifier: Apache-2.0
"""A configuration is checked where it is read: one line for each wrong key; presets lie where they should."""

import subprocess
import sys
from importlib.util import find_spec

import pytest
import yaml

from isohypse.config import load_experiment
from isohypse.config.layout import project_root
from isohypse.config.loading import merge, read_yaml
from isohypse.errors import ConfigurationError

PRESETS = sorted(path.stem for path in (project_root() / "presets").glob("*.yaml"))


def load(**outside):
    return load_experiment(outside, root=project_root())


@pytest.mark.parametrize("preset", ["paper", *PRESETS])
def test_every_preset_is_valid(preset):
    outside = {"files": {"paths": ["sample.nc"]}} if preset == "era5_sample" else {}
    experiment = load(preset=preset, **outside)
    assert experiment.study == preset
    assert experiment.run_list


@pytest.mark.parametrize(
    ("outside", "words"),
    [
        ({"typo": 1}, ["typo", "unknown key", "training"]),
        ({"training": {"stepz": 1}}, ["training.stepz", "unknown key", "steps"]),
        ({"splits": {"standard": {"trian": 1}}}, ["splits.standard.trian", "train"]),
        ({"training": {"steps": "many"}}, ["training.steps", "integer"]),
        ({"training": {"steps": 0}}, ["training.steps", "greater than 0"]),
        ({"training": {"warmup_steps": 2000}}, ["training", "warmup_steps 2000", "1500"]),
        ({"archive": {"levels_hpa": [501]}}, ["archive.levels_hpa", "501", "850, 500, 300"]),
        ({"runs": {"levels_hpa": [[300]]}}, ["runs.levels_hpa", "300", "archive.levels_hpa"]),
        ({"runs": {"models": ["gpt"]}}, ["runs.models", "gpt", "transformer", "kda"]),
        ({"runs": {"models": ["gla"], "flavours": ["matched"]}}, ["runs.flavours", "gla", "paper"]),
        ({"runs": {"protocols": ["papr"]}}, ["runs.protocols", "'paper' or 'standard'"]),
        ({"runs": {"seeds": [0, 0]}}, ["runs.seeds", "once"]),
        ({"source": {"first_year": 2020}}, ["source", "empty", "2020"]),
        ({"source": {"kind": "ncep-r1", "first_year": 1900}}, ["source", "1948"]),
        ({"source": {"kind": "files"}}, ["files.paths"]),
        ({"grid": {"stride": 5}}, ["grid.stride", "5", "1, 2, 3, 4"]),
        ({"splits": {"standard": {"gap_frames": 3}}}, ["splits.standard.gap_frames", "12"]),
        ({"splits": {"standard": {"train": ["2001-01-01", "2010-06-01"]}}}, ["overlap", "validation"]),
        ({"splits": {"standard": {"train": ["2005-01-01", "2005-01-01"]}}}, ["train is empty"]),
        ({"splits": {"standard": {"train": [0.1, "2005-01-01"]}}}, ["dates and fractions"]),
        (
            {"splits": {"standard": {"train": ["1999-01-01", "2005-01-01"]}}},
            ["splits.standard.train", "1999"],
        ),
        ({"scaling": {"flavour": "huge"}}, ["scaling.flavour", "huge", "small"]),
        ({"preset": "demmo"}, ["preset", "demmo", "demo"]),
        ({"study": "My Study"}, ["study", "My Study"]),
        ({"publication": {"height_colormap": "viridiss"}}, ["publication.height_colormap", "viridiss"]),
        ({"publication": {"error_colormap": "viridiss"}}, ["publication.error_colormap", "viridiss"]),
    ],
)
def test_a_wrong_value_gets_one_line_that_names_the_key_and_what_is_allowed(outside, words):
    with pytest.raises(ConfigurationError) as caught:
        load(**outside)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.skipif(find_spec("cartopy") is not None, reason="cartopy is installed")
def test_a_projection_without_its_library_says_how_to_get_it():
    with pytest.raises(
        ConfigurationError, match=r"publication\.projection: .*pip install 'isohypse\[maps\]'"
    ):
        load(publication={"projection": "robinson"})


def test_two_wrong_keys_get_two_lines():
    with pytest.raises(ConfigurationError) as caught:
        load(training={"stepz": 1, "batch_size": -1})
    assert len(str(caught.value).splitlines()) == 2


def test_later_values_win_key_by_key_and_lists_are_replaced_whole():
    assert merge({"a": {"b": 1, "c": [1, 2]}, "d": 1}, {"a": {"c": [3]}}) == {"a": {"b": 1, "c": [3]}, "d": 1}
    experiment = load(preset="demo", training={"steps": "200"})
    assert experiment.training.steps == 200  # numbers from --config arrive as text
    assert experiment.training.batch_size == 32  # the preset's
    assert experiment.training.clip_norm == 1.0  # config.yaml's


def test_a_lost_preset_falls_back_to_the_demo():
    assert load().study == "demo"


def test_the_experiment_cannot_be_changed():
    with pytest.raises(Exception, match="frozen"):
        load().training.steps = 1


def test_broken_yaml_is_named(tmp_path):
    (tmp_path / "config.yaml").write_text("a: [1\n")
    with pytest.raises(ConfigurationError, match=r"config\.yaml"):
        read_yaml(tmp_path / "config.yaml")
    with pytest.raises(ConfigurationError, match="root of the project"):
        read_yaml(tmp_path / "missing.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(ConfigurationError, match="keys and values"):
        read_yaml(tmp_path / "list.yaml")


def test_config_yaml_names_and_comments_every_key():
    text = (project_root() / "config.yaml").read_text()
    dumped = load(preset="paper").model_dump()
    written = yaml.safe_load(text)
    assert keys_of(written) == keys_of(dumped)
    for line in text.splitlines():
        if line.startswith("  ") and ":" in line and line.rstrip().endswith(":"):
            pytest.fail(f"no comment: {line}")


def keys_of(value, prefix=""):
    if not isinstance(value, dict):
        return set()
    # A split's `test` and `gap_frames` may be left out.
    optional = {".splits.paper.test", ".splits.paper.gap_frames"}
    below = {f"{prefix}.{key}" for key in value} - optional
    return below.union(*(keys_of(inner, f"{prefix}.{key}") for key, inner in value.items()))


def test_the_configuration_needs_neither_torch_nor_xarray():
    code = "import sys, isohypse.config, isohypse.cli; print(sorted({'torch', 'xarray'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
