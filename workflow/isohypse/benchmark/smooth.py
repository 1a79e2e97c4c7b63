# SPDX-License-Identifier: Apache-2.0
"""A training on smooth random fields: the real batches, network and step; only the archive is made up.

What is learnt is waves that travel east, each at a speed of its own, under noise that nothing can foresee.
Fields, batches and the start of the weights are the same every time on one device.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from isohypse.benchmark.trial import LATITUDES, LONGITUDES, TABLE_3, same_network
from isohypse.config.sections import Training
from isohypse.data.windows import Order, Windows
from isohypse.errors import ConfigurationError
from isohypse.models.catalogue import flavour_of, label_of
from isohypse.models.network import Network
from isohypse.training.batches import Batches, Draw, ResidentBatches
from isohypse.training.hardware import choose_device
from isohypse.training.step import Step, build_step

GAP_FRAMES = 50
"""Between the last training frame and the first validation frame."""
MEAN_M, STD_M = 5500.0, 150.0
RADIANS_A_FRAME = 0.12
NOISE = 0.1


class Scale(NamedTuple):
    """What `training.frames.Normalisation` knows: float32 metres [level, 1, 1]."""

    mean_m: np.ndarray
    std_m: np.ndarray


class SmoothFrames:
    """Stands for an archive of one level (`training.frames.Frames`).

    heights: float32 metres [time, level, latitude, longitude] on `device`.
    """

    def __init__(self, count: int, device: torch.device):
        self.normalisation = Scale(*(np.full((1, 1, 1), value, np.float32) for value in (MEAN_M, STD_M)))
        self.latitude = np.linspace(90.0, -90.0, LATITUDES)
        self.heights = MEAN_M + STD_M * smooth_fields(count, device)

    def read(self, index: np.ndarray) -> np.ndarray:
        """float32 [frame, level, latitude, longitude], normalised."""
        heights = self.heights[torch.from_numpy(index).to(self.heights.device)]
        return ((heights - MEAN_M) / STD_M).cpu().numpy()


def smooth_fields(count: int, device: torch.device) -> Tensor:
    """float32 [time, 1, latitude, longitude]: five waves of amplitude 1/k, and noise."""
    generator = torch.Generator(device).manual_seed(0)
    time = torch.arange(count, device=device)[:, None, None] * RADIANS_A_FRAME
    latitude = torch.linspace(-1.5, 1.5, LATITUDES, device=device)[:, None]
    longitude = torch.arange(LONGITUDES, device=device) * (2 * torch.pi / LONGITUDES)
    fields = NOISE * torch.randn(count, LATITUDES, LONGITUDES, generator=generator, device=device)
    for k in range(1, 6):
        phase = k * (longitude + latitude) - (0.5 + 0.3 * k) * time
        fields += torch.sin(phase) * torch.cos(latitude) / k
    return fields.unsqueeze(1)


@dataclass(frozen=True)
class SmoothTraining:
    """What is trained and for how long. Raises ConfigurationError for names or numbers that cannot be."""

    training_windows: ClassVar[int] = 1700
    model: str
    flavour: str
    steps: int
    warmup_steps: int
    batch_size: int = 256
    frames: int = 8
    """T, of the input; one frame is forecast."""
    layers: int | None = None
    """None: the flavour's."""
    device: str = "auto"

    def __post_init__(self) -> None:
        flavour_of(self.model, self.flavour)
        for name, value in vars(self).items():
            least = 0 if name == "warmup_steps" else 1
            if isinstance(value, int) and value < least:
                raise ConfigurationError(f"benchmark: {name} is {value}, not at least {least}")

    @property
    def label(self) -> str:
        return f"{label_of(self.model)} ({self.flavour})"

    def chosen_device(self) -> torch.device:
        return choose_device(self.device)

    def smooth_frames(self, windows: int = 0) -> SmoothFrames:
        """The frames of all training windows, and of `windows` for validation after them."""
        frames = self.training_windows + self.frames + (windows and GAP_FRAMES + windows + self.frames)
        return SmoothFrames(frames, self.chosen_device())

    def windows_after(self, count: int) -> Windows:
        """`count` windows for validation, after the training frames."""
        first = self.training_windows + self.frames + GAP_FRAMES
        return Windows(np.arange(first, first + count), self.frames, 1)

    def network(self) -> Network:
        """The same every time on one device."""
        return same_network(self.model, self.flavour, self.frames, self.chosen_device(), self.layers)

    def batches(self, frames: SmoothFrames, precision: str) -> Batches:
        """All training windows in random order; inputs rounded as autocast would."""
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        draw = Draw(Order(np.arange(self.training_windows), self.batch_size, seed=0), self.frames, 1, dtype)
        return ResidentBatches(frames.heights, draw, frames.normalisation)

    def step(
        self, network: Network, frames: SmoothFrames, precision: str, *, mode: str, history: int
    ) -> Step:
        """As `training.step.build_step` makes it, with the paper's optimizer."""
        shape = {"steps": self.steps, "batch_size": self.batch_size}
        training = Training(**shape, **TABLE_3 | {"warmup_steps": self.warmup_steps})
        batches, kernels = self.batches(frames, precision), network.kernel_names(batch=self.batch_size)
        device = self.chosen_device()
        return build_step(
            network, training, batches, device, precision, history=history, kernels=kernels, mode=mode
        )
