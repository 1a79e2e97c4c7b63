# SPDX-License-Identifier: Apache-2.0
"""The forecaster of the paper (Eqs. 8 to 10): T_in normalised frames in, T_out normalised frames out.

    [T_in, C, H, W] -> flatten each frame -> projection -> backbone -> last hidden state -> head
    -> [T_out, C, H, W]

Each frame is one token. Nothing leads from the input to the output beside the hidden state (no residual, no
persistence), so everything that a forecast knows has passed the d_model numbers of the last token.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from isohypse.errors import DataError
from isohypse.models.backbone import Backbone
from isohypse.models.mixer import INIT_STD, ShortConvolution, State


class DecayGroups(NamedTuple):
    """Parameters that weight decay pulls towards zero, and those that it must leave alone."""

    decayed: list[nn.Parameter]
    undecayed: list[nn.Parameter]


class Network(nn.Module):
    """Projection, backbone and head for one grid."""

    def __init__(
        self, backbone: Backbone, *, t_in: int, t_out: int, levels: int, latitude: int, longitude: int
    ):
        super().__init__()
        self.t_in, self.t_out = t_in, t_out
        self.grid = (levels, latitude, longitude)
        cells = levels * latitude * longitude
        self.projection = nn.Linear(cells, backbone.d_model)
        self.backbone = backbone
        self.head = nn.Linear(backbone.d_model, t_out * cells)
        if not self.head.weight.is_meta:  # there, PyTorch would load its compiler for it: seconds
            self.initialise()

    def forward(self, x: Tensor) -> Tensor:
        """Normalised heights `[batch, frame, level, latitude, longitude]` -> `[batch, t_out, level, ...]`.

        The number of frames is free. Raises DataError when the grid is not the one the network was built for.
        """
        self._check(x.shape[2:])
        hidden = self.backbone(self.projection(x.flatten(2)))
        return self._forecast(hidden[:, -1])

    def initial_state(self, batch: int) -> State:
        """What `step` starts from: no frame seen yet, for `batch` sequences side by side."""
        return self.backbone.initial_state(batch)

    def step(self, frame: Tensor, state: State) -> tuple[Tensor, State]:
        """One more frame of each sequence -> (the forecast from all frames so far, the state after it).

        frame: normalised heights `[batch, level, latitude, longitude]`; the forecast is that of `forward` on
        the whole sequence. A frame costs the same time and the state the same memory however long the
        sequence grows; the Transformer's keeps keys and values of every frame, and grows with it.

        Raises DataError when the grid is not the one the network was built for.
        """
        self._check(frame.shape[1:])
        hidden, state = self.backbone.step(self.projection(frame.flatten(1)), state)
        return self._forecast(hidden), state

    def _check(self, grid: torch.Size) -> None:
        if tuple(grid) != self.grid:
            raise DataError(f"frames are {tuple(grid)}, but the network was built for {self.grid}")

    def _forecast(self, hidden: Tensor) -> Tensor:
        return self.head(hidden).unflatten(-1, (self.t_out, *self.grid))

    def initialise(self) -> None:
        """Draw all parameters anew, from the default generator: weights normal with 0.02, biases 0, norms 1.

        A mixer adds its own start (decays, steps). Call it after `to_empty` on a network built on the meta
        device.
        """
        self.apply(_initialise)  # children first, so that a mixer has the last word on its own

    @torch.no_grad()
    def start_head_at(self, frame: Tensor) -> None:
        """Let every forecast start at `frame`, normalised heights `[level, latitude, longitude]`.

        Raises DataError when the frame is not of the network's grid.
        """
        if tuple(frame.shape) != self.grid:
            raise DataError(f"the frame is {tuple(frame.shape)}, but the network was built for {self.grid}")
        self.head.bias.copy_(frame.flatten().repeat(self.t_out))

    def kernel_names(
        self, *, batch: int = 1, frames: int | None = None, device: torch.device | None = None
    ) -> dict[str, str]:
        """The kernels that run at this batch and length (`t_in` by default), e.g. `{"gla": "closed"}`.

        device: where the network will be, by default where it is.

        Raises UnavailableError when the backend asked for cannot serve: call it before a long run.
        """
        frames = self.t_in if frames is None else frames
        device = self.head.weight.device if device is None else device
        return {m.recurrence: m.kernel_name(batch, frames, device) for m in self.backbone.mixers}

    def flops_per_sample(self, frames: int | None = None) -> int:
        """Floating-point operations of one sample's forward pass; a training step takes three times that.

        Two for each multiply-add of: every matrix and convolution weight on every frame, the head on the last
        frame only, and the recurrence by its definition (`Mixer.mixing_multiply_adds`), whichever form
        computes it. Norms, activations and gates are left out.
        """
        frames = self.t_in if frames is None else frames
        each_frame = self.projection.weight.numel() + sum(
            m.weight.numel() for m in self.backbone.modules() if isinstance(m, nn.Linear | ShortConvolution)
        )
        mixing = sum(m.mixing_multiply_adds(frames) for m in self.backbone.mixers)
        return 2 * (frames * each_frame + mixing + self.head.weight.numel())

    def decay_groups(self) -> DecayGroups:
        """Split the parameters for the optimizer: no weight decay on norms, biases, A_log, dt_bias and D.

        They are exactly the vectors: what is left, matrices and convolution taps, decays.
        """
        parameters = list(self.parameters())
        return DecayGroups([p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim <= 1])


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=INIT_STD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif hasattr(module, "initialise") and not isinstance(module, Network):
        module.initialise()
