# SPDX-License-Identifier: Apache-2.0
"""Where a step runs and in which precision; how much memory there is and how much was used."""

import os
import platform
import resource
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import torch

from isohypse.errors import UnavailableError

PROCESS_STATUS = Path("/proc/self/status")
HIGH_WATER_RESET = Path("/proc/self/clear_refs")
CPU_MODEL = Path("/proc/cpuinfo")


@contextmanager
def side_stream() -> Iterator[None]:
    """Where work is rehearsed before a CUDA graph captures it: a stream that the current one waits for."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream().wait_stream(stream)


def choose_device(asked: str) -> torch.device:
    """The device for `auto`, `cpu` or `cuda`. Raises UnavailableError for a GPU that is not there."""
    available = torch.cuda.is_available()
    if asked == "cuda" and not available:
        raise UnavailableError("execution.device: cuda was asked for and torch sees no GPU; use auto or cpu")
    return torch.device("cuda" if available and asked != "cpu" else "cpu")


def choose_precision(asked: str, device: torch.device) -> str:
    """`fp32` or `bf16`; `auto` is bf16 autocast on a GPU that has it, fp32 elsewhere.

    Raises UnavailableError if bf16 is asked for on a GPU without it.
    """
    has_bf16 = device.type == "cpu" or torch.cuda.is_bf16_supported(including_emulation=False)
    if asked == "auto":
        return "bf16" if device.type == "cuda" and has_bf16 else "fp32"
    if asked == "bf16" and not has_bf16:
        raise UnavailableError(f"training.precision: {device_name(device)} has no bf16; use auto or fp32")
    return asked


def autocast(precision: str, device: torch.device) -> AbstractContextManager:
    """Matrix products in bf16 and everything delicate in fp32, or all in fp32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def device_name(device: torch.device) -> str:
    """The device in words, e.g. `NVIDIA H100 80GB HBM3` or the processor's model name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if CPU_MODEL.exists():
        for line in CPU_MODEL.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def free_bytes(device: torch.device) -> int:
    """Memory that data may share with the model: free on a GPU, installed on a CPU."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


class PeakMemory:
    """Peak bytes since this object was made.

    GPU: `torch.cuda.max_memory_allocated`. CPU: growth of the process's peak resident memory over what was
    resident at the start. Linux lets the peak be reset (VmHWM); elsewhere what came before is
    remembered, and only growth beyond the earlier peak is seen.
    """

    def __init__(self, device: torch.device):
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            with suppress(OSError):  # another system, or a container that does not allow it
                HIGH_WATER_RESET.write_text("5")
        self.baseline = 0 if device.type == "cuda" else peak_resident_bytes()

    def read(self) -> int:
        """Peak bytes so far."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return peak_resident_bytes() - self.baseline


def peak_resident_bytes() -> int:
    """The process's peak resident memory. VmHWM starts afresh with each program; ru_maxrss is inherited."""
    if PROCESS_STATUS.exists():
        for line in PROCESS_STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
