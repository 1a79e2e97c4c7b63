# SPDX-License-Identifier: Apache-2.0
"""The table of a benchmark: a row a model, medians with their range, in Markdown."""

from collections.abc import Iterable, Sequence
from typing import Any

COLUMNS = (
    "model",
    "parameters",
    "ms/step",
    "frames/s",
    "x floor",
    "peak GiB",
    "first step, s",
    "FLA ms/step",
    "x FLA",
    "FLA peak GiB",
    "forecast ms",
    "carried forecast ms",
    "FLA forecast ms",
    "peer",
)


def table(records: Sequence[dict[str, Any]]) -> str:
    """What was measured where, then the rows."""
    first = records[0]
    ceilings, versions = first["ceilings"], first["provenance"]["versions"]
    where = (
        f"{first['provenance']['device']}, batch {first['batch_size']}, T {first['frames']}, bf16; "
        f"{ceilings['matmul_flops_per_second'] / 1e12:.0f} TFLOP/s in a bf16 product of 8192^3, "
        f"{ceilings['copy_bytes_per_second'] / 1e12:.2f} TB/s in a copy; "
        + ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    )
    return f"{where}\n\n{markdown(COLUMNS, map(_cells, records))}"


def _cells(record: dict[str, Any]) -> list[str]:
    ours, peer = record["step_seconds"]["ours"], record["step_seconds"].get("peer")
    latency, peer_latency = record.get("forecast_seconds"), record.get("peer_forecast_seconds")
    return [
        f"{record['label']} ({record['flavour']})",
        f"{record['parameters'] / 1e6:.0f}M",
        milliseconds(ours),
        f"{record['batch_size'] * record['frames'] / ours['median']:,.0f}",
        f"{ours['median'] / record['ceilings']['floor_seconds']:.2f}",
        f"{record['peak_memory_bytes'] / 2**30:.2f}",
        f"{record['first_step_seconds']:.1f}",
        milliseconds(peer),
        f"{peer['median'] / ours['median']:.1f}" if peer else "",
        f"{record['peer_peak_memory_bytes'] / 2**30:.2f}" if peer else "",
        milliseconds(latency),
        milliseconds(record.get("carried_forecast_seconds")),
        milliseconds(peer_latency),
        record.get("peer_note", ""),
    ]


def milliseconds(seconds: dict[str, float] | None) -> str:
    if seconds is None:
        return ""
    return "{median:.2f} ({min:.2f}-{max:.2f})".format(**{k: 1000 * v for k, v in seconds.items()})


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table."""
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (columns, ["---"] * len(columns), *rows))
