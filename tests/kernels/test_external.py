# SPDX-License-Identifier: Apache-2.0
"""Kernels of other libraries: refused in words where they cannot be, named after what really runs."""

import sys
from types import ModuleType

import pytest
import torch
from torch.nn import functional as F

from isohypse.errors import UnavailableError
from isohypse.kernels import choice, external, gated_delta_rule, gla, kda, ssd


def module(name, **content):
    made = ModuleType(name)
    vars(made).update(content)
    return made


def definition_of(recurrence):
    """The plain recurrence in the clothes of FLA's kernel: its arguments -> (o, final state)."""
    calls = []

    def kernel(*arguments, scale=None):
        calls.append(arguments)
        return recurrence.recurrent(*arguments, scale=scale)

    kernel.calls = calls
    return kernel


@pytest.fixture
def fake_fla(monkeypatch):
    """A function (hopper, triton at least 3.4, at least 3.7.1) -> kernels by name, in place of FLA."""

    def install(*, hopper=False, above_3_4=False, above_3_7_1=False):
        kernels = {
            "chunk_gla": definition_of(gla),
            "chunk_kda": definition_of(kda),
            "chunk_delta_rule": object(),
            "chunk_gated_delta_rule": definition_of(gated_delta_rule),
        }
        flags = {"IS_NVIDIA_HOPPER": hopper, "TRITON_ABOVE_3_4_0": above_3_4}
        utils = module("fla.utils", TRITON_ABOVE_3_7_1=above_3_7_1, **flags)
        monkeypatch.setitem(sys.modules, "fla", module("fla", utils=utils))
        monkeypatch.setitem(sys.modules, "fla.utils", utils)
        for package in ("gla", "kda", "delta_rule", "gated_delta_rule"):
            name = f"chunk_{package}"
            monkeypatch.setitem(
                sys.modules, f"fla.ops.{package}", module(package, **{name: kernels.get(name)})
            )
        monkeypatch.setitem(sys.modules, "fla.ops", module("fla.ops"))
        monkeypatch.setattr(external, "installed", lambda: True)
        return kernels

    external._loaded.cache_clear()
    yield install
    external._loaded.cache_clear()


@pytest.fixture
def no_mamba(monkeypatch):
    monkeypatch.setattr(external, "find_spec", lambda name: None)


def test_a_cpu_is_refused_by_name(recurrence):
    with pytest.raises(UnavailableError, match=f"triton kernel of {recurrence} needs a GPU: choose auto"):
        choice.choose(recurrence, 128, "cpu", external.NAME)


def test_a_missing_library_is_refused_with_the_way_to_get_it(recurrence, monkeypatch):
    monkeypatch.setattr(external, "find_spec", lambda name: None)
    assert not external.installed()
    with pytest.raises(
        UnavailableError, match=r"needs flash-linear-attention: pip install 'isohypse\[cuda\]'"
    ):
        external.load(recurrence, "cuda")


@pytest.mark.parametrize("present", ["triton", "fla"])
def test_the_library_without_triton_is_none(present, monkeypatch):
    monkeypatch.setattr(external, "find_spec", lambda name: object() if name == present else None)
    assert not external.installed()


@pytest.mark.parametrize(
    ("hopper", "above_3_4", "above_3_7_1", "name"),
    [
        (True, True, False, "triton:chunk_kda"),
        (True, True, True, "triton:chunk_gated_delta_rule"),
        (True, False, False, "triton:chunk_gated_delta_rule"),
        (False, True, False, "triton:chunk_gated_delta_rule"),
    ],
)
def test_the_gated_rule_goes_round_wrong_gradients(fake_fla, hopper, above_3_4, above_3_7_1, name):
    kernels = fake_fla(hopper=hopper, above_3_4=above_3_4, above_3_7_1=above_3_7_1)
    kernel = external.load("gated_delta_rule", "cuda")
    assert kernel.name == name
    assert external.load("gated_delta_rule", "cuda") is kernel
    q, k = (F.normalize(torch.randn(2, 5, 2, 4), dim=-1) for _ in range(2))
    v, log_decay, beta = torch.randn(2, 5, 2, 3), -torch.rand(2, 5, 2), torch.rand(2, 5, 2)
    expected = gated_delta_rule.closed(q, k, v, log_decay, beta)
    torch.testing.assert_close(kernel.form(q, k, v, log_decay, beta), expected)
    assert len(kernels[name.partition(":")[2]].calls) == 1
    adapt, run = external.parts_of(kernel.form)
    adapted = adapt(q, k, v, log_decay, beta)
    torch.testing.assert_close(run(*adapted), expected)
    assert all(a is b for a, b in zip(kernels[name.partition(":")[2]].calls[1], adapted, strict=True))


def test_ssd_without_mamba_ssm_is_gla_with_one_decay(fake_fla, no_mamba, case_of):
    kernels = fake_fla()
    kernel = external.load("ssd", "cuda")
    assert kernel.name == "triton:chunk_gla"
    arguments = case_of("ssd", 6).arguments
    torch.testing.assert_close(kernel.form(*arguments), ssd.closed(*arguments), rtol=1e-9, atol=1e-11)
    assert len(kernels["chunk_gla"].calls) == 1


def test_ssd_with_mamba_ssm_gets_past_its_compiled_extension(fake_fla, monkeypatch):
    fake_fla()
    scan = module("ssd_combined", mamba_chunk_scan_combined=lambda *_, **options: options)
    parts = {
        name: module(name) for name in ("ssd_bmm", "ssd_chunk_scan", "ssd_chunk_state", "ssd_state_passing")
    }
    for name in ("mamba_ssm", "mamba_ssm.ops"):
        monkeypatch.setitem(sys.modules, name, module(name))
    package = module("mamba_ssm.ops.triton", ssd_combined=scan, **parts)
    monkeypatch.setitem(sys.modules, "mamba_ssm.ops.triton", package)
    monkeypatch.setitem(sys.modules, "selective_scan_cuda", module("selective_scan_cuda"))
    monkeypatch.setattr(external, "find_spec", lambda name: object())
    kernel = external.load("ssd", "cuda")
    assert kernel.name == "triton:mamba_chunk_scan_combined"
    assert kernel.form(*[None] * 6) == {"chunk_size": 256, "D": None}


def test_the_delta_rule_in_float32_is_kda_without_decay(fake_fla, case_of):
    kernels = fake_fla()
    kernel = external.load("delta_rule", "cuda")
    assert kernel.name == "triton:chunk_delta_rule"
    arguments = case_of("delta_rule", 6).to(torch.float32).arguments
    expected, _ = choice.RECURRENCES["delta_rule"].recurrent(*arguments)
    torch.testing.assert_close(kernel.form(*arguments), expected)
    assert len(kernels["chunk_kda"].calls) == 1


def test_auto_on_a_gpu_with_the_library_takes_it_for_long_sequences_only(fake_fla):
    fake_fla()
    assert choice.choose("kda", 128, "cuda").name == "triton:chunk_kda"
    assert choice.choose("kda", 64, "cuda").name == "closed"
