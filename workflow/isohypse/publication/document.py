# SPDX-License-Identifier: Apache-2.0
"""A table as two files: CSV for machines, one self-contained HTML page for the report.

The CSV holds plain numbers, one column a quantity (intervals as `_low` and `_high`), and in its last columns
what every row shares (data, protocol, versions), so that a row cut out of it still says what it is. The HTML
rounds, groups the columns and adds the notes. Neither holds a time stamp.
"""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from isohypse import __version__
from isohypse.publication.labels import Settings, data_line
from isohypse.storage import atomic_path

Row = Mapping[str, object]

STYLE = """
body { font: 14px/1.45 system-ui, "Segoe UI", Helvetica, Arial, sans-serif; color: #222;
       background: #fff; margin: 1.2em; }
h1 { font-size: 1.25em; margin: 0 0 .2em; }
p { margin: .1em 0; color: #555; }
.synthetic { color: #B00020; font-weight: 700; }
.scroll { overflow-x: auto; margin: 1em 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; border-top: 2px solid #222;
        border-bottom: 2px solid #222; }
th, td { padding: .32em .8em; text-align: right; white-space: nowrap; }
th { font-weight: 600; vertical-align: bottom; }
thead tr:last-child th { border-bottom: 1px solid #222; }
th.group { text-align: center; border-bottom: 1px solid #bbb; }
th .unit, td .interval { display: block; font-weight: 400; font-size: .82em; color: #666; }
th.text, td.text { text-align: left; }
tbody tr.rule td { border-top: 1px solid #bbb; }
tbody tr:hover { background: #f4f6f8; }
td.best { font-weight: 700; }
ul { padding-left: 1.2em; max-width: 62em; }
footer { font-size: .8em; color: #777; }
"""


@dataclass(frozen=True)
class Column:
    """One quantity. `pattern` formats its numbers in the HTML; `best` (min, max): the best is bold."""

    key: str
    heading: str
    unit: str = ""
    pattern: str | None = None
    group: str = ""
    best: str | None = None
    interval: bool = False
    """The row holds `<key>_low` and `<key>_high` too."""

    @property
    def is_text(self) -> bool:
        return self.pattern is None

    def csv_keys(self) -> list[str]:
        return [self.key, f"{self.key}_low", f"{self.key}_high"] if self.interval else [self.key]

    def show(self, value: object) -> str:
        if is_missing(value):
            return "–"
        if self.pattern is None or isinstance(value, str):
            return str(value)
        return self.pattern.format(value).replace("-", "−")


@dataclass(frozen=True)
class Table:
    """Title, the lines under it, columns, rows; `shared` is what the CSV repeats in every row."""

    title: str
    about: Sequence[str]
    columns: Sequence[Column]
    rows: Sequence[Row]
    notes: Sequence[str] = ()
    shared: Row = field(default_factory=dict)
    rules_before: frozenset[int] = frozenset()
    """Rows with a thin line above."""
    csv_only: Sequence[str] = ()
    """Keys of the rows that only the CSV has room for."""


def is_missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def write_table(table: Table, settings: Settings, destination_csv: Path, destination_html: Path) -> None:
    """Write both files, each atomically."""
    for destination, text in (
        (destination_csv, as_csv(table, settings)),
        (destination_html, as_html(table, settings)),
    ):
        with atomic_path(destination) as path:
            path.write_text(text, encoding="utf-8", newline="")


def as_csv(table: Table, settings: Settings) -> str:
    shared = dict(table.shared) | {
        "data": data_line(settings),
        "synthetic": settings.synthetic,
        "study": settings.study,
        "settings": settings.digest,
        "isohypse": __version__,
    }
    keys = [key for column in table.columns for key in column.csv_keys()]
    keys += [key for key in table.csv_only if key not in keys]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*keys, *shared])
    for row in table.rows:
        writer.writerow([_cell(row.get(key)) for key in keys] + [_cell(value) for value in shared.values()])
    return buffer.getvalue()


def _cell(value: object) -> object:
    """Empty if missing; numbers to eight digits."""
    if is_missing(value):
        return ""
    return f"{value:.8g}" if isinstance(value, float) else value


def as_html(table: Table, settings: Settings) -> str:
    emphasis = ' class="synthetic"' if settings.synthetic else ""
    about = "".join(f"<p>{escape(line)}</p>\n" for line in table.about)
    notes = "".join(f"<li>{escape(note)}</li>\n" for note in table.notes)
    footer = f"study {settings.study} · isohypse {__version__} · settings {settings.digest}"
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{escape(table.title)}</title>\n"
        f"<style>{STYLE}</style>\n</head>\n<body>\n<h1>{escape(table.title)}</h1>\n"
        f"<p{emphasis}>{escape(data_line(settings))}</p>\n{about}"
        f'<div class="scroll">\n<table>\n<thead>\n{_head(table.columns)}</thead>\n'
        f"<tbody>\n{_body(table)}</tbody>\n"
        f"</table>\n</div>\n<ul>\n{notes}</ul>\n<footer>{escape(footer)}</footer>\n</body>\n</html>\n"
    )


def _head(columns: Sequence[Column]) -> str:
    headings = "".join(
        f"<th{_kind(column)}>{escape(column.heading)}"
        + (f'<span class="unit">{escape(column.unit)}</span>' if column.unit else "")
        + "</th>"
        for column in columns
    )
    return f"{_groups(columns)}<tr>{headings}</tr>\n"


def _groups(columns: Sequence[Column]) -> str:
    """A row of headings over neighbours of one group; none if there is no group."""
    if not any(column.group for column in columns):
        return ""
    spans: list[list] = []
    for column in columns:
        if spans and spans[-1][0] == column.group:
            spans[-1][1] += 1
        else:
            spans.append([column.group, 1])
    cells = (
        f'<th class="group" colspan="{span}">{escape(group)}</th>' if group else f'<th colspan="{span}"></th>'
        for group, span in spans
    )
    return f"<tr>{''.join(cells)}</tr>\n"


def _kind(column: Column) -> str:
    return ' class="text"' if column.is_text else ""


def _body(table: Table) -> str:
    best = {column.key: _best(column, table.rows) for column in table.columns}
    lines = []
    for place, row in enumerate(table.rows):
        cells = "".join(_html_cell(column, row, best[column.key]) for column in table.columns)
        rule = ' class="rule"' if place in table.rules_before else ""
        lines.append(f"<tr{rule}>{cells}</tr>\n")
    return "".join(lines)


def _best(column: Column, rows: Sequence[Row]) -> object:
    values = [row.get(column.key) for row in rows if not is_missing(row.get(column.key))]
    return {"min": min, "max": max}[column.best](values) if column.best and values else None


def _html_cell(column: Column, row: Row, best: object) -> str:
    value = row.get(column.key)
    text = escape(column.show(value))
    low, high = row.get(f"{column.key}_low"), row.get(f"{column.key}_high")
    if column.interval and not (is_missing(low) or is_missing(high)):
        text += f'<span class="interval">{escape(column.show(low))} to {escape(column.show(high))}</span>'
    names = ["text"] * column.is_text + ["best"] * (best is not None and value == best)
    kind = f' class="{" ".join(names)}"' if names else ""
    return f"<td{kind}>{text}</td>"
