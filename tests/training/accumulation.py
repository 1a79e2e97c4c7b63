# SPDX-License-Identifier: Apache-2.0
"""The work of a GPU's captured step without its graph, on CPUs: one process of several trains every case.

`python accumulation.py FILE`: rank 0 writes losses, gradient norms and weights' norms of each case, as JSON.
Needs TRITON_INTERPRET=1.
"""

import json
import runpy
import sys
from pathlib import Path

import torch

from isohypse.config.sections import Execution, Training
from isohypse.models.registry import build
from isohypse.training import captured
from isohypse.training.optimizer import schedule
from isohypse.training.parallel import share, share_of
from isohypse.training.ranks import Ranks, joined, ranks_of
from isohypse.training.step import Step

WINDOWS, STEPS = 4, 2
CASES = {  # precision, windows of a pass of one of two ranks, recomputed
    "bf16": ("bf16", 1, False),
    "fp32": ("fp32", 1, False),
    "fp32-recomputed": ("fp32", 1, True),
}
CPU = torch.device("cpu")
SIZES = {"t_in": 2, "t_out": 1, "levels": 1, "latitude": 3, "longitude": 4}
TRAINING = Training(
    steps=STEPS, batch_size=WINDOWS, learning_rate=3e-3, warmup_steps=1, final_learning_rate_fraction=0.1,
    beta1=0.9, beta2=0.95, epsilon=1e-8, weight_decay=0.1, clip_norm=1.0, head_bias="zero",
)  # fmt: skip


class ShareOfBatches:
    """Another batch every step, of which this process takes `part`."""

    def __init__(self, part: slice):
        self.part, self.step = part, 0

    def load(self, step: int) -> None:
        self.step = step

    def gather(self) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(self.step)
        x = torch.randn(WINDOWS, 2, 1, 3, 4, generator=generator)[self.part]
        return x, x.mean(1, keepdim=True)


class Ungraphed(captured.CapturedStep):
    """`advance` does what the graph would replay."""

    advance, _backward_pass = Step.advance, Step._backward_pass  # no second stream either

    def _compute(self) -> None:
        if self.copy is not None and not self.counter:
            self.copy.refresh()
        super()._compute()


def trained(precision: str, micro: int | None, recompute: bool, ranks: Ranks) -> dict:
    execution = Execution(device="cpu", micro_batch=micro)
    torch.manual_seed(0)
    network = build("deltanet", "debug", **SIZES)
    torch.nn.init.normal_(network.head.weight, std=0.1)  # it starts at zero: nothing would reach the layers
    parallel = share(network, execution, ranks, precision)
    batches = ShareOfBatches(share_of(WINDOWS, execution, ranks))
    rates, kernels = schedule(TRAINING, CPU), {"deltanet": "closed"}
    step = Ungraphed(
        network, TRAINING, batches, rates, precision, STEPS, kernels, parallel, micro, recompute
    )  # fmt: skip
    for number in range(STEPS):
        step.advance(number)
    norms = {name: p.detach().double().norm().item() for name, p in network.named_parameters()}
    return {"history": step.recent(STEPS, STEPS).tolist(), "weights": norms, "kernels": step.kernels}


def train_all(ranks: Ranks) -> dict[str, dict]:
    captured.compile_blocks = lambda *_: None
    return {name: trained(*case, ranks) for name, case in CASES.items()}


if __name__ == "__main__":
    runpy.run_path(str(Path(__file__).parents[1] / "conftest.py"))  # Triton's interpreter
    torch.set_num_threads(1)
    with joined(ranks_of(), "cpu") as mine:
        found = train_all(mine)
    if mine.main:
        Path(sys.argv[1]).write_text(json.dumps(found))
