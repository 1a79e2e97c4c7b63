# SPDX-License-Identifier: Apache-2.0
"""`isohypse benchmark parity`: each mixer against flash-linear-attention's layer, and both against float64.

Same weights, same random inputs, output and all gradients (`mixers`), at each length and precision; one
process a model. File out: one JSON with a row a way to run a mixer, written anew after each model. What
cannot run says so in its cell; where there is no peer the cells are empty and a line below the table says
why.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from isohypse.benchmark import mixers
from isohypse.benchmark.isolation import Answer, Attempt, answers, attempt
from isohypse.benchmark.peers import build_peer_mixer
from isohypse.benchmark.report import markdown
from isohypse.errors import ConfigurationError
from isohypse.models.catalogue import flavour_of, label_of
from isohypse.models.network import Network
from isohypse.provenance import provenance
from isohypse.storage import write_json
from isohypse.training.hardware import choose_device, device_name

COMPARED = ("ours_to_peer", "peer_to_float64", "ours_to_float64")
COLUMNS = ("mixer", "T", "ours runs", "precision", *(name.replace("_", " ") for name in COMPARED))


@dataclass(frozen=True)
class Comparison:
    """What is compared of one model. Raises ConfigurationError for names or numbers that cannot be."""

    model: str
    flavour: str
    lengths: tuple[int, ...]
    """Frames of a sequence."""
    precisions: tuple[str, ...]
    device: str = "auto"

    def __post_init__(self) -> None:
        flavour_of(self.model, self.flavour)
        for precision in set(self.precisions) - set(mixers.DTYPES):
            raise ConfigurationError(f"benchmark parity: no precision {precision!r}; choose from bf16, fp32")
        if not self.lengths or min(self.lengths) < 1:
            raise ConfigurationError("benchmark parity: lengths must be at least 1")


def benchmark_parity(comparisons: Sequence[Comparison], destination: Path, limit_seconds: float) -> str:
    """Compare, a process a model, each at most `limit_seconds`; returns the table.

    Raises UnavailableError for a GPU that is not there.
    """
    device = device_name(choose_device(comparisons[0].device))
    rows: list[dict[str, Any]] = []
    for comparison, answer in answers(f"{__name__}:compare", comparisons, limit_seconds, "parity", device):
        rows += _rows(comparison, answer)
        write_json(destination, {"rows": rows, "provenance": provenance("", device)})
    return table(rows)


def _rows(comparison: Comparison, answer: Answer) -> list[dict[str, Any]]:
    what = {"model": comparison.model, "flavour": comparison.flavour, "label": label_of(comparison.model)}
    ended = [{"cannot_run": answer.trouble}] if answer.trouble else []
    return [what | row for row in answer.records + ended]


def compare(comparison: dict[str, Any], started: float = 0.0) -> Iterator[dict[str, Any]]:
    """The rows of one model, as they are found."""
    wanted = Comparison(**comparison)
    device = choose_device(wanted.device)
    network = mixers.one_layer(wanted.model, wanted.flavour, device)
    peer = Peer(wanted, network, device)
    for frames in wanted.lengths:
        case = mixers.case_of(frames, network.backbone.d_model, device)
        yield from _compared(network, peer, case, wanted.precisions)


class Peer:
    """The library's mixer with our weights, if it can be built; `note` says what it is, or why it is not."""

    def __init__(self, wanted: Comparison, network: Network, device: torch.device):
        def build() -> tuple[nn.Module, str]:
            mixer, note = build_peer_mixer(wanted.model, wanted.flavour)
            mixer.load_state_dict(network.backbone.mixers[0].state_dict())
            return mixer.to(device), note

        built = attempt(build)
        self.mixer, self.note = built.found or (None, built.reason)

    def run(self, case: mixers.Case, precision: str) -> Attempt[mixers.Found] | None:
        """None: there is no peer."""
        if self.mixer is None:
            return None
        return attempt(lambda: mixers.peer(self.mixer, case, precision))


def _compared(
    network: Network, peer: Peer, case: mixers.Case, precisions: Sequence[str]
) -> Iterator[dict[str, Any]]:
    batch, frames, _ = case.x.shape
    exact = attempt(lambda: mixers.exact(network.backbone.mixers[0], case))
    for precision in precisions:
        theirs = peer.run(case, precision)
        what = {"frames": frames, "batch_size": batch, "precision": precision, "peer": peer.note}
        for kernel, work in _ways(network, case, precision).items():
            ours = attempt(work)
            yield what | {
                "kernel": kernel,
                "ours_to_peer": _cell(ours, theirs),
                "peer_to_float64": _cell(theirs, exact),
                "ours_to_float64": _cell(ours, exact),
            }


def _ways(network: Network, case: mixers.Case, precision: str) -> dict[str, Callable[[], mixers.Found]]:
    """How ours can run, by the name of the kernel."""
    mixer, (batch, frames, _) = network.backbone.mixers[0], case.x.shape
    kernel = mixer.kernel_name(batch, frames, case.x.device)
    ways = {kernel: lambda: mixers.ours(mixer, case, precision)}
    captured = mixers.captured_name(network, kernel, frames, case.x.device)
    if captured:
        ways[captured] = lambda: mixers.captured(network, case, precision)
    return ways


def _cell(
    found: Attempt[mixers.Found] | None, reference: Attempt[mixers.Found] | None
) -> dict[str, Any] | None:
    """The difference, why there is none, or None without a peer."""
    if found is None or reference is None:
        return None
    reason = found.reason or reference.reason
    if reason:
        return {"cannot_run": reason}
    errors = mixers.difference(found.found, reference.found)
    if max(errors[:2]) == torch.inf:
        return {"cannot_run": f"not finite: output or gradient of {errors.worst}"}
    return errors._asdict()


def table(rows: Sequence[dict[str, Any]]) -> str:
    """In Markdown; in each cell the error of the output, of the worst gradient, and whose that is."""
    notes = {f"Peer of {row['label']}: {row['peer']}\n" for row in rows if row.get("peer")}
    return "\n".join([markdown(COLUMNS, map(_cells, rows)), *sorted(notes)])


def _cells(row: dict[str, Any]) -> list[str]:
    mixer = f"{row['label']} ({row['flavour']})"
    if "cannot_run" in row:
        return [mixer, "", f"cannot run: {row['cannot_run']}", *[""] * 4]
    return [mixer, str(row["frames"]), row["kernel"], row["precision"], *(_text(row[c]) for c in COMPARED)]


def _text(cell: dict[str, Any] | None) -> str:
    if cell is None:
        return ""
    if "cannot_run" in cell:
        return f"cannot run: {cell['cannot_run']}"
    errors = "{output:.1e}, {gradient:.1e}".format(**cell).replace("e-0", "e-")
    return f"{errors} ({cell['worst']})"
