# SPDX-License-Identifier: Apache-2.0
"""Let what Triton's tuning finds out serve every process that comes later, which then starts in seconds.

Tuning compiles and times up to a hundred configurations a kernel: minutes. For Hopper GPUs (H100, H200) the
choices for the models of this project come along (`tuned_on_hopper.json`, made on H200s). `pin` gives them to
a library's kernels: for the versions that they were made with, where a kernel is called with these sizes.

What is tuned all the same is kept. flash-linear-attention keeps its choices in Triton's cache
(`TRITON_CACHE_DIR`, by default ~/.triton/cache) unless `FLA_CACHE_RESULTS` says otherwise; mamba-ssm does so
only if `TRITON_CACHE_AUTOTUNING` is set, and never for kernels whose configurations have a hook that clears
their outputs, because Triton (3.6) cannot write hooks down. It need not: the configurations of a kernel are
in its source, and one without its hook is enough to find it there.

`python -m isohypse.kernels.tuning CACHE FILE` adds the choices in a Triton cache to such a file.
"""

import copy
import functools
import json
import os
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

TUNED = Path(__file__).parent / "tuned_on_hopper.json"
"""Kernel -> [{key: sizes and types of its arguments, config: ...}]."""
HOPPER = (9, 0)
MADE_WITH = {"triton": "3.6.", "fla-core": "0.6.0", "mamba-ssm": "2.3.2"}
"""How the versions begin with which the choices were made: other ones have other kernels."""
LAUNCH = ("num_warps", "num_ctas", "num_stages", "maxnreg", "ir_override")
"""Of a configuration, beside the arguments of the kernel."""
Choices = dict[str, list[dict[str, Any]]]


def keep_by_default() -> None:
    """Must come before the import of a library with tuned kernels; what the user has set stands."""
    os.environ.setdefault("TRITON_CACHE_AUTOTUNING", "1")
    os.environ.setdefault("FLA_CACHE_RESULTS", "1")


def pin(package: str, distribution: str) -> None:
    """Give the choices that come along to the kernels of a package that has been imported.

    Nothing is done on another GPU, or with other versions.
    """
    if _for_this_machine(distribution):
        modules = [module for name, module in list(sys.modules.items()) if name.split(".")[0] == package]
        give(_tuned(), modules)


def give(choices: Choices, modules: Iterable[ModuleType]) -> None:
    """A choice that a kernel does not have, or has made itself, is passed over."""
    for kernel in _tuners(modules):
        configs = [(_described(config), config) for config in kernel.configs]
        for choice in choices.get(kernel.base_fn.__name__, ()):
            found = next((config for described, config in configs if described == choice["config"]), None)
            if found is not None:
                kernel.cache.setdefault(tuple(choice["key"]), found)


def _for_this_machine(distribution: str) -> bool:
    if not torch.cuda.is_available() or torch.cuda.get_device_capability() != HOPPER:
        return False
    try:
        return all(version(name).startswith(MADE_WITH[name]) for name in ("triton", distribution))
    except PackageNotFoundError:
        return False


@functools.cache
def _tuned() -> Choices:
    return json.loads(TUNED.read_text())


def _described(config: Any) -> dict[str, Any]:
    return {"kwargs": config.kwargs, **{name: getattr(config, name) for name in LAUNCH}}


def collect(cache: Path, file: Path) -> None:
    """Add the choices in a Triton cache to those in `file`, which stay; of several for one key the first."""
    choices: Choices = json.loads(file.read_text()) if file.exists() else {}
    for path in sorted(cache.glob("*/*.autotune.json")):
        found = json.loads(path.read_text())
        known = choices.setdefault(path.name.removesuffix(".autotune.json"), [])
        if all(choice["key"] != found["key"] for choice in known):
            fastest, _ = min(found["configs_timings"], key=lambda pair: pair[1])
            config = {"kwargs": fastest["kwargs"], **{name: fastest.get(name) for name in LAUNCH}}
            known.append({"key": found["key"], "config": config})
    file.write_text(_written(choices))


def _written(choices: Choices) -> str:
    """A line a choice."""
    kernels = []
    for kernel in sorted(choices):
        lines = ",\n".join(json.dumps(choice, sort_keys=True) for choice in choices[kernel])
        kernels.append(f"{json.dumps(kernel)}: [\n{lines}\n]")
    return "{\n" + ",\n".join(kernels) + "\n}\n"


def keep_hooked(modules: Iterable[ModuleType]) -> None:
    """Keep the choices of those kernels in `modules` whose configurations have hooks."""
    for kernel in _tuners(modules):
        if any(config.pre_hook for config in kernel.configs):
            kernel.check_disk_cache = _with_hooks(kernel, kernel.check_disk_cache)


def _tuners(modules: Iterable[ModuleType]) -> list[Any]:
    """Triton's `Autotuner`s in modules, each once; also those inside other wrappers of a kernel."""
    found = {}
    for value in (value for module in modules for value in vars(module).values()):
        while not isinstance(value, type) and hasattr(value, "fn"):
            if hasattr(value, "check_disk_cache"):
                found[id(value)] = value
            value = value.fn
    return list(found.values())


def _with_hooks(tuner: Any, check: Callable[..., bool]) -> Callable[..., bool]:
    """`check`, Triton's `Autotuner.check_disk_cache`, on configurations without hooks."""

    def check_disk_cache(key: tuple, configs: list, benchmark: Callable[[], None]) -> bool:
        def timed() -> None:
            benchmark()
            tuner.configs_timings = {_plain(c): seconds for c, seconds in tuner.configs_timings.items()}

        known = check(key, [_plain(c) for c in configs], timed)
        choice = _plain(tuner.cache[key])
        tuner.cache[key] = next(c for c in configs if _plain(c) == choice)
        return known

    return check_disk_cache


def _plain(config: Any) -> Any:
    config = copy.copy(config)
    config.pre_hook = None
    return config


if __name__ == "__main__":
    collect(*map(Path, sys.argv[1:]))
