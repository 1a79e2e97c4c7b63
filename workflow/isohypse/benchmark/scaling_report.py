# SPDX-License-Identifier: Apache-2.0
"""The tables of `scaling-out` in Markdown: several GPUs and one, the paper's configuration, long sequences.

The paper's tokens/s (its Table 4) are grid values, 10,512 a frame, a second and a GPU; those of its run at
131,072 are frames, as one frame is one token there.
"""

from collections.abc import Sequence
from typing import Any

from isohypse.benchmark.report import markdown, milliseconds
from isohypse.models.catalogue import label_of

GRID_VALUES = 73 * 144
PAPER_HARDWARE = "2 nodes of 4 A100-40GB"
TABLE_4 = {  # tokens/s and GiB a GPU
    "transformer": (31_980, 4.28),
    "gla": (31_213, 4.26),
    "gated_deltanet": (29_313, 5.91),
    "deltanet": (31_875, 4.31),
    "mamba2": (30_261, 4.38),
    "kda": (26_247, 5.92),
}
PAPER_LONG = {"gla": ("2,030", "32.09"), "transformer": ("1,906", "26.25")}  # 16 GPUs, tensor-parallel
PAPER_LONG_FRAMES = 131_072
PAPER_SIZES = (256, 8, 8)  # windows, frames, GPUs
COLUMNS = ("model", "scaling", "mode", "GPUs", "windows", "ms/step", "windows/s", "x one GPU")
COLUMNS += ("communication", "hidden, ms", "peak GiB a GPU", "note")
PAPER_COLUMNS = ("model", "mode", "tokens/s a GPU", "the paper's", "peak GiB a GPU", "the paper's")
LONG_COLUMNS = ("model", "mode", "GPUs", "s/step", "frames/s", "the paper's, 16 GPUs", "peak GiB a GPU")
LONG_COLUMNS += ("the paper's", "note")


def report(rows: Sequence[dict[str, Any]]) -> str:
    """What was measured where, then the tables that have rows."""
    short, long = ([r for r in rows if (r["scaling"] == "long") == wanted] for wanted in (False, True))
    paper = [r for r in short if _is_the_papers(r)]
    parts = [_where(rows)]
    if short:
        base = {r["model"]: r.get("windows_per_second") for r in short if r["mode"] == "alone"}
        parts.append(markdown(COLUMNS, [_cells(r, base.get(r["model"])) for r in short]))
    if paper:
        title = f"The paper's configuration: 256 windows over 8 GPUs, T 8 ({PAPER_HARDWARE} there)"
        parts.append(f"{title}\n\n{markdown(PAPER_COLUMNS, [_paper_cells(r) for r in paper])}")
    if long:
        title = f"One window of {long[0]['frames']:,} frames, activations computed again"
        parts.append(f"{title}\n\n{markdown(LONG_COLUMNS, [_long_cells(r) for r in long])}")
    return "\n".join(parts)


def _is_the_papers(r: dict[str, Any]) -> bool:
    sizes = (r["batch_size"], r["frames"], r["ranks"])
    return r["flavour"] == "paper" and sizes == PAPER_SIZES and "step_seconds" in r


def _where(rows: Sequence[dict[str, Any]]) -> str:
    first = next((r for r in rows if "step_seconds" in r), None)
    if first is None:
        return "Nothing was measured.\n"
    made = first["provenance"]
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items() if version)
    chosen = "".join(f"; {name}={value}" for name, value in first["nccl"].items())
    return f"{made['device']}, flavour {first['flavour']}, {first['precision']}; {versions}{chosen}\n"


def _cells(r: dict[str, Any], base: float | None) -> list[str]:
    cells = [label_of(r["model"]), r["scaling"], r["mode"], str(r["ranks"]), f"{r['batch_size']}"]
    if "step_seconds" not in r:
        return [*cells, *[""] * (len(COLUMNS) - len(cells) - 1), _note(r)]
    rate = r["windows_per_second"]
    cells += [milliseconds(r["step_seconds"]), f"{rate:,.0f}", f"{rate / base:.2f}" if base else ""]
    return [*cells, *_communication(r), _memory(r), "+".join(sorted(set(r["kernels"].values())))]


def _communication(r: dict[str, Any]) -> tuple[str, str]:
    """The share of a step in which a GPU only communicates; communication behind computation."""
    found = r["communication"]
    if found is None:
        return "", ""
    share = found["exposed_seconds"] / r["step_seconds"]["median"]
    return f"{share:.1%}", f"{1000 * (found['seconds'] - found['exposed_seconds']):.2f}"


def _paper_cells(r: dict[str, Any]) -> list[str]:
    tokens, gib = TABLE_4[r["model"]]
    ours = GRID_VALUES * r["frames_per_second"] / r["ranks"]
    return [label_of(r["model"]), r["mode"], f"{ours:,.0f}", f"{tokens:,}", _memory(r), f"{gib:.2f}"]


def _long_cells(r: dict[str, Any]) -> list[str]:
    cells = [label_of(r["model"]), r["mode"], str(r["ranks"])]
    theirs = r["flavour"] == "paper" and r["frames"] == PAPER_LONG_FRAMES
    tokens, gib = PAPER_LONG.get(r["model"] if theirs else "", ("", ""))
    if "step_seconds" not in r:
        return [*cells, "", "", tokens, "", gib, _note(r)]
    found = r["step_seconds"]
    seconds = "{median:.2f} ({min:.2f}-{max:.2f})".format(**found)
    note = "+".join(sorted(set(r["kernels"].values())))
    return [*cells, seconds, f"{r['frames_per_second']:,.0f}", tokens, _memory(r), gib, note]


def _memory(r: dict[str, Any]) -> str:
    return f"{r['peak_memory_bytes'] / 2**30:.2f}"


def _note(r: dict[str, Any]) -> str:
    note = r.get("failed") or f"skipped: {r['skipped']}"
    return note.replace("|", "/")
