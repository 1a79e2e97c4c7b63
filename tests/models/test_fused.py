# SPDX-License-Identifier: Apache-2.0
"""The fused kernels against the models' own files: on a GPU, or in Triton's interpreter."""

import copy
import dataclasses

import pytest
import torch

pytest.importorskip("triton")

from torch._dynamo.testing import CompileCounterWithBackend

from isohypse.kernels.aside import Backward
from isohypse.kernels.fused import gated_mlp, residual
from isohypse.models import catalogue, compiled_mixer
from isohypse.models.backbone import Backbone
from isohypse.models.compiled_mixer import CompiledMixer
from isohypse.models.fused import FusedBackbone, serves
from isohypse.models.network import _initialise
from isohypse.models.projections import join
from isohypse.models.registry import MODELS

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SIZES = {"d_model": 64, "layers": 2, "heads": 2, "head_dim": 32, "gate_rank": 16}
MAMBA2 = {"d_model": 64, "layers": 2, "head_dim": 16, "state_size": 32}


def small(model: str, **others) -> Backbone:
    flavour = catalogue.flavour_of(model, "small")
    names = {field.name for field in dataclasses.fields(flavour)}
    sizes = {k: v for k, v in ((MAMBA2 if model == "mamba2" else SIZES) | others).items() if k in names}
    parts = MODELS[model]
    torch.manual_seed(0)
    backbone = Backbone(parts.mixer, parts.block, dataclasses.replace(flavour, **sizes), "auto")
    backbone.apply(_initialise)
    with torch.no_grad():
        for parameter in backbone.parameters():  # far enough from the start for every part to count
            parameter.add_(torch.randn_like(parameter) * (0.3 if parameter.ndim > 1 else 0.1))
    return backbone.to(DEVICE)


def joined(backbone: Backbone) -> tuple[Backbone, dict[str, list[tuple[str, int]]]]:
    """A copy whose projections are joined, and of what each joined weight consists: (name, rows)."""
    whole, consists = copy.deepcopy(backbone), {}
    names = {module: name for name, module in whole.named_modules()}
    for module in list(whole.modules()):
        if hasattr(module, "shared_input"):
            parts = [(f"{names[p]}.weight", p.out_features) for p in module.shared_input]
            first = module.shared_input[0]
            join(module.shared_input)
            consists[f"{names[first]}.joined"] = parts
    return whole, consists


def gradients(backbone, consists, last: torch.Tensor, weights: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of sum(weights * last) by every parameter of the model's own file."""
    parameters = dict(backbone.named_parameters())
    found = dict(zip(parameters, torch.autograd.grad((last * weights).sum(), parameters.values())))
    for name, parts in consists.items():
        rows = [n for _, n in parts]
        whole = found.pop(name)
        assert not whole[sum(rows) :].any(), "the padding must have no gradient"
        found |= zip((part for part, _ in parts), whole[: sum(rows)].split(rows))
    return found


@pytest.mark.parametrize("frames", [8, 3])
@pytest.mark.parametrize("model", MODELS)
def test_fused_equals_the_definition(model, frames):
    """For samples that do not fill a tile."""
    own = small(model)
    whole, consists = joined(own)
    compare(own, FusedBackbone(whole, frames), consists, frames)


@pytest.mark.parametrize("opaque", [False, True], ids=["whole", "recomputed"])
@pytest.mark.parametrize("model", MODELS)
def test_longer_sequences_equal_the_definition(model, opaque, monkeypatch):
    """With the form among the compiled operations, or as a kernel of another library between them."""
    if opaque:
        monkeypatch.setattr(compiled_mixer, "FORMS", ())
    monkeypatch.setattr(gated_mlp, "KEPT_ROWS", 3)
    monkeypatch.setattr(residual, "PROGRAMS", 2)
    own = small(model)
    whole, consists = joined(own)
    fused = FusedBackbone(whole, 20)
    assert not fused.mixers_fused
    compare(own, fused, consists, frames=20)


def compare(own: Backbone, fused: FusedBackbone, consists, frames: int) -> None:
    """Last hidden state and every gradient, in float32 against the model's own file in float64."""
    own = copy.deepcopy(own).double()
    x = torch.randn(3, frames, own.d_model, device=DEVICE)
    expected, found = own(x.double())[:, -1], fused(x)[:, -1]
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)
    weights = torch.randn_like(found)
    of_own = gradients(own, {}, expected, weights)
    of_fused = gradients(fused, consists, found, weights)
    assert of_fused.keys() == of_own.keys()
    for name, gradient in of_own.items():
        scale = max(gradient.abs().max(), 1e-2 * max(g.abs().max() for g in of_own.values()))
        error = (of_fused[name] - gradient).abs().max() / scale
        assert error < 1e-4, f"{name}: {error:.1e}"


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float32], ids=["bf16", "fp32"])
@pytest.mark.parametrize("model", MODELS)
def test_recomputed_arguments_change_no_bit(model, precision, monkeypatch):
    """Under autocast, as in a training step: the mixer's output and all its gradients."""
    monkeypatch.setattr(compiled_mixer, "FORMS", ())
    mixer = CompiledMixer(joined(small(model))[0].mixers[0])
    for module in mixer.mixer.modules():
        if isinstance(module, torch.nn.Linear):
            module.to(precision)
    shape = (2 * 20, mixer.mixer.joined_weight.shape[1])
    n = torch.randn(shape, device=DEVICE, dtype=precision, requires_grad=True)
    plan = mixer.mixer.plan(n.unflatten(0, (2, 20)))

    def outcome() -> list[torch.Tensor]:
        with torch.autocast(DEVICE.type, precision, enabled=precision != torch.float32):
            out, _ = mixer(n, plan, frames=20)
        return [out, *torch.autograd.grad(out.float().square().sum(), [n, *mixer.parameters])]

    found = outcome()
    kept = lambda make, source, parameters, use: use(*make(source))  # noqa: E731
    monkeypatch.setattr(compiled_mixer, "with_recomputed_arguments", kept)
    assert all(torch.equal(one, other) for one, other in zip(found, outcome(), strict=True))


