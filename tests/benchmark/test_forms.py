# SPDX-License-Identifier: Apache-2.0
"""Forms are timed on what mixers really give them, and compared before they are believed."""

from dataclasses import replace

import pytest
import torch

from isohypse.benchmark import forms
from isohypse.cli import main
from isohypse.models import catalogue
from isohypse.storage import read_json


@pytest.mark.parametrize("model", catalogue.MODELS)
def test_forms_that_are_timed_compute_the_same(model):
    torch.set_num_threads(1)
    row = forms.measure(model, "debug", batch_size=2, frames=5, rounds=2)
    others = ["sdpa"] if model == "transformer" else ["chunkwise", "recurrent"]
    assert list(row["seconds"]) == ["closed", *others]
    assert all(difference < 2e-6 for difference in row["difference"].values())
    assert all(0 < s["min"] <= s["median"] <= s["max"] for s in row["seconds"].values())


def test_arguments_are_those_of_the_flavours_mixer():
    sizes = catalogue.flavour_of("kda", "paper")
    mixer = forms._mixer("kda", replace(sizes, layers=1))
    shapes = [tuple(a.shape) for a in forms.arguments_of(mixer, torch.randn(1, 3, sizes.d_model))]
    assert shapes == [(1, 3, 6, 256), (1, 3, 6, 256), (1, 3, 6, 512), (1, 3, 6, 256), (1, 3, 6)]


def test_the_command_writes_a_record_and_prints_a_table(tmp_path, capsys):
    path = tmp_path / "forms.json"
    small = ["--flavour", "debug", "--batch", "2", "--frames", "65", "--rounds", "1"]
    assert main(["benchmark", "forms", "--models", "gla", *small, "--output", str(path)]) == 0
    record = read_json(path)
    assert list(record["models"][0]["seconds"]) == ["chunkwise", "recurrent"]  # 65 frames: no closed form
    printed = capsys.readouterr().out
    assert printed.splitlines()[0].endswith("median (least-greatest)")
    assert printed.count("| GLA (debug) |") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models", "lstm"], "unknown model 'lstm'"),
        (["--batch", "0"], "batch, frames and rounds must be at least 1"),
    ],
)
def test_what_cannot_be_measured_is_refused(tmp_path, capsys, arguments, message):
    assert main(["benchmark", "forms", *arguments, "--output", str(tmp_path / "x.json")]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
