# SPDX-License-Identifier: Apache-2.0
"""Statistics from the moments that an archive keeps are those of the heights themselves."""

import shutil

import pytest

from isohypse.config.sections import Split
from isohypse.config.settings import ArchiveSettings, StatisticsSettings
from isohypse.data import statistics
from isohypse.data.archive import write_archive_year
from isohypse.data.statistics import Statistics, compute_statistics
from isohypse.errors import DataError

LEVELS = (500, 300)
ARCHIVE = ArchiveSettings(version=1, kind="ncep-r1", levels_hpa=LEVELS, stride=1)


@pytest.fixture(scope="module")
def stores(tmp_path_factory, write_ncep):
    """Two years: 12 shards of at most 122 frames, and one of 7."""
    folder = tmp_path_factory.mktemp("years")
    for year, steps in ((2025, 1460), (2026, 7)):
        path = folder / f"hgt.{year}.nc"
        write_ncep(path, year, steps, LEVELS)
        write_archive_year(ARCHIVE, year, [path], folder / f"{year}.zarr")
    return [folder / "2025.zarr", folder / "2026.zarr"]


@pytest.fixture
def bare(stores, tmp_path):
    """The same without moments, as an older version wrote them."""
    for store in stores:
        shutil.copytree(store, tmp_path / store.name, ignore=shutil.ignore_patterns("moments"))
    return [tmp_path / store.name for store in stores]


def found(stores, destination, protocol="paper", end=0.9, levels=LEVELS) -> Statistics:
    split = Split(train=(0.0, end), validation=(end, 1.0))
    settings = StatisticsSettings(version=1, levels_hpa=levels, protocol=protocol, split=split)
    compute_statistics(settings, stores, destination)
    return Statistics.read(destination)


@pytest.mark.parametrize("levels", [LEVELS, (300,)])
@pytest.mark.parametrize(("protocol", "end"), [("paper", 0.9), ("standard", 0.9), ("standard", 0.5)])
def test_kept_moments_give_the_same_statistics_to_the_bit(stores, bare, tmp_path, protocol, end, levels):
    """Periods that end in a shard of 2025 are read from there on."""
    arguments = (tmp_path / "s.json", protocol, end, levels)
    assert found(stores, *arguments) == found(bare, *arguments)
    assert found(stores[::-1], *arguments) == found(bare, *arguments)


def test_what_moments_cover_is_not_read(stores, tmp_path, monkeypatch):
    seen = []
    make = statistics.circle_moments
    monkeypatch.setattr(statistics, "circle_moments", lambda block: seen.append(len(block)) or make(block))
    found(stores, tmp_path / "s.json")
    assert seen == []
    found(stores, tmp_path / "s.json", "standard", 0.5)  # 733 frames: 6 shards and a frame of each level
    assert seen == [1, 1]


def test_a_shard_that_got_lost_is_an_error(stores, tmp_path):
    store = shutil.copytree(stores[0], tmp_path / stores[0].name)
    (store / "geopotential_height" / "c" / "3" / "0" / "0" / "0").unlink()
    with pytest.raises(DataError, match="missing or infinite"):
        found([store], tmp_path / "s.json")
