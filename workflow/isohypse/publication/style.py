# SPDX-License-Identifier: Apache-2.0
"""One look for all figures: colours, fonts, the heading and footer of a page, direct labels, saving.

Colours are Okabe and Ito's (2008), told apart with every common colour vision; each model also has a
marker of its own, and baselines are grey. Figures are built without pyplot, so nothing stays open, and
files hold no time stamp: the same inputs give the same bytes.
"""

import hashlib
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from isohypse import __version__
from isohypse.config.settings import FigureSettings
from isohypse.errors import ConfigurationError, DataError
from isohypse.publication.labels import data_line
from isohypse.storage import atomic_path

MODEL_LOOK = {
    "transformer": ("#D55E00", "o"),
    "gla": ("#0072B2", "s"),
    "deltanet": ("#56B4E9", "^"),
    "gated_deltanet": ("#009E73", "v"),
    "kda": ("#CC79A7", "D"),
    "mamba2": ("#E69F00", "P"),
}
OTHER_LOOK = ("#5B4B8A", "X")
BASELINE_LOOK = {
    "persistence": ("#222222", (0, (5, 2))),
    "climatology": ("#999999", (0, (1, 1.5))),
    "damped_persistence": ("#777777", (0, (5, 1.5, 1, 1.5))),
    "ridge_var": ("#444444", (0, (8, 1.5))),
}
FLAVOUR_DASHES = ("-", (0, (4, 1.5)), (0, (1.5, 1.2)), (0, (6, 1, 1, 1)))
CHARACTERS_AN_INCH = 15.5
"""Of the footer: 7 points, DejaVu Sans."""
HEADING_CHARACTERS_AN_INCH = 11.5
"""Of the heading: 9 points, bold."""
INK, MUTED, ALERT = "#222222", "#666666", "#B00020"

RC = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.edgecolor": "#888888",
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.7,
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.frameon": False,
    "lines.linewidth": 1.7,
    "lines.markersize": 4.5,
    "svg.hashsalt": "isohypse",
    "pdf.fonttype": 42,
    "path.simplify": True,
}
SUFFIXES = (".png", ".pdf", ".svg")


def look(name: str, flavour: str | None, flavours: Sequence[str] = ()) -> dict:
    """Line properties of a method: colour and marker by model, dashes by flavour; baselines grey."""
    if not flavour:
        colour, dashes = BASELINE_LOOK.get(name, ("#888888", "--"))
        return {"color": colour, "linestyle": dashes, "linewidth": 1.4, "marker": None}
    colour, marker = MODEL_LOOK.get(name, OTHER_LOOK)
    place = list(flavours).index(flavour) if flavour in flavours else 0
    return {"color": colour, "linestyle": FLAVOUR_DASHES[place % len(FLAVOUR_DASHES)], "marker": marker}


@dataclass(frozen=True)
class Page:
    """A figure with its heading and footer; `head`, `foot`: the inches they take, `body`: what is between."""

    figure: Figure
    head: float
    body: float
    foot: float

    def place(
        self, left: float, top: float, width: float, height: float
    ) -> tuple[float, float, float, float]:
        """The box (left, bottom, width, height) for matplotlib; `top` counts down from the body's top."""
        total_width, total_height = self.figure.get_size_inches()
        bottom = total_height - self.head - top - height
        return left / total_width, bottom / total_height, width / total_width, height / total_height


def page(
    settings: FigureSettings,
    size: tuple[float, float],
    title: str,
    about: Sequence[str],
    footer: Sequence[str],
    data: str | None = None,
) -> Page:
    """A page whose body is `size` inches; `data` replaces the line about the study's data."""
    width, body = size
    columns = int(width * CHARACTERS_AN_INCH)
    lines = [part for line in (*footer, provenance_line(settings)) for part in textwrap.wrap(line, columns)]
    heading = textwrap.wrap(data or data_line(settings), int(width * HEADING_CHARACTERS_AN_INCH))
    head, foot = 0.43 + 0.19 * (len(heading) + len(about)), 0.2 + 0.16 * len(lines)
    height = head + body + foot
    figure = Figure(figsize=(width, height), dpi=settings.publication.dpi, facecolor="white")
    left, warn = 0.18 / width, settings.synthetic and data is None
    figure.text(left, 1 - 0.14 / height, title, fontsize=13, fontweight="bold", color=INK, va="top")
    weight, colour = ("bold", ALERT) if warn else ("normal", INK)
    for place, line in enumerate([*heading, *about]):
        style = {"color": colour, "fontweight": weight} if place < len(heading) else {"color": MUTED}
        figure.text(left, 1 - (0.43 + 0.19 * place) / height, line, va="top", **style)
    for place, line in enumerate(reversed(lines)):
        figure.text(left, (0.07 + 0.16 * place) / height, line, fontsize=7, color=MUTED, va="bottom")
    return Page(figure, head, body, foot)


