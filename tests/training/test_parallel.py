# SPDX-License-Identifier: Apache-2.0
"""Several processes train what one does, to rounding: replicated, sharded, tensor-parallel."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from isohypse.config.sections import Execution
from isohypse.errors import ConfigurationError
from isohypse.models.catalogue import MODELS
from isohypse.models.registry import build
from isohypse.training.log import read_metrics
from isohypse.training.parallel import share_of
from isohypse.training.ranks import Ranks, ranks_of
from isohypse.training.reduction import by_dtype
from isohypse.training.tensor_parallel import MIXERS, check_degree, valid_degrees

from .conftest import CPU, TIMED, Kill

RECOMPUTED = {"activation_checkpointing": True}
BATCH = {"batch_size": 12, "steps": 8}
BASE = {"device": "cpu", "checkpoint_every": 5, "tensorboard": False}
TENSOR = {f"tensor-{model}": model for model in MODELS}
JOBS = {
    "2-ranks": {
        "replicate": ("transformer", {}),
        "micro": ("transformer", {"micro_batch": 2} | RECOMPUTED),
        "fsdp": ("kda", {"parallel": "fsdp"}),
        "fsdp-micro": ("transformer", {"parallel": "fsdp", "micro_batch": 3} | RECOMPUTED),
        "resumed": ("transformer", {}),
        "refused": ("transformer", {"parallel": "hsdp"}),
        **{job: (model, {"tensor_parallel": 2}) for job, model in TENSOR.items()},
    },
    "4-ranks": {
        "replicate": ("transformer", {}),
        "hsdp": ("transformer", {"parallel": "hsdp"}),
        "both": ("gla", {"tensor_parallel": 2}),
        "tensor-mamba2": ("mamba2", {"tensor_parallel": 4}),
    },
    "4-ranks-all-mixers": {job: (model, {"tensor_parallel": 4}) for job, model in TENSOR.items()},
}
WORLDS = ["2-ranks", "4-ranks", pytest.param("4-ranks-all-mixers", marks=pytest.mark.slow)]


class World:
    """The results of the jobs of a number of processes, under `root`."""

    def __init__(self, root: Path, study, name: str):
        self.root, self.study, self.size = root, study, int(name[0])
        self.jobs = JOBS[name]

    def settings(self, job: str):
        return self.study.settings(model=self.jobs[job][0], **BATCH)

    def weights(self, job: str) -> dict[str, torch.Tensor]:
        return load_file(self.root / job / "run" / "weights.safetensors")

    def losses(self, job: str) -> dict:
        return losses(self.root / job / "run")

    def run(self) -> None:
        entries, stores = [], [meeting() for _ in self.jobs]
        for (job, (_, execution)), store in zip(self.jobs.items(), stores):
            settings = self.settings(job)
            entries.append(
                {
                    "settings": settings.to_json(),
                    "execution": BASE | execution,
                    "stores": [str(store) for store in self.study.stores],
                    "statistics": str(self.study.statistics(settings.run.task)),
                    "destination": str(self.root / job / "run"),
                    "port": store.port,
                }
            )
        file = self.root / "jobs.json"
        file.write_text(json.dumps(entries))
        processes = [self.start(rank, file) for rank in range(self.size)]
        errors = [process.communicate(timeout=240)[1] for process in processes]
        assert not any(process.returncode for process in processes), "\n".join(errors)[-6000:]

    def start(self, rank: int, file: Path) -> subprocess.Popen:
        local = {"LOCAL_RANK": rank % 2, "LOCAL_WORLD_SIZE": 2}  # as on machines of two devices
        told = {"RANK": rank, "WORLD_SIZE": self.size, "MASTER_ADDR": "127.0.0.1", **local}
        environment = os.environ | {name: str(value) for name, value in told.items()}
        environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, str(Path(__file__).with_name("rank.py")), str(file)]
        return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def meeting() -> dist.TCPStore:
    """Where ranks meet, for as long as it is kept."""
    return dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


def losses(folder: Path) -> dict:
    rows = read_metrics(folder / "metrics.csv")
    return {row[:3]: row[3] for row in rows if row[2] != TIMED}


@pytest.fixture(scope="session", params=WORLDS)
def world(request, study, alone, tmp_path_factory) -> World:
    made = World(tmp_path_factory.mktemp(request.param), study, request.param)
    if "resumed" in made.jobs:  # begun by one process, gone on with by several
        shutil.copytree(alone.interrupted, made.root / "resumed" / "work")
    made.run()
    return made


class Alone:
    """The same trainings by one process, made when asked for."""

    def __init__(self, folders, patch):
        self.folders, self.made = folders, {}
        begun = folders("interrupted", **BATCH)
        with pytest.raises(Kill):
            begun.train_until(6, Kill(), patch)
        self.interrupted = begun.work

    def of(self, model: str):
        if model not in self.made:
            self.made[model] = self.folders(model, model=model, **BATCH)
            self.made[model].train()
        return self.made[model]


@pytest.fixture(scope="session")
def alone(study, tmp_path_factory) -> Alone:
    from .conftest import Folders

    root = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        return Alone(lambda name, **changes: Folders(root / name, study, study.settings(**changes)), patch)


@pytest.mark.parametrize("job", [*JOBS["2-ranks"], "hsdp", "both"])
def test_several_processes_train_what_one_does(world, alone, job):
    if job not in world.jobs or job == "refused":
        pytest.skip("for another number of ranks")
    single = alone.of(world.jobs[job][0])
    expected, found = losses(single.destination), world.losses(job)
    assert found.keys() == expected.keys(), "the log is written once"
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-6)
    weights = world.weights(job)
    for name, wanted in single.weights().items():
        torch.testing.assert_close(weights[name], wanted, rtol=1e-4, atol=1e-5, msg=name)


def test_what_cannot_be_is_refused_by_every_rank(world):
    if "refused" in world.jobs:
        assert "use fsdp" in (world.root / "refused" / "error").read_text()


@pytest.mark.parametrize("model", MODELS)
def test_every_parameter_of_a_mixer_has_its_place_in_the_table(model):
    network = build(model, "debug", t_in=4, t_out=1, levels=1, latitude=3, longitude=4)
    mixer = network.backbone.mixers[0]
    named = {name.rsplit(".", 1)[0] if "." in name else name for name, _ in mixer.named_parameters()}
    assert named - {"o_proj", "out_proj"} == set(MIXERS[mixer.recurrence])


def test_degrees_divide_heads_then_value_channels():
    assert valid_degrees(4, 256, 2816)[:5] == [1, 2, 4, 8, 16]
    assert valid_degrees(6, 256, 2816)[:4] == [1, 2, 4, 8]  # 3 and 6 do not divide the MLP
    assert 3 in valid_degrees(6, 256, None)
    network = build("gla", "debug", t_in=4, t_out=1, levels=1, latitude=3, longitude=4)
    with pytest.raises(ConfigurationError, match=r"3 does not divide .* 2 heads .*: 1, 2, 4, 8, 16"):
        check_degree(network, 3)


def test_reductions_are_of_one_dtype_and_in_the_same_order_on_all_ranks():
    gradients = [torch.zeros(n, dtype=d) for n, d in enumerate([torch.bfloat16, torch.float32] * 3)]
    assert [[len(g) for g in alike] for alike in by_dtype(gradients)] == [[0, 2, 4], [1, 3, 5]]
    assert [alike[0].dtype for alike in by_dtype(gradients[1:])] == [torch.float32, torch.bfloat16]


def test_the_batch_is_shared_evenly_and_whole():
    shares = [share_of(12, CPU, Ranks(rank, 4, rank, 4)) for rank in range(4)]
    assert [index for share in shares for index in range(12)[share]] == list(range(12))
    pairs = [share_of(12, Execution(tensor_parallel=2), Ranks(rank, 4, rank, 4)) for rank in range(4)]
    assert pairs[0] == pairs[1] != pairs[2] == pairs[3]
    with pytest.raises(ConfigurationError, match="12 windows cannot be shared evenly by 5"):
        share_of(12, CPU, Ranks(0, 5, 0, 5))
    with pytest.raises(ConfigurationError, match="micro_batch: 4 does not divide the 6"):
        share_of(12, Execution(micro_batch=4), Ranks(0, 2, 0, 2))


def test_launchers_are_understood():
    torchrun = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    assert ranks_of(torchrun) == Ranks(3, 8, 1, 2)
    pals = {"PMI_RANK": "5", "PMI_SIZE": "8", "PALS_LOCAL_RANKID": "1", "PALS_LOCAL_SIZE": "4"}
    assert ranks_of(pals) == Ranks(5, 8, 1, 4)
    hydra = {"PMI_RANK": "1", "PMI_SIZE": "2", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2"}
    assert ranks_of(hydra) == Ranks(1, 2, 1, 2)
    open_mpi = {f"OMPI_COMM_WORLD_{name}": "2" for name in ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE")}
    assert ranks_of(open_mpi | {"OMPI_COMM_WORLD_SIZE": "4"}) == Ranks(2, 4, 2, 2)
    assert ranks_of({}) == Ranks() == ranks_of({"PMI_RANK": "0", "PMI_SIZE": "1"})
    with pytest.raises(ConfigurationError, match="rank 1 of 2 does not know its device"):
        ranks_of({"RANK": "1", "WORLD_SIZE": "2"})
