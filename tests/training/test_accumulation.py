# SPDX-License-Identifier: Apache-2.0
"""Micro-batches on two ranks train what one rank does with the whole batch, in the step that a GPU captures.

In float32 to rounding. In bf16 the sum over micro-batches is rounded after each, as the mean over ranks is.
"""

import json
import os
import sys

import pytest

pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("needs Triton's interpreter (TRITON_INTERPRET=1)", allow_module_level=True)

from isohypse.launching import start_group
from isohypse.training import captured
from isohypse.training.ranks import Ranks

from . import accumulation
from .accumulation import CASES

TOLERANCE = {"fp32": 1e-5, "bf16": 2e-2}


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> dict[str, dict]:
    file = tmp_path_factory.mktemp("accumulation") / "found.json"
    command = [sys.executable, accumulation.__file__, str(file)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        processes = start_group(command, 2)
    assert [process.wait(200) for process in processes] == [0, 0]
    return json.loads(file.read_text())


@pytest.fixture(scope="module")
def whole() -> dict[str, dict]:
    """One rank, the whole batch in one pass."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(captured, "compile_blocks", lambda *_: None)
        return {precision: accumulation.trained(precision, None, False, Ranks()) for precision in TOLERANCE}


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_and_any_micro_batches_train_what_one_rank_does(pair, whole, case):
    precision = CASES[case][0]
    expected, found, relative = whole[precision], pair[case], TOLERANCE[precision]
    assert (
        found["kernels"] == expected["kernels"] == {"deltanet": "fused" if precision == "bf16" else "closed"}
    )
    losses, norms = zip(*expected["history"])
    assert len(set(losses)) == len(losses)
    assert min(norms) > 0.01
    assert [loss for loss, _ in found["history"]] == pytest.approx(losses, rel=relative)
    assert [norm for _, norm in found["history"]] == pytest.approx(norms, rel=10 * relative)
    assert found["weights"] == pytest.approx(expected["weights"], rel=10 * relative, abs=relative)
