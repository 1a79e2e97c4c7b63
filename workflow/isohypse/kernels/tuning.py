# SPDX-License-Identifier: Apache-2.0
"""Let what Triton's tuning finds out in one process serve the next, which then starts in seconds.

Tuning compiles and times up to a hundred configurations a kernel. flash-linear-attention keeps its choices in
Triton's cache (`TRITON_CACHE_DIR`, by default ~/.triton/cache) unless `FLA_CACHE_RESULTS` says otherwise;
mamba-ssm does so only if `TRITON_CACHE_AUTOTUNING` is set, and never for kernels whose configurations have a
hook that clears their outputs, because Triton (3.6) cannot write hooks down. It need not: the configurations
of a kernel are in its source, and one without its hook is enough to find it there.
"""

import copy
import os
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any


def keep_by_default() -> None:
    """Must come before the import of a library with tuned kernels; what the user has set stands."""
    os.environ.setdefault("TRITON_CACHE_AUTOTUNING", "1")
    os.environ.setdefault("FLA_CACHE_RESULTS", "1")


def keep_hooked(modules: Iterable[ModuleType]) -> None:
    """Keep the choices of those kernels in `modules` whose configurations have hooks."""
    kernels = {id(value): value for module in modules for value in vars(module).values()}
    for kernel in kernels.values():
        if hasattr(kernel, "check_disk_cache") and any(c.pre_hook for c in kernel.configs):
            kernel.check_disk_cache = _with_hooks(kernel, kernel.check_disk_cache)


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
