# SPDX-License-Identifier: Apache-2.0
"""From files and flags to one checked Experiment.

Reads config.yaml (the paper's experiment), lays the preset over it, then whatever came from outside
(the user's --configfile and --config, which Snakemake has already merged). `preset` is the user's choice,
`profile_preset` the profile's, which must not outrank it. Later values win, key by key
at every depth; lists are replaced whole. A preset that got lost on the way falls back to `demo`: a slip
of the keyboard must not start the full study.
"""

import os
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from isohypse.config.experiment import Experiment
from isohypse.errors import ConfigurationError

FALLBACK_PRESET = "demo"


def load_experiment(outside: Mapping[str, Any], root: Path | str = ".") -> Experiment:
    """The experiment for what came from `outside`; `root` holds config.yaml and presets/.

    Raises ConfigurationError with one line for each key that is wrong.
    """
    values = deepcopy(dict(outside))
    of_the_profile = values.pop("profile_preset", FALLBACK_PRESET)
    name = str(values.pop("preset", of_the_profile))
    merged = read_yaml(Path(root) / "config.yaml")
    if name != "paper":  # config.yaml itself
        merged = merge(merged, read_yaml(preset_path(name, root)))
    return check(merge(merged, values))


def export_execution(experiment: Experiment) -> None:
    """Hand the sections that say how a stage runs, not what it makes, to the jobs through the environment.

    As parameters of a rule they would be reasons to rerun it.
    """
    os.environ["ISOHYPSE_EXECUTION"] = experiment.execution.model_dump_json()
    os.environ["ISOHYPSE_SERVER"] = experiment.ncep_r1.model_dump_json()


def preset_path(name: str, root: Path | str = ".") -> Path:
    path = Path(root) / "presets" / f"{name}.yaml"
    if not path.is_file():
        known = sorted(found.stem for found in path.parent.glob("*.yaml"))
        raise ConfigurationError(f"preset: {name!r} is unknown; there are {', '.join(['paper', *known])}")
    return path


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises ConfigurationError if it is missing, broken or no mapping."""
    try:
        value = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}; run from the root of the project") from None
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path}: {' '.join(str(error).split())}") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigurationError(f"{path}: expected keys and values, got {type(value).__name__}")
    return value


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid upon `base`: mappings are merged key by key, everything else is replaced."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def check(values: Mapping[str, Any]) -> Experiment:
    """Validate; raises ConfigurationError naming each wrong key and what is allowed there."""
    try:
        return Experiment.model_validate(values)
    except ValidationError as error:
        problems = error.errors()
        # A list whose only item is wrong is also reported as too short: one line is enough.
        lines = [
            _explain(problem)
            for problem in problems
            if problem["type"] != "too_short" or not problem["input"]
        ]
        raise ConfigurationError("configuration: " + "\n               ".join(dict.fromkeys(lines))) from None


def _explain(problem: Any) -> str:
    # pydantic also names the branch of a union (date, float): not a key.
    path = [part for part in problem["loc"] if not str(part).startswith(("date", "constrained-", "float"))]
    key = ".".join(map(str, path))
    if problem["type"] == "extra_forbidden":
        return f"{key}: unknown key; allowed here: {', '.join(_fields_at(path[:-1]))}"
    if problem["type"] == "missing":
        return f"{key}: is missing"
    message = problem["msg"].removeprefix("Value error, ")
    if not key:  # a check across sections: its message opens with the key
        return message
    shown = "" if problem["type"] == "value_error" else f" (got {problem['input']!r})"
    return f"{key}: {message}{shown}"


def _fields_at(path: list[Any]) -> list[str]:
    """The keys that the section at `path` knows."""
    section: Any = Experiment
    for part in path:
        field = section.model_fields.get(part)
        candidates = [field.annotation, *get_args(field.annotation)] if field else []
        section = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)
        if section is None:
            return []
    return sorted(section.model_fields)
