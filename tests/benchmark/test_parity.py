# SPDX-License-Identifier: Apache-2.0
"""`benchmark parity` where there is no GPU: errors are errors, and what cannot run says so."""

import copy
import dataclasses
from importlib.util import find_spec

import pytest
import torch

from isohypse.benchmark import mixers, parity
from isohypse.benchmark.parity import COLUMNS, Comparison, compare, table
from isohypse.cli import main
from isohypse.errors import ConfigurationError
from isohypse.models import catalogue
from isohypse.storage import read_json

CPU = torch.device("cpu")
torch.set_num_threads(1)


class Library(torch.nn.Module):
    """Stands for the library's layer: our mixer, called as the library's are. `wrong`: is added to it."""

    def __init__(self, mixer, wrong):
        super().__init__()
        self.mixer, self.wrong = mixer, wrong

    def named_parameters(self, *args, **kwargs):
        return self.mixer.named_parameters(*args, **kwargs)

    def load_state_dict(self, state):
        return self.mixer.load_state_dict(state)

    def forward(self, hidden_states):
        return self.mixer(hidden_states, self.mixer.plan(hidden_states)) + self.wrong, None, None


@pytest.fixture
def library(monkeypatch):
    """Call it with what the peer does wrong."""

    def install(wrong=0.0):
        def build(model, flavour):
            mixer = copy.deepcopy(mixers.one_layer(model, flavour, CPU).backbone.mixers[0])
            with torch.no_grad():
                for parameter in mixer.parameters():
                    parameter.zero_()  # ours must be loaded
            return Library(mixer, wrong), "as it is"

        monkeypatch.setattr(parity, "build_peer_mixer", build)

    return install


@pytest.mark.parametrize("model", catalogue.MODELS)
def test_float32_is_near_float64_and_bf16_as_near_as_bf16_is(model):
    """Closed and chunkwise forms against the definition, and against float64."""
    rows = list(compare(dataclasses.asdict(Comparison(model, "debug", (3, 70), ("bf16", "fp32"), "cpu"))))
    assert [(row["frames"], row["precision"]) for row in rows] == [
        (frames, precision) for frames in (3, 70) for precision in ("bf16", "fp32")
    ]
    names = {"x", *dict(mixers.one_layer(model, "debug", CPU).backbone.mixers[0].named_parameters())}
    for row in rows:
        found = row["ours_to_float64"]
        scale = 2**-9 if row["precision"] == "bf16" else 2**-24
        assert 0 < found["output"] < 40 * scale
        assert 0 < found["gradient"] < 400 * scale
        assert found["worst"] in names


def test_a_peer_that_computes_the_same_differs_by_nothing(library):
    library()
    (row,) = compare(dataclasses.asdict(Comparison("kda", "debug", (5,), ("fp32",), "cpu")))
    assert row["ours_to_peer"]["output"] == row["ours_to_peer"]["gradient"] == 0
    assert row["peer_to_float64"] == row["ours_to_float64"]
    assert row["peer"] == "as it is"


def test_a_peer_that_is_wrong_is_found_out(library):
    library(wrong=1.0)
    (row,) = compare(dataclasses.asdict(Comparison("kda", "debug", (5,), ("fp32",), "cpu")))
    assert row["ours_to_peer"]["output"] > 0.1
    assert row["peer_to_float64"]["output"] > 0.1 > row["ours_to_float64"]["output"]


def test_a_peer_that_refuses_says_why_in_its_cells_alone(library):
    library(wrong=torch.ones(7))
    (row,) = compare(dataclasses.asdict(Comparison("gla", "debug", (5,), ("fp32",), "cpu")))
    reason = row["ours_to_peer"]["cannot_run"]
    assert reason.startswith("RuntimeError: The size of tensor")
    assert row["peer_to_float64"] == {"cannot_run": reason}
    assert row["ours_to_float64"]["output"] < 1e-5
    assert f"| cannot run: {reason} | cannot run: {reason} |" in table(
        [row | {"label": "GLA", "flavour": "x"}]
    )


def test_numbers_that_are_not_finite_are_no_small_error():
    one = {"output": torch.ones(2), "x": torch.ones(2), "A_log": torch.tensor([2.0])}
    bad = one | {"A_log": torch.tensor([torch.nan])}
    assert mixers.difference(bad, one) == (0.0, torch.inf, "A_log")
    assert mixers.difference(one | {"x": torch.tensor([1.0, 0.75])}, one) == (0.0, 0.25, "x")


@pytest.mark.skipif(find_spec("triton") is None, reason="needs Triton")
@pytest.mark.parametrize("model", ["transformer", "kda", "mamba2"])
def test_a_captured_step_gives_every_gradient(model, monkeypatch):
    sizes = {"kda": {"head_dim": 32}, "mamba2": {"head_dim": 16, "state_size": 32}}.get(model, {})
    sizes = dataclasses.replace(catalogue.flavour_of(model, "debug"), d_model=64, **sizes)
    monkeypatch.setitem(catalogue.MODELS[model].flavours, "debug", sizes)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")  # there in Triton's interpreter
    network = mixers.one_layer(model, "debug", device)
    case = mixers.Case(*(torch.randn(2, 3, 64, device=device) for _ in range(2)))
    found = mixers.captured(network, case, "fp32")
    exact = mixers.exact(network.backbone.mixers[0], case)
    assert found.keys() == exact.keys()
    assert max(mixers.difference(found, exact)[:2]) < 1e-4
    assert all(parameter.grad is None for parameter in network.parameters())


def test_the_command_writes_rows_and_prints_a_table(tmp_path, capsys):
    path = tmp_path / "parity.json"
    arguments = ["--flavour", "debug", "--device", "cpu", "--lengths", "3", "--precisions", "fp32"]
    assert (
        main(["benchmark", "parity", "--models", "gla", "deltanet", *arguments, "--output", str(path)]) == 0
    )
    rows = read_json(path)["rows"]
    assert [row["label"] for row in rows] == ["GLA", "DeltaNet"]
    header, _, *lines = capsys.readouterr().out.splitlines()
    assert header == f"| {' | '.join(COLUMNS)} |"
    assert lines[0].startswith("| GLA (debug) | 3 | closed | fp32 |")


def test_a_model_whose_process_is_stopped_has_a_row_that_says_so(tmp_path):
    what = ("debug", (3,), ("fp32",), "cpu")
    text = parity.benchmark_parity([Comparison("gla", *what)], tmp_path / "x.json", limit_seconds=0.2)
    assert "| GLA (debug) |  | cannot run: stopped after 0 s |" in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "lstm"}, "unknown model 'lstm'"),
        ({"precisions": ("fp16",)}, "no precision 'fp16'"),
        ({"lengths": (8, 0)}, "lengths must be at least 1"),
        ({"lengths": ()}, "lengths must be at least 1"),
    ],
)
def test_what_cannot_be_compared_is_refused(change, message):
    what = {"model": "gla", "flavour": "debug", "lengths": (8,), "precisions": ("bf16",)} | change
    with pytest.raises(ConfigurationError, match=message):
        Comparison(**what)
