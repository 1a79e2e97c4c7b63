# SPDX-License-Identifier: Apache-2.0
"""Choices of tuned kernels come along, or are asked of the disk before they are measured."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from isohypse.kernels import tuning


@dataclasses.dataclass(unsafe_hash=True)
class Config:
    """As Triton's: equal if block and hook are."""

    block: int
    pre_hook: Callable | None = None
    num_warps = 4
    num_ctas = 1
    num_stages = 2
    maxnreg = ir_override = None

    @property
    def kwargs(self) -> dict:
        return {"BLOCK": self.block}


def kernel():
    """What a tuner tunes."""


class Tuner:
    """The part of Triton's `Autotuner` that keeps choices: `disk` outlives the process."""

    fn = base_fn = staticmethod(kernel)

    def __init__(self, disk: dict, blocks: tuple[int, ...]):
        self.disk, self.cache, self.cleared = disk, {}, []
        self.configs = [Config(block, self.cleared.append) for block in blocks]
        self.measured = 0
        self.configs_timings = {}

    def check_disk_cache(self, key, configs, benchmark) -> bool:
        if any(config.pre_hook for config in configs):
            benchmark()
            return False
        if key in self.disk:
            self.cache[key] = Config(self.disk[key])
            return True
        benchmark()
        self.disk[key] = min((s, c.block) for c, s in self.configs_timings.items() if not c.pre_hook)[1]
        return False

    def choose(self, key) -> Config:
        def benchmark() -> None:
            self.measured += 1
            self.configs_timings = {c: abs(c.block - 64) for c in self.configs}
            self.cache[key] = min(self.configs_timings, key=self.configs_timings.get)

        self.check_disk_cache(key, self.configs, benchmark)
        return self.cache[key]


def test_a_second_process_measures_nothing_and_still_clears():
    disk = {}
    for measurements in (1, 0):
        tuner = Tuner(disk, (32, 64, 128))
        tuning.keep_hooked([SimpleNamespace(kernel=tuner, other=1), SimpleNamespace(same=tuner)])
        choice = tuner.choose(("key", 8))
        assert (choice.block, tuner.measured) == (64, measurements)
        choice.pre_hook("output")
        assert tuner.cleared == ["output"]


def choice(block: int, key: list) -> dict:
    launch = {"num_warps": 4, "num_ctas": 1, "num_stages": 2, "maxnreg": None, "ir_override": None}
    return {"key": key, "config": {"kwargs": {"BLOCK": block}, **launch}}


def test_choices_that_come_along_are_taken_with_their_hooks():
    """Also by a kernel within another wrapper. What it chose itself stays; what it does not have is left."""
    tuner = Tuner({}, (32, 64, 128))
    tuner.cache[(8, "own")] = own = tuner.configs[0]
    choices = {"kernel": [choice(128, [8, "float32"]), choice(64, [8, "own"]), choice(7, [9, "float32"])]}
    tuning.give(choices, [SimpleNamespace(kernel=SimpleNamespace(fn=tuner), type=Tuner, other=1)])
    assert tuner.cache == {(8, "own"): own, (8, "float32"): tuner.configs[2]}
    tuner.cache[8, "float32"].pre_hook("output")
    assert tuner.cleared == ["output"]


def test_choices_in_a_cache_are_collected(tmp_path):
    """The fastest of each key; what the file has already stays."""
    file = tmp_path / "tuned.json"
    file.write_text(json.dumps({"kernel": [choice(32, [8])]}))
    for number, (key, seconds) in enumerate([([8], (1.0, 2.0)), ([16], (2.0, 1.0)), ([16], (1.0, 2.0))]):
        rows = [
            [choice(block, key)["config"] | {"pre_hook": None}, [s]] for block, s in zip((64, 128), seconds)
        ]
        path = tmp_path / "cache" / str(number) / "kernel.autotune.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"key": key, "configs_timings": rows}))
    tuning.collect(tmp_path / "cache", file)
    assert json.loads(file.read_text()) == {"kernel": [choice(32, [8]), choice(128, [16])]}


def test_what_comes_along_is_complete():
    """Every choice names its sizes and a whole configuration, and no sizes are there twice."""
    for name, choices in json.loads(tuning.TUNED.read_text()).items():
        keys = [tuple(choice["key"]) for choice in choices]
        assert len(set(keys)) == len(keys) > 0, name
        assert all({"kwargs", *tuning.LAUNCH} == choice["config"].keys() for choice in choices), name


@pytest.mark.parametrize(
    ("capability", "triton", "taken"),
    [((9, 0), "3.6.0", True), ((8, 0), "3.6.0", False), ((9, 0), "3.7.0", False), (None, "3.6.0", False)],
)
def test_choices_are_for_one_gpu_and_one_version(monkeypatch, capability, triton, taken):
    cuda = tuning.torch.cuda
    monkeypatch.setattr(cuda, "is_available", lambda: capability is not None)
    monkeypatch.setattr(cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(tuning, "version", {"triton": triton, "fla-core": "0.6.0"}.__getitem__)
    monkeypatch.setattr(tuning, "_tuned", lambda: {"kernel": [choice(64, [8])]})
    tuner = Tuner({}, (32, 64))
    monkeypatch.setitem(sys.modules, "library", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "library.ops", SimpleNamespace(kernel=tuner))
    tuning.pin("library", "fla-core")
    assert bool(tuner.cache) == taken


def test_what_the_user_has_set_stands(monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_AUTOTUNING", "0")
    monkeypatch.delenv("FLA_CACHE_RESULTS", raising=False)
    tuning.keep_by_default()
    assert (os.environ["TRITON_CACHE_AUTOTUNING"], os.environ["FLA_CACHE_RESULTS"]) == ("0", "1")


@pytest.mark.gpu
def test_a_second_process_starts_in_seconds(tmp_path):
    """A kernel of FLA, of sizes that no choice comes along for: tuned, then found in the cache."""
    pytest.importorskip("fla")
    source = (
        "import time, torch; from isohypse.kernels.external import load; load('gla', 'cuda');"
        "from fla.ops.utils import chunk_local_cumsum as kernel; g = torch.randn(1, 256, 2, 80).cuda();"
        "start = time.time(); kernel(g, 64); torch.cuda.synchronize(); print(time.time() - start)"
    )
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    first, second = (
        float(subprocess.check_output([sys.executable, "-c", source], env=environment, text=True).split()[-1])
        for _ in range(2)
    )
    assert second < min(15, first / 2)
