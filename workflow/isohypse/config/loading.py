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
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from isohypse.config.experiment import Experiment
from isohypse.errors import ConfigurationError

FALLBACK_PRESET = "demo"
UNION_BRANCHES = ("date", "constrained-", "float")
PLAIN = {
    "missing": "is missing",
    "tuple_type": "a list is needed, such as [a, b]",
    "model_type": "keys and values are needed",
    "model_attributes_type": "keys and values are needed",
    "date_from_datetime_parsing": "a date such as 2001-12-31 is needed",
    "date_from_datetime_inexact": "a date such as 2001-12-31 is needed",
    "date_type": "a date such as 2001-12-31 is needed",
}


def load_experiment(outside: Mapping[str, Any], root: Path | str = ".") -> Experiment:
    """The experiment for what came from `outside`; `root` holds config.yaml and presets/.

    Raises ConfigurationError with one line for each key that is wrong.
    """
    values = deepcopy(dict(outside))
    of_the_profile = values.pop("profile_preset", FALLBACK_PRESET)
    name = str(values.pop("preset", None) or of_the_profile)
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
    """Validate; raises ConfigurationError with a line for each wrong key, saying what is allowed there."""
    try:
        return Experiment.model_validate(values)
    except ValidationError as error:
        raise ConfigurationError("configuration: " + "\n               ".join(_lines(error))) from None


def _lines(error: ValidationError) -> list[str]:
    """One line a key; a key of several types (a date or a fraction) has a message of each."""
    problems = error.errors()
    # A list whose only item is wrong is also reported as too short: one line is enough.
    problems = [problem for problem in problems if problem["type"] != "too_short" or not problem["input"]]
    messages: dict[str, list[str]] = {}
    for problem in problems:
        # pydantic also names the branch of a union (date, float): not a key.
        path = [part for part in problem["loc"] if not str(part).startswith(UNION_BRANCHES)]
        messages.setdefault(".".join(map(str, path)), []).append(_explain(problem, path))
    # A check across sections has no location: its message opens with the key.
    return [
        ": ".join(filter(None, (key, " or ".join(dict.fromkeys(said))))) for key, said in messages.items()
    ]


def _explain(problem: Any, path: list[Any]) -> str:
    """What is wrong with the value at `path`, in the words of someone who edits YAML."""
    kind, given = problem["type"], problem["input"]
    if kind == "extra_forbidden":
        allowed = _fields_at(path[:-1])
        close = get_close_matches(str(path[-1]), allowed, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        return f"unknown key; {hint}allowed here: {', '.join(allowed)}"
    if kind == "value_error":
        return problem["msg"].removeprefix("Value error, ")
    message = PLAIN.get(kind, problem["msg"])
    return message if kind == "missing" else f"{message} (got {given!r})"


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
