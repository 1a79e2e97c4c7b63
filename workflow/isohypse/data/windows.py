# SPDX-License-Identifier: Apache-2.0
"""Which frames each training or evaluation sample consists of: index arithmetic on the archive's time axis.

A *window* is `t_in` input frames and the `t_out` frames after them. Two protocols:

- `paper`, as published: fractions count windows, dates are those of a window's first frame, and nothing
  lies between the ranges, so the last training windows share frames with the first validation windows.
- `standard`: fractions count frames, every frame of a window lies inside its range, and `gap_frames` frames
  are left out at the start of validation and of test, so that no frame is shared and no neighbour gives
  away the answer.

Reads and writes nothing; needs numpy alone.
"""

from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache

import numpy as np

from isohypse.config.sections import Bound, ProtocolName, Split
from isohypse.errors import DataError

Index = int | slice | np.ndarray
_TURNS = 1 << 62


@dataclass(frozen=True, eq=False)
class Windows:
    """Samples as indices into the archive's time axis.

    starts: int64 [n], first input frame of each window, increasing.
    """

    starts: np.ndarray
    t_in: int
    t_out: int

    def __len__(self) -> int:
        return len(self.starts)

    def inputs(self, index: Index = slice(None)) -> np.ndarray:
        """int64 [..., t_in]: input frames of the windows `index`, oldest first."""
        return np.asarray(self.starts[index])[..., None] + np.arange(self.t_in)

    def targets(self, index: Index = slice(None)) -> np.ndarray:
        """int64 [..., t_out]: the frames to be forecast."""
        return self.inputs(index)[..., :1] + self.t_in + np.arange(self.t_out)

    @property
    def last_input(self) -> np.ndarray:
        """int64 [n]: the last input frame, at whose time a forecast is issued."""
        return self.starts + (self.t_in - 1)

    @property
    def frames(self) -> slice:
        """The smallest range of frames that holds every window."""
        return slice(int(self.starts[0]), int(self.starts[-1]) + self.t_in + self.t_out)


def split_windows(
    time: np.ndarray, split: Split, protocol: ProtocolName, t_in: int, t_out: int
) -> dict[str, Windows]:
    """The windows of `train`, `validation` and, where the split has one, `test`.

    time: datetime64 [n], the archive's time axis. Raises DataError naming a range that holds no window.
    """
    length = t_in + t_out
    positions = max(len(time) - length + 1, 0)
    found = {}
    for name in split.ranges:
        if protocol == "paper":
            first, stop = _range(time[:positions], split, name)
        else:
            first, stop = _range(time, split, name)
            first += split.gap_frames if name != "train" else 0
            stop -= length - 1
        if stop <= first:
            raise DataError(_empty(time, split, name, length))
        found[name] = Windows(np.arange(first, stop, dtype=np.int64), t_in, t_out)
    return found


def training_range(time: np.ndarray, split: Split) -> slice:
    """The frames of the training range, whatever the protocol. Raises DataError if there are none."""
    first, stop = _range(time, split, "train")
    if stop <= first:
        raise DataError(_empty(time, split, "train", 1))
    return slice(first, stop)


def training_frames(time: np.ndarray, split: Split, protocol: ProtocolName) -> slice:
    """The frames that statistics may see: all of them as published, else the training range."""
    return slice(0, len(time)) if protocol == "paper" else training_range(time, split)


def evaluation_windows(windows: dict[str, Windows]) -> Windows:
    """The windows that are scored: `test` where there is one, else `validation`."""
    return windows.get("test", windows["validation"])


def batch_order(n: int, batch_size: int, seed: int, step: int) -> np.ndarray:
    """int64 [batch_size]: the windows of training step `step` (from 0).

    Epochs are permutations of 0..n-1 laid end to end and cut into batches, so a batch may hold the end of one
    epoch and the start of the next. The result depends on the arguments alone, never on earlier calls.
    """
    position = np.arange(step * batch_size, (step + 1) * batch_size, dtype=np.int64)
    epoch, place = position // n, position % n
    order = np.empty(batch_size, dtype=np.int64)
    for number in np.unique(epoch):
        here = epoch == number
        order[here] = _permutation(n, seed, int(number))[place[here]]
    return order