@pytest.mark.parametrize("opaque", [False, True], ids=["whole", "recomputed"])
@pytest.mark.parametrize("model", MODELS)
def test_longer_sequences_compile_once_for_all_layers(model, opaque, monkeypatch):
    """Without graph breaks, and to the same numbers."""
    if opaque:
        monkeypatch.setattr(compiled_mixer, "FORMS", ())
    fused = FusedBackbone(joined(small(model))[0], 20)
    x = torch.randn(2, 20, fused.d_model, device=DEVICE, requires_grad=True)
    expected = fused(x)
    (of_x,) = torch.autograd.grad(expected.sum(), x)
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    for part in fused.mixing:
        part.compile(backend=counter)
    found = fused(x)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found.sum(), x)[0], of_x)
    stretches = 2 if opaque or model == "transformer" else 1
    assert counter.frame_count == stretches, f"{len(fused.layers)} layers"


@pytest.mark.parametrize("model", MODELS)
def test_samples_do_not_meet(model):
    backbone, _ = joined(small(model))
    fused = FusedBackbone(backbone, 3)
    x = torch.randn(2, 3, backbone.d_model, device=DEVICE)
    changed = x.clone()
    changed[1] += 1
    before, after = fused(x), fused(changed)
    assert torch.equal(before[0], after[0])
    assert not torch.equal(before[1], after[1])


def test_what_the_kernels_serve():
    for model in MODELS:
        assert serves(small(model), 8)
        assert not serves(small(model), 17)
    assert not serves(small("kda", head_dim=24), 8)  # no power of two
    chosen = small("gla")
    chosen.mixers[0].backend = "chunkwise"
    assert not serves(chosen, 8)  # a form asked for by name is never replaced


class Late:
    """Stands for the second stream: does what was left aside as late as that may be."""

    def __init__(self):
        self.work = []

    def start(self, work, out, inputs):
        self.work.append((work, out.detach(), inputs))

    @torch.no_grad()
    def finish(self):
        while self.work:
            work, out, _ = self.work.pop(0)
            work(out)


@pytest.mark.parametrize("model", MODELS)
def test_gradients_of_weights_may_come_late(model, monkeypatch):
    """What is left aside is read by nothing in the backward pass, and autograd neither copies nor adds it."""
    backbone, _ = joined(small(model))
    fused, x = FusedBackbone(backbone, 3), torch.randn(2, 3, backbone.d_model, device=DEVICE)
    fused(x).square().sum().backward()
    expected = {name: p.grad for name, p in fused.named_parameters()}
    fused.zero_grad(set_to_none=True)
    late = Late()
    monkeypatch.setattr(Backward, "current", late)
    fused(x).square().sum().backward()
    assert late.work
    late.finish()
    for name, parameter in fused.named_parameters():
        assert torch.equal(parameter.grad, expected[name]), name
