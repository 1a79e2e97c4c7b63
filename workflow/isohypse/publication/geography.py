# SPDX-License-Identifier: Apache-2.0
"""Where a field lies on paper: projection, cells and their edges, cyclic wrap, coordinate labels.

Plate carrée is drawn on plain axes. Other projections come from cartopy, which is optional. Coastlines
belong to real data only: the synthetic planet has mountains of its own.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, MultipleLocator

from isohypse.config.settings import FigureSettings
from isohypse.errors import UnavailableError


class Gridded(Protocol):
    """Anything with the coordinates of a grid, degrees."""

    latitude: np.ndarray
    longitude: np.ndarray


@dataclass(frozen=True)
class MapFrame:
    """Draws fields in one projection; `crs` is None for plain axes."""

    crs: Any = None
    data_crs: Any = None
    coastlines: bool = False

    @property
    def axes_options(self) -> dict:
        return {} if self.crs is None else {"projection": self.crs}

    @property
    def transform(self) -> dict:
        return {} if self.crs is None else {"transform": self.data_crs}

    def aspect(self, grid: Gridded) -> float:
        """Height of a map over its width."""
        if self.crs is not None:
            return 0.51
        west, east, south, north = extent(grid)
        return float(np.clip((north - south) / (east - west), 0.2, 1.2))

    def shade(self, axes: Axes, grid: Gridded, field: np.ndarray, **options: Any) -> Any:
        """Colour each cell of `field` [latitude, longitude]."""
        longitude, field = wrapped(grid.longitude, field)
        corners = edges(longitude), np.clip(edges(grid.latitude), -90, 90)
        shading = axes.pcolormesh(*corners, field, rasterized=True, **options, **self.transform)
        if self.crs is None:
            west, east, south, north = extent(grid)
            axes.set(xlim=(west, east), ylim=(south, north))
        return shading

    def contour(self, axes: Axes, grid: Gridded, field: np.ndarray, **options: Any) -> Any:
        longitude, field = wrapped(grid.longitude, field)
        extra = {} if self.crs is None else {"transform_first": True}
        mesh = np.meshgrid(longitude, grid.latitude)
        return axes.contour(*mesh, field, **options, **self.transform, **extra)

    def finish(self, axes: Axes, left: bool, bottom: bool) -> None:
        """Coastlines or coordinate labels, whichever the projection has."""
        if self.crs is not None:
            axes.set_global()
            if self.coastlines:
                axes.coastlines(resolution="110m", linewidth=0.5)
            return
        wide = np.ptp(axes.get_xlim()) > 180
        west, east = axes.get_xlim()
        # a whole turn ends where it began: one label is enough
        turn = FixedLocator([tick for tick in np.arange(-360, 361, 90) if west <= tick < east])
        axes.xaxis.set_major_locator(turn if wide else MaxNLocator(4, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_locator(MultipleLocator(45) if wide else MaxNLocator(4, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: longitude_text(value)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: latitude_text(value)))
        axes.tick_params(labelleft=left, labelbottom=bottom, labelsize=7, length=2, pad=2)
        for side in ("top", "right"):
            axes.spines[side].set_visible(True)


def map_frame(settings: FigureSettings) -> MapFrame:
    """The frame that the configuration asks for. Raises UnavailableError if it needs cartopy and has none."""
    if settings.publication.projection == "plate-carree":
        return MapFrame()
    try:
        from cartopy import config, crs
    except ImportError:
        raise UnavailableError(
            f"publication.projection: {settings.publication.projection} needs cartopy; "
            "`pip install 'isohypse[maps]'` or use plate-carree"
        ) from None
    coastlines = not settings.synthetic and _has_coastlines(config)
    return MapFrame(crs.Robinson(), crs.PlateCarree(), coastlines)


def _has_coastlines(config: dict) -> bool:
    """Whether cartopy has the coastlines on disk: drawing must not start a download."""
    file = Path("shapefiles/natural_earth/physical/ne_110m_coastline.shp")
    folders = (config.get("pre_existing_data_dir"), config.get("data_dir"))
    return any((Path(folder) / file).is_file() for folder in folders if folder)


def is_cyclic(longitude: np.ndarray) -> bool:
    """Whether one more step from the last longitude is the first, a turn later."""
    step = (longitude[-1] - longitude[0]) / (len(longitude) - 1)
    return bool(abs(longitude[-1] + step - longitude[0] - 360) < 0.01 * step)


def wrapped(longitude: np.ndarray, field: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """On a global grid the first column once more at 360 degrees, so that no seam is left."""
    if not is_cyclic(longitude):
        return longitude, field
    return np.append(longitude, longitude[0] + 360), np.concatenate([field, field[:, :1]], axis=1)


def edges(centres: np.ndarray) -> np.ndarray:
    """[n + 1] borders of n cells: half-way between the centres, and as far beyond the outer ones."""
    centres = np.asarray(centres, dtype=float)
    middle = (centres[1:] + centres[:-1]) / 2
    return np.concatenate([[2 * centres[0] - middle[0]], middle, [2 * centres[-1] - middle[-1]]])


def extent(grid: Gridded) -> tuple[float, float, float, float]:
    """West, east, south, north; a global grid from its first longitude once around."""
    south, north = sorted(np.clip(edges(grid.latitude)[[0, -1]], -90, 90))
    if is_cyclic(grid.longitude):
        return float(grid.longitude[0]), float(grid.longitude[0]) + 360, south, north
    west, east = edges(grid.longitude)[[0, -1]]
    return float(west), float(east), south, north


def rounded_up(value: float) -> float:
    """The next of 1, 1.5, 2, 3, 4, 5, 6, 8, 10 times a power of ten; 1 for zero."""
    if value <= 0:
        return 1.0
    decade = 10.0 ** np.floor(np.log10(value))
    return float(
        next(step * decade for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if step * decade >= value * 0.999999)
    )


def longitude_text(degrees: float) -> str:
    turned = (degrees + 180) % 360 - 180
    if turned in (0, -180):
        return f"{abs(turned):.0f}°"
    return f"{abs(turned):g}°{'E' if turned > 0 else 'W'}"


def latitude_text(degrees: float) -> str:
    return f"{abs(degrees):g}°" + ("" if degrees == 0 else "N" if degrees > 0 else "S")