@dataclass(frozen=True, eq=False)
class Order:
    """Which windows each training step draws: follows from (seed, step) alone, never from earlier calls.

    starts: int64 [n], first input frame of each window; they follow each other frame by frame. part: which
    places of a batch are this process's; the batch as a whole is the same for any number of processes.

    With `stretch` 1 batches are those of `batch_order`. With more, each place of a batch draws the windows of
    one stretch of the archive, a window a step, in random order: this is a *chapter* of `stretch` steps. The
    next chapter goes on to other stretches, in the order of `batch_order`. So the windows of a step are of as
    many stretches as there are places, but all steps of a chapter see the same ones, and their frames have
    to be brought to the device once, not once a window. An epoch is every stretch once: every window once,
    but that up to `stretch` - 1 windows near the end are drawn twice where `stretch` does not divide n.
    """

    starts: np.ndarray
    batch_size: int
    seed: int
    stretch: int = 1
    part: slice = field(default_factory=lambda: slice(None))

    def __post_init__(self) -> None:
        if self.stretch > len(self.starts):
            have = f"the {len(self.starts)} training windows"
            raise DataError(f"training.stretch_windows: {self.stretch} is more than {have}")

    @property
    def places(self) -> int:
        """Windows of a step that are this process's."""
        return len(range(self.batch_size)[self.part])

    def __call__(self, step: int) -> np.ndarray:
        """int64 [places]: first input frame of each window of training step `step` (from 0)."""
        return self.stretches(step // self.stretch) + self.turns(step)

    def stretches(self, chapter: int) -> np.ndarray:
        """int64 [places]: first frame of the stretch that each place draws from."""
        n = len(self.starts)
        drawn = batch_order(-(-n // self.stretch), self.batch_size, self.seed, chapter)[self.part]
        return self.starts[np.minimum(drawn * self.stretch, n - self.stretch)]

    def turns(self, step: int) -> np.ndarray:
        """int64 [places]: how many frames after its stretch's first each window starts."""
        chapter, turn = divmod(step, self.stretch)
        return _turns(self.batch_size, self.stretch, self.seed, chapter)[self.part, turn]


@lru_cache(maxsize=4)
def _turns(batch_size: int, stretch: int, seed: int, chapter: int) -> np.ndarray:
    """int64 [batch_size, stretch]: a permutation of the stretch for each place."""
    key = [seed, _TURNS + chapter]  # no epoch's
    turns = np.tile(np.arange(stretch, dtype=np.int64), (batch_size, 1))
    return np.random.Generator(np.random.Philox(key=key)).permuted(turns, axis=1)


@lru_cache(maxsize=4)
def _permutation(n: int, seed: int, epoch: int) -> np.ndarray:
    # Philox is counter-based: its key names the stream, so no state has to be kept.
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(n)


def _range(time: np.ndarray, split: Split, name: str) -> tuple[int, int]:
    first, stop = (_position(time, bound) for bound in split.ranges[name])
    return first, stop


def _position(time: np.ndarray, bound: Bound) -> int:
    """Index of the first entry at or after `bound`."""
    if isinstance(bound, date):
        return int(np.searchsorted(time, np.datetime64(bound, "ns")))
    return int(bound * len(time) + 1e-9)  # 0.29 * 100 is 28.999999999999996


def _empty(time: np.ndarray, split: Split, name: str, length: int) -> str:
    start, stop = split.ranges[name]
    period = f"{_hour(time[0])} to {_hour(time[-1])}" if len(time) else "nothing"
    gap = f" after a gap of {split.gap_frames} frames" if split.gap_frames and name != "train" else ""
    return (
        f"{name} range [{start}, {stop}): no {length} consecutive frames{gap} in the {len(time)} frames of "
        f"the archive ({period}); widen the range under `splits` or shorten the windows"
    )


def _hour(time: np.datetime64) -> str:
    return str(np.datetime64(time, "h"))
