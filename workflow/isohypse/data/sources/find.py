# SPDX-License-Identifier: Apache-2.0
"""Which variable of a file holds heights, and which of its dimensions is what.

Three sources of names, in this order, the first that yields one wins: the configuration's section `files`; CF
attributes (axis, standard_name, units); the names that reanalyses and models are in the habit of using.
"""

import numpy as np
import xarray as xr

from isohypse.config.sections import Files
from isohypse.data.sources.ncep import PRESSURE_UNITS
from isohypse.errors import DataError

GRAVITY = 9.80665  # m s-2, the standard value: geopotential (m2 s-2) / GRAVITY is geopotential height (m)
STANDARD_NAMES = ("geopotential_height", "geopotential")
VARIABLES = ("hgt", "gh", "z", "geopotential_height", "geopotential", "zg", "phi", "z3", "z500", "height")
HABITS = {
    "time": ("time", "valid_time", "date", "datetime", "t"),
    "level": (
        "level",
        "pressure_level",
        "lev",
        "plev",
        "isobaricinhpa",
        "pressure",
        "pfull",
        "isobaric",
        "p",
    ),
    "latitude": ("latitude", "lat", "y", "nav_lat"),
    "longitude": ("longitude", "lon", "x", "nav_lon"),
}
AXES = {"time": "T", "level": "Z", "latitude": "Y", "longitude": "X"}
STANDARD = {"time": "time", "level": "air_pressure", "latitude": "latitude", "longitude": "longitude"}
NORTH = ("degrees_north", "degree_north", "degree_n", "degrees_n", "degreen", "degreesn")
EAST = ("degrees_east", "degree_east", "degree_e", "degrees_e", "degreee", "degreese")
HPA_PER_UNIT = {**PRESSURE_UNITS, "hectopascal": 1.0, "hectopascals": 1.0, "pascal": 0.01, "pascals": 0.01}
METRES = ("m", "gpm", "meter", "meters", "metre", "metres", "geopotential meters", "geopotential metres")
METRES_PER_UNIT = {
    **dict.fromkeys(METRES, 1.0),
    **dict.fromkeys(("m2 s-2", "m**2 s**-2", "m^2 s^-2", "m2/s2", "m^2/s^2", "m**2/s**2"), 1 / GRAVITY),
    **dict.fromkeys(("j kg-1", "j/kg", "j kg**-1"), 1 / GRAVITY),
    **dict.fromkeys(("dam", "gpdam", "gpdm"), 10.0),
}


def find_variable(source: xr.Dataset, files: Files, where: str) -> xr.DataArray:
    """The variable of heights or geopotential. Raises DataError if none or more than one fits."""
    there = {str(name): source[name] for name in source.data_vars}
    if files.variable is not None:
        if files.variable not in there:
            raise DataError(
                f"{where}: files.variable {files.variable!r} is not there; there are {_list(there)}"
            )
        return there[files.variable]
    fields = {name: variable for name, variable in there.items() if variable.ndim >= 3}
    by_standard = [name for name, v in fields.items() if v.attrs.get("standard_name") in STANDARD_NAMES]
    by_habit = [name for name in fields if name.lower() in VARIABLES]
    found = by_standard or by_habit
    if not found:
        raise DataError(f"{where}: no variable of heights found in {_list(there)}; name it in files.variable")
    if len(found) > 1:
        raise DataError(f"{where}: {_list(found)} could all be the heights; choose one in files.variable")
    return there[found[0]]


def find_dimensions(variable: xr.DataArray, files: Files, where: str) -> dict[str, str | None]:
    """Names for time, level, latitude and longitude; level may be a scalar coordinate, or None.

    Raises DataError if one is missing or not unique, or if another dimension is longer than 1.
    """
    found = {role: _find_dimension(variable, role, getattr(files, role), where) for role in HABITS}
    for role in ("time", "latitude", "longitude"):
        if found[role] not in variable.dims:
            raise DataError(f"{where}: {variable.name}{variable.dims} has no {role}; name it in files.{role}")
    for dim in set(found.values()) & set(variable.dims):
        if dim not in variable.coords:
            raise DataError(f"{where}: dimension {dim} has no coordinate variable")
    others = [dim for dim in variable.dims if dim not in found.values() and variable.sizes[dim] > 1]
    if others:
        raise DataError(f"{where}: {variable.name} has dimensions that were not understood: {_list(others)}")
    return found