def panels(sheet: Page, rows: int, columns: int, inches: dict[str, float]) -> np.ndarray:
    """Axes [rows, columns] in the body; `inches`: margins left, right, top, bottom and gaps wide, high."""
    width, height = sheet.figure.get_size_inches()
    inner_width = (width - inches["left"] - inches["right"] - inches["wide"] * (columns - 1)) / columns
    inner_height = (sheet.body - inches["top"] - inches["bottom"] - inches["high"] * (rows - 1)) / rows
    grid = sheet.figure.add_gridspec(
        rows, columns,
        left=inches["left"] / width, right=1 - inches["right"] / width,
        bottom=(sheet.foot + inches["bottom"]) / height, top=1 - (sheet.head + inches["top"]) / height,
        wspace=inches["wide"] / inner_width, hspace=inches["high"] / inner_height,
    )  # fmt: skip
    return grid.subplots(squeeze=False)


def provenance_line(settings: FigureSettings) -> str:
    return (
        f"study {settings.study} · isohypse {__version__} · matplotlib {mpl.__version__} · "
        f"settings {settings.digest}"
    )


def inputs_line(paths: Sequence[Path]) -> str:
    """`12 input files, digest 0123456789abcdef`: SHA-256 over their bytes in the given order."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            digest.update(Path(path).read_bytes())
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    noun = "input file" if len(paths) == 1 else "input files"
    return f"{len(paths)} {noun}, digest {digest.hexdigest()[:16]}"


def save(figure: Figure, destination: Path, inputs: Sequence[Path] = ()) -> None:
    """Write the figure atomically; the suffix decides the format. Raises ConfigurationError for others."""
    suffix = Path(destination).suffix.lower()
    if suffix not in SUFFIXES:
        raise ConfigurationError(f"{destination}: no figure format; use one of {', '.join(SUFFIXES)}")
    about = f"isohypse {__version__}; matplotlib {mpl.__version__}; {inputs_line(inputs)}"
    words = " | ".join(text.get_text() for text in figure.texts)
    metadata = {
        ".png": {"Software": about, "Description": words},
        ".pdf": {"Creator": about, "Producer": about, "Subject": words, "CreationDate": None},
        ".svg": {"Creator": about, "Description": words, "Date": None},
    }[suffix]
    with atomic_path(destination) as path, mpl.rc_context(RC):
        figure.savefig(path, format=suffix[1:], metadata=metadata)


def plain_log_ticks(axis: mpl.axis.Axis, values: Iterable[float]) -> None:
    """Ticks at exactly `values` on a logarithmic axis, written out as numbers."""
    axis.set_major_locator(FixedLocator(list(values)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))


def round_ticks(low: float, high: float) -> list[float]:
    """1, 2, 5 times powers of ten that cover [low, high]; only powers of ten over more than three decades."""
    decades = np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    steps = (1, 2, 5) if np.log10(high / low) <= 3 else (1,)
    ticks = [step * 10.0**decade for decade in decades for step in steps]
    return [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]


def spread(wanted: np.ndarray, gap: float) -> np.ndarray:
    """Positions at least `gap` apart, in the order of `wanted` (ascending), closest to it in least squares.

    Isotonic regression by pooling adjacent violators, after the gaps have been taken out.
    """
    offsets = gap * np.arange(len(wanted))
    pools: list[list[float]] = []
    for value in np.asarray(wanted, dtype=float) - offsets:
        pools.append([value, 1])
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            value, count = pools.pop()
            pools[-1] = [
                (pools[-1][0] * pools[-1][1] + value * count) / (pools[-1][1] + count),
                pools[-1][1] + count,
            ]
    return np.concatenate([np.full(int(count), value) for value, count in pools]) + offsets


LEADER = {
    "arrowstyle": "-", "linewidth": 0.6, "alpha": 0.6, "shrinkA": 1, "shrinkB": 4, "relpos": (0, 0.5),
}  # fmt: skip


def label_ends(axes: Axes, ends: Sequence[tuple[float, float, str, str]], fontsize: float = 8.5) -> None:
    """Write each line's name at the right of the axes beside its end; `ends`: x, y, text, colour.

    Call it when the limits of the axes are final: overlaps are resolved in points.
    """
    if not ends:
        return
    ends = sorted(ends, key=lambda end: end[1])
    box = axes.get_window_extent()
    scale = axes.figure.dpi / 72
    pixels = np.array([axes.transData.transform((x, y))[1] for x, y, _, _ in ends])
    places = spread(pixels, gap=1.32 * fontsize * scale)
    places += max(0.0, box.y0 - places[0]) - max(0.0, places[-1] - box.y1)
    for (x, y, text, colour), place in zip(ends, places, strict=True):
        axes.annotate(
            text, xy=(x, y), xytext=(1.05, (place - box.y0) / box.height), textcoords="axes fraction",
            color=colour, fontsize=fontsize, va="center", annotation_clip=False,
            arrowprops=LEADER | {"color": colour},
        )  # fmt: skip
