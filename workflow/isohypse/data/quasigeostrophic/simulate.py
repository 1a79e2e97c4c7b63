# SPDX-License-Identifier: Apache-2.0
"""Years of one continuous trajectory: settings and a restart in, `hgt.YYYY.nc` and the next restart out.

A restart (safetensors) holds everything the future depends on: potential vorticity, analysis error,
tropical waves, the state of the random generator, the date. Years made one after another by separate
processes are therefore bit for bit those of one long run on the same machine.
"""

import json
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from isohypse.data import ncep_format
from isohypse.data.quasigeostrophic.dynamics import QuasigeostrophicModel
from isohypse.data.quasigeostrophic.heights import AnalysisError, HeightAnalysis, TropicalWaves
from isohypse.errors import DataError
from isohypse.progress import track
from isohypse.storage import atomic_path

FRAME_HOURS = 6
MODEL_VERSION = "2"  # rises with every change of the trajectory: a restart of another version is refused
STATE = ("vorticity", "error", "tropics")  # the arrays of a restart, attributes of a trajectory
TRAJECTORY = "trajectory"
"""Under which name a restart says what it is, beside its tensors."""
SEASON_ORIGIN = datetime(2000, 1, 15)  # midwinter of the forcing
YEAR_HOURS = 365.2425 * 24  # Gregorian, so that the season stays on its day of the year


class QuasigeostrophicSettings(Protocol):
    """What the simulation asks of the configuration."""

    truncation: int
    """21 or 31."""
    seed: int
    spin_up_days: int
    """Days simulated and discarded before the first year."""
    noise_m: float
    """Root mean square of the analysis error, metres."""
    tides: bool


def settings_record(settings: QuasigeostrophicSettings) -> dict[str, int | float | bool]:
    """The settings a trajectory depends on, as written into its restarts."""
    return {
        "truncation": int(settings.truncation),
        "seed": int(settings.seed),
        "spin_up_days": int(settings.spin_up_days),
        "noise_m": float(settings.noise_m),
        "tides": bool(settings.tides),
    }


class Trajectory:
    """The state of the simulated atmosphere and its analysis at one time, `time` (UTC)."""

    def __init__(self, settings: QuasigeostrophicSettings, time: datetime):
        self.settings = settings_record(settings)
        self.time = time
        self.model = QuasigeostrophicModel(settings.truncation)
        self.analysis_error = AnalysisError(settings.truncation, settings.noise_m)
        self.rng = np.random.default_rng(settings.seed)
        self.vorticity = self.model.initial_state(self.rng)
        self.error = self.analysis_error.draw(self.rng)
        self.tropical_waves = TropicalWaves()
        self.tropics = self.tropical_waves.draw(self.rng)

    @classmethod
    def spun_up(cls, settings: QuasigeostrophicSettings, year: int) -> "Trajectory":
        """A new trajectory at the beginning of `year`, its spin-up behind it."""
        days = timedelta(days=settings.spin_up_days)
        trajectory = cls(settings, datetime(year, 1, 1) - days)
        for _ in track(
            range(days // timedelta(hours=FRAME_HOURS)), settings.spin_up_days * 4, "spin-up", "step"
        ):
            trajectory.advance()
        return trajectory

    def advance(self) -> None:
        """Go on by six hours."""
        hours = (self.time - SEASON_ORIGIN) / timedelta(hours=1)
        self.vorticity = self.model.advance(self.vorticity, float(np.cos(2 * np.pi * hours / YEAR_HOURS)))
        self.error = self.analysis_error.next(self.error, self.rng)
        self.tropics = self.tropical_waves.next(self.tropics, self.rng)
        self.time += timedelta(hours=FRAME_HOURS)

    def frames(self, steps: int, levels_hpa: Sequence[int]) -> Iterator[np.ndarray]:
        """Yield `steps` frames (level, latitude, longitude), float32 whole metres, from now on, six-hourly.

        Afterwards the trajectory stands at the time that follows the last frame.
        """
        analysis = HeightAnalysis(self.model.sphere.truncation, tuple(levels_hpa), self.settings["tides"])
        for _ in range(steps):
            yield analysis(self.model.psi(self.vorticity), self.error, self.tropics, self.time.hour)
            self.advance()

    def save(self, path: Path) -> None:
        """Write the restart, atomically."""
        metadata = {
            "model": MODEL_VERSION,
            "settings": json.dumps(self.settings),
            "time": self.time.isoformat(),
            "rng": json.dumps(self.rng.bit_generator.state),
        }
        entry = {TRAJECTORY: json.dumps(metadata)}  # a single one: safetensors would shuffle several
        with atomic_path(path) as temporary:
            save_file({name: getattr(self, name) for name in STATE}, temporary, entry)

    @classmethod
    def restored(cls, settings: QuasigeostrophicSettings, time: datetime, path: Path) -> "Trajectory":
        """The trajectory that `path` holds. DataError unless it has these settings and stands at `time`."""
        tensors, metadata = _read_restart(path)
        expected = {
            "model": MODEL_VERSION,
            "settings": json.dumps(settings_record(settings)),
            "time": time.isoformat(),
        }
        for name, value in expected.items():
            if metadata.get(name) != value:
                raise DataError(
                    f"{path}: restart of another trajectory: {name} is {metadata.get(name)}, expected "
                    f"{value}; delete it and simulate again from the first year"
                )
        trajectory = cls(settings, time)
        trajectory.rng.bit_generator.state = json.loads(metadata["rng"])
        for name, tensor in tensors.items():
            setattr(trajectory, name, tensor)
        return trajectory


def _read_restart(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = json.loads((file.metadata() or {}).get(TRAJECTORY, "{}"))
            return {name: file.get_tensor(name) for name in STATE}, metadata
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(f"{path}: not a restart of the quasi-geostrophic model: {error}") from error


def simulate_year(
    settings: QuasigeostrophicSettings,
    year: int,
    restart_in: Path | None,
    restart_out: Path,
    destination: Path,
    levels_hpa: Sequence[int] = ncep_format.LEVELS_HPA,
) -> None:
    """Simulate one calendar year: write the heights to `destination` and what the next year starts from.

    `restart_in` is the `restart_out` of the year before; None starts a trajectory, spin-up included. Both
    results appear only when complete, the restart first. `levels_hpa` says which levels the file has.
    Raises DataError if `restart_in` has other settings, another year, or is no restart; ConfigurationError
    for levels that NCEP does not have.
    """
    levels_hpa = ncep_format.checked_levels(levels_hpa)
    if restart_in is None:
        trajectory = Trajectory.spun_up(settings, year)
    else:
        trajectory = Trajectory.restored(settings, datetime(year, 1, 1), Path(restart_in))
    steps = ncep_format.steps_of_year(year)
    frames = track(trajectory.frames(steps, levels_hpa), steps, f"simulated {year}", "step")
    source = (
        f"Isohypse's three-level quasi-geostrophic model (Marshall & Molteni 1993), T{settings.truncation}, "
        f"seed {settings.seed}"
    )
    with atomic_path(destination) as temporary:
        ncep_format.write_year(temporary, year, levels_hpa, frames, source)
        trajectory.save(Path(restart_out))