def _find_dimension(variable: xr.DataArray, role: str, override: str | None, where: str) -> str | None:
    """A dimension with that role, else a scalar coordinate with it, else None."""
    if override is not None:
        if override not in {*variable.dims, *variable.coords}:
            raise DataError(
                f"{where}: files.{role} {override!r} is not there; there are {_list(variable.dims)}"
            )
        return override
    scalars = [str(name) for name, coordinate in variable.coords.items() if coordinate.ndim == 0]
    for names in ([str(dim) for dim in variable.dims], scalars):
        by_attributes = [name for name in names if _says(variable, name, role)]
        by_habit = [name for name in names if name.lower() in HABITS[role]]
        found = by_attributes or by_habit
        if len(found) > 1:
            raise DataError(f"{where}: {_list(found)} could all be the {role}; choose one in files.{role}")
        if found:
            return found[0]
    return None


def _says(variable: xr.DataArray, name: str, role: str) -> bool:
    """True if the attributes of coordinate `name` give it `role`."""
    if name not in variable.coords:
        return False
    attrs = variable[name].attrs
    units = str(attrs.get("units", "")).lower()
    by_units = {"level": units in HPA_PER_UNIT, "latitude": units in NORTH, "longitude": units in EAST}
    return (
        attrs.get("axis") == AXES[role]
        or attrs.get("standard_name") == STANDARD[role]
        or by_units.get(role, False)
    )


def pressure_hpa(variable: xr.DataArray, name: str | None, files: Files, where: str) -> np.ndarray:
    """float64 [level] hPa: the coordinate `name`, or `files.level_hpa` for a file of one level."""
    if name is None:
        if files.level_hpa is None:
            raise DataError(f"{where}: {variable.name} has no level; say which it is in files.level_hpa")
        return np.array([files.level_hpa], dtype=np.float64)
    values = np.atleast_1d(variable[name].values).astype(np.float64)
    units = str(variable[name].attrs.get("units", "")).strip()
    if units and units.lower() not in HPA_PER_UNIT:
        raise DataError(
            f"{where}: level {name} is in {units!r}; only pressure levels in hPa or Pa can be used"
        )
    # Without units: no pressure in hPa is above 1100, hardly one in Pa below.
    factor = HPA_PER_UNIT[units.lower()] if units else (1.0 if values.max() <= 1100 else 0.01)
    values = values * factor
    if files.level_hpa is not None and files.level_hpa not in values.round(3):
        raise DataError(
            f"{where}: files.level_hpa is {files.level_hpa}, but {name} has {values.tolist()} hPa"
        )
    return values


def metres_per_unit(variable: xr.DataArray, files: Files, where: str) -> float:
    """What the values are multiplied by to give metres of geopotential height."""
    units = files.units or str(variable.attrs.get("units", "")).strip()
    name = variable.attrs.get("standard_name")
    units = units or {"geopotential": "m2 s-2", "geopotential_height": "m"}.get(name, "")
    if units.lower() not in METRES_PER_UNIT:
        found = repr(units) if units else "no units"
        raise DataError(f"{where}: {variable.name} has {found}; say in files.units: m, m2 s-2 or dam")
    factor = METRES_PER_UNIT[units.lower()]
    if files.units is None and name in STANDARD_NAMES and (name == "geopotential") != (factor == 1 / GRAVITY):
        raise DataError(
            f"{where}: {variable.name} is called {name} but given in {units}; say which in files.units"
        )
    return factor


def _list(names: object) -> str:
    return ", ".join(map(str, names))
