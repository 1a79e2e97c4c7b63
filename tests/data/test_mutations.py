# SPDX-License-Identifier: Apache-2.0
"""200 random mutations of a valid file: the store holds exactly the right values, or the file is refused.

What each generation guarantees by itself differs. In netCDF-4 each deflated block ends with a checksum, so
flipped bytes in heights are seen; the few hundred bytes around the blocks have none, and netCDF-3 has none at
all. There the record written at download (SHA-256) sees every change.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import netCDF4
import numpy as np
import pytest

from isohypse.config.sections import NCEP_LEVELS_HPA
from isohypse.config.settings import ArchiveSettings
from isohypse.data.archive import open_archive, write_archive_year
from isohypse.data.sources.record import write_record
from isohypse.errors import DataError

SETTINGS = ArchiveSettings(version=1, kind="ncep-r1", levels_hpa=NCEP_LEVELS_HPA, stride=1)
STEPS = 4
RIGHT, REFUSED = "right", "refused"
Mutation = Callable[[Path, np.random.Generator], None]


@pytest.fixture(scope="module")
def originals(tmp_path_factory, write_ncep) -> dict[bool, tuple[Path, np.ndarray]]:
    """packed -> (file, heights)."""
    folder, found = tmp_path_factory.mktemp("originals"), {}
    for packed, compression in ((False, "zlib"), (True, None)):
        path = folder / f"{packed}.nc"
        found[packed] = path, write_ncep(path, steps=STEPS, packed=packed, compression=compression)
    return found


def edit(path: Path) -> netCDF4.Dataset:
    file = netCDF4.Dataset(path, "r+")
    file.set_auto_maskandscale(False)
    return file


def flip(path: Path, rng: np.random.Generator, first: int = 0, stop: int | None = None) -> None:
    content = bytearray(path.read_bytes())
    for place in rng.integers(first, stop or len(content), size=rng.integers(1, 4)):
        content[place] ^= 1 << rng.integers(8)
    path.write_bytes(content)


def flip_in_deflated_heights(path: Path, rng: np.random.Generator) -> None:
    size = path.stat().st_size
    flip(path, rng, size // 4, size * 3 // 4)  # the file's header and its index lie outside


def truncate(path: Path, rng: np.random.Generator) -> None:
    os.truncate(path, int(rng.integers(0, path.stat().st_size)))


def forget_a_frame(path: Path, rng: np.random.Generator) -> None:
    """What a block that was never written reads as."""
    with edit(path) as file:
        file["hgt"][rng.integers(STEPS)] = 0


def reorder_levels(path: Path, rng: np.random.Generator) -> None:
    order = rng.permutation(len(NCEP_LEVELS_HPA))
    with edit(path) as file:
        file["level"][:] = file["level"][:][order]
        file["hgt"][:] = file["hgt"][:][:, order]


def relabel_levels(path: Path, rng: np.random.Generator) -> None:
    """The names change places, the fields do not."""
    a, b = rng.choice(len(NCEP_LEVELS_HPA), size=2, replace=False)
    with edit(path) as file:
        level = file["level"][:]
        level[[a, b]] = level[[b, a]]
        file["level"][:] = level


def change_a_level(path: Path, rng: np.random.Generator) -> None:
    with edit(path) as file:
        file["level"][rng.integers(len(NCEP_LEVELS_HPA))] = rng.choice([0, 550, np.nan, *NCEP_LEVELS_HPA[:1]])


def shift_times(path: Path, rng: np.random.Generator) -> None:
    with edit(path) as file:
        file["time"][:] += rng.choice([-6, 3, 6, 24, 8760])


def swap_times(path: Path, rng: np.random.Generator) -> None:
    a, b = rng.choice(STEPS, size=2, replace=False)
    with edit(path) as file:
        time = file["time"][:]
        time[[a, b]] = time[[b, a]]
        file["time"][:] = time


def be_daily_means(path: Path, rng: np.random.Generator) -> None:
    with edit(path) as file:
        file["time"][:] = file["time"][0] + 24.0 * np.arange(STEPS)


def punch_holes(path: Path, rng: np.random.Generator) -> None:
    with edit(path) as file:
        hole = rng.choice([np.nan, np.inf, -9.96921e36]) if file["hgt"].dtype == np.float32 else 32766
        values = file["hgt"][:]
        for place in rng.integers(0, values.size, size=rng.integers(1, 100)):
            values.flat[place] = hole
        file["hgt"][:] = values


ATTRIBUTES = (
    ("hgt", "units", ("m**2 s**-2", "dam", "K")),
    ("hgt", "scale_factor", (np.float32(0.1), np.float32(1.0001))),
    ("hgt", "add_offset", (np.float32(0), np.float32(32067))),
    ("hgt", "missing_value", (np.int16(-26066), np.float32(5300))),
    ("time", "units", ("days since 1800-01-01", "hours since 1900-01-01", "hours", "fortnights since ever")),
    ("time", "calendar", ("noleap", "360_day", "martian")),
    ("level", "units", ("Pa", "m", "sigma")),
    ("lat", "units", ("radians",)),
)


def change_an_attribute(path: Path, rng: np.random.Generator) -> None:
    name, attribute, values = ATTRIBUTES[rng.integers(len(ATTRIBUTES))]
    with edit(path) as file:
        file[name].setncattr(attribute, values[rng.integers(len(values))])


def flip_anything_recorded(path: Path, rng: np.random.Generator) -> None:
    write_record(path, path, {"url": "https://example.org/hgt.2026.nc"})
    flip(path, rng)


MUTATIONS: dict[str, tuple[Mutation, set[str]]] = {
    "flipped in deflated heights": (flip_in_deflated_heights, {RIGHT, REFUSED}),
    "flipped anywhere, recorded": (flip_anything_recorded, {REFUSED}),
    "truncated": (truncate, {REFUSED}),
    "a lost frame": (forget_a_frame, {REFUSED}),
    "levels reordered": (reorder_levels, {RIGHT}),
    "levels relabelled": (relabel_levels, {REFUSED}),
    "a level changed": (change_a_level, {RIGHT, REFUSED}),
    "times shifted": (shift_times, {REFUSED}),
    "times swapped": (swap_times, {REFUSED}),
    "daily means": (be_daily_means, {REFUSED}),
    "holes": (punch_holes, {REFUSED}),
    "an attribute changed": (change_an_attribute, {RIGHT, REFUSED}),
}


def outcome(path: Path, heights: np.ndarray, store: Path) -> str:
    """Archive `path`; whatever is not refused by name must be exactly `heights`."""
    shutil.rmtree(store.parent, ignore_errors=True)
    refusal = None
    try:
        write_archive_year(SETTINGS, 2026, [path], store)
    except DataError as error:
        refusal = str(error)
    if refusal is not None:
        assert refusal.startswith(f"{path}: ")
        assert "\n" not in refusal
        assert list(store.parent.glob("*")) == []
        return REFUSED
    found = open_archive([store])
    assert found.time.values[0] == np.datetime64("2026-01-01T00")
    assert found.level.values.tolist() == list(NCEP_LEVELS_HPA)
    assert found.geopotential_height.values.tobytes() == heights.tobytes()
    return RIGHT


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_mutated_file_is_read_right_or_refused(originals, tmp_path, mutation):
    mutate, allowed = MUTATIONS[mutation]
    rng = np.random.default_rng(sum(map(ord, mutation)))
    for trial in range(17):  # of 12 mutations: 204 in all
        packed = mutate is not flip_in_deflated_heights and trial % 2 == 1
        original, heights = originals[packed]
        path = tmp_path / "hgt.2026.nc"
        (tmp_path / "hgt.2026.nc.json").unlink(missing_ok=True)
        shutil.copyfile(original, path)
        mutate(path, rng)
        assert outcome(path, heights, tmp_path / "archive" / "2026.zarr") in allowed, f"trial {trial}"
