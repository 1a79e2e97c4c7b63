# SPDX-License-Identifier: Apache-2.0
"""What a backward pass leaves aside is there when it ends, and nothing it reads is given away meanwhile."""

import pytest
import torch

from isohypse.kernels.aside import DEPTH, Backward, after_what_was_left, leave

NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def test_without_an_open_backward_pass_it_is_done_at_once():
    out = torch.zeros(3)
    assert leave(lambda found: found.add_(1), out) is out
    assert torch.equal(out, torch.ones(3))
    with after_what_was_left():
        assert Backward.current is None


class Recorder(Backward):
    """Its pieces of work, without a device."""

    def __init__(self):
        self.left = []

    def start(self, work, out, inputs):
        self.left.append((work, out, inputs))


def test_an_open_one_gets_the_work_and_what_it_reads(monkeypatch):
    recorder, x, out = Recorder(), torch.ones(2), torch.zeros(2)
    monkeypatch.setattr(Backward, "current", recorder)
    assert leave(lambda found: torch.add(x, 1, out=found), out, x) is out
    assert not out.any(), "done before anyone asked"
    [(work, target, inputs)] = recorder.left
    assert target is out
    assert inputs == (x,)
    work(out)
    assert torch.equal(out, torch.full((2,), 2.0))


def failing(backward):
    with backward.open():
        assert Backward.current is backward
        raise ValueError("of its own")


def test_it_is_closed_when_a_backward_pass_fails():
    with pytest.raises(ValueError, match="of its own"):
        failing(Backward(torch.device("cpu")))
    assert Backward.current is None


def products(weights, x):
    """Sums of products whose inputs are let go of at once, so that their memory is asked for again."""
    found = []
    for weight in weights:
        x = (x @ weight).tanh()
        found.append(leave(lambda out, x=x: torch.mm(x.t(), x, out=out), torch.empty_like(weight), x))
    return found


@pytest.mark.gpu
@NEEDS_GPU
@pytest.mark.parametrize("graph", [False, True])
def test_the_second_stream_gives_the_same_numbers(graph):
    torch.manual_seed(0)
    weights = torch.randn(4 * DEPTH, 512, 512, device="cuda").div_(20).unbind()
    x = torch.randn(2048, 512, device="cuda")
    expected = products(weights, x)
    backward = Backward(x.device)
    with backward.open():
        found = products(weights, x)
    if graph:
        recorded = torch.cuda.CUDAGraph()
        with torch.cuda.graph(recorded), backward.open():
            found = products(weights, x)
        recorded.replay()
    assert not backward.held
    for one, other in zip(found, expected):
        assert torch.equal(one, other)


@pytest.mark.gpu
@NEEDS_GPU
def test_a_capture_without_work_for_it_does_not_wait_for_it():
    x, backward = torch.ones(4, device="cuda"), Backward(torch.device("cuda"))
    with backward.open():
        leave(lambda out: out.add_(1), x)  # before, so that the second stream has a past
    recorded = torch.cuda.CUDAGraph()
    with torch.cuda.graph(recorded), backward.open():
        x.mul_(3)
    recorded.replay()
    assert torch.equal(x, torch.full((4,), 6.0, device="cuda"))


@pytest.mark.gpu
@NEEDS_GPU
def test_a_capture_joins_the_stream_where_only_others_started_on_it():
    x, backward = torch.ones(4, device="cuda"), Backward(torch.device("cuda"))
    recorded = torch.cuda.CUDAGraph()
    with torch.cuda.graph(recorded), backward.open(), after_what_was_left():
        x.mul_(3)
    recorded.replay()
    assert torch.equal(x, torch.full((4,), 3.0, device="cuda"))
