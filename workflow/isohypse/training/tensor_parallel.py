# SPDX-License-Identifier: Apache-2.0
"""Tensor parallelism for all six mixers: each rank computes some heads, or some value channels of a head.

Heads are independent of each other, so that they are divided first. Within a head the columns of the state
(its value channels) are independent too: with more ranks than heads, ranks that share a head repeat its
queries, keys and decays and divide its values. Then a norm over the value channels needs the others' squares.
Around each mixer and MLP: the input's gradient is summed over the ranks, and so is the output.

MIXERS says, for every parameter of every mixer, how its rows (of an output projection: its columns) are laid
out. `heads`: [head, anything]; `values`: [head, value channel]; `channels`: [value channel], the same for all
heads; `whole`: needed by all. Several: one after the other. The models know nothing of this.
"""

from dataclasses import dataclass
from math import gcd

import torch
import torch.distributed as dist
from torch import Tensor, nn

from isohypse.errors import ConfigurationError
from isohypse.models.backbone import GatedMLP
from isohypse.models.mixer import Mixer
from isohypse.models.network import Network
from isohypse.training.tensor_sums import enter, leave, split_norm

QKV = {"q_proj": "heads", "k_proj": "heads", "v_proj": "values"}
CONVOLUTIONS = {"q_conv1d": "heads", "k_conv1d": "heads", "v_conv1d": "values"}
MIXERS: dict[str, dict[str, str]] = {
    "attention": QKV,
    "gla": QKV
    | {"g_proj": "values", "gk_proj.0": "whole", "gk_proj.1": "heads", "g_norm_swish_gate": "channels"},
    "delta_rule": QKV | CONVOLUTIONS | {"b_proj": "heads", "o_norm": "channels"},
    "gated_delta_rule": QKV
    | CONVOLUTIONS
    | {"a_proj": "heads", "b_proj": "heads", "g_proj": "values", "o_norm": "channels"}
    | {"A_log": "heads", "dt_bias": "heads"},
    "kda": QKV
    | CONVOLUTIONS
    | {"b_proj": "heads", "f_proj.0": "whole", "f_proj.1": "heads", "o_norm": "channels"}
    | {"g_proj.0": "whole", "g_proj.1": "values", "A_log": "heads", "dt_bias": "heads"},
    "ssd": {"in_proj": "values values whole whole heads", "conv1d": "values whole whole"}
    | {"A_log": "heads", "dt_bias": "heads", "D": "heads", "norm": "values"},
}
OUTPUTS = ("o_proj", "out_proj")
NORMS = ("o_norm", "g_norm_swish_gate", "norm")
LARGEST_DEGREE = 64


@dataclass(frozen=True)
class Place:
    """One rank's part: head group `group` of `groups`, part `part` of `parts` of the value channels."""

    groups: int
    parts: int
    group: int = 0
    part: int = 0

    @classmethod
    def of(cls, rank: int, degree: int, heads: int) -> "Place":
        groups = gcd(degree, heads)
        parts = degree // groups
        return cls(groups, parts, rank // parts, rank % parts)


@dataclass(frozen=True)
class Piece:
    """Rows `start` to `stop` of a local parameter; `sharers` ranks hold the same ones, each a partial sum."""

    start: int
    stop: int
    sharers: str  # "alone" | "head" | "part" | "all"


def valid_degrees(heads: int, value_dim: int, mlp_width: int | None) -> list[int]:
    """Degrees up to LARGEST_DEGREE that divide heads, then value channels, and the MLP."""
    degrees = range(1, LARGEST_DEGREE + 1)
    fits = [d for d in degrees if value_dim % (d // gcd(d, heads)) == 0]
    return [d for d in fits if mlp_width is None or mlp_width % d == 0]


def check_degree(network: Network, degree: int) -> None:
    """Raises ConfigurationError, naming the possible degrees, if `degree` cannot be."""
    block = network.backbone.layers[0]
    mixer, mlp = block.sequence_mixer, getattr(block, "mlp", None)
    valid = valid_degrees(mixer.heads, _value_dim(mixer), mlp.gate_proj.out_features if mlp else None)
    if degree not in valid:
        sizes = f"{mixer.heads} heads of {_value_dim(mixer)} value channels"
        raise ConfigurationError(
            f"execution.tensor_parallel: {degree} does not divide this {type(mixer).__name__}, which has "
            f"{sizes}; possible: {', '.join(map(str, valid))}"
        )


def _value_dim(mixer: Mixer) -> int:
    output = next(getattr(mixer, name) for name in OUTPUTS if hasattr(mixer, name))
    return output.in_features // mixer.heads


class TensorParallel:
    """Cuts `network` in place to this rank's part, and knows the way back."""

    def __init__(self, network: Network, degree: int, rank: int, group: dist.ProcessGroup):
        check_degree(network, degree)
        self.degree, self.rank, self.group = degree, rank, group
        heads = network.backbone.mixers[0].heads
        self.places = [Place.of(r, degree, heads) for r in range(degree)]
        self.here = self.places[rank]
        self.sharing = self._subgroups()
        self.cuts: dict[str, tuple[int, list[Tensor]]] = {}  # name -> dimension, index of each rank
        self.pieces: dict[str, list[Piece]] = {}
        for number, layer in enumerate(network.backbone.layers):
            prefix = f"backbone.layers.{number}"
            self._cut_mixer(layer.sequence_mixer, f"{prefix}.{'attn' if hasattr(layer, 'attn') else 'mixer'}")
            if hasattr(layer, "mlp"):
                self._cut_mlp(layer.mlp, f"{prefix}.mlp")
        self.parameters = dict(network.named_parameters())

    def _subgroups(self) -> dict[str, dist.ProcessGroup | None]:
        """With whom this rank shares a head's keys, a part of the value channels, or everything."""
        members = dist.get_process_group_ranks(self.group)
        mine = {"head": "group", "part": "part"}
        found: dict[str, dist.ProcessGroup | None] = {"alone": None, "all": self.group}
        world = dist.get_world_size()
        for first in range(0, world, self.degree):  # every rank must take part in making every group
            for kind, field in mine.items():
                for value in range(max(getattr(p, field) for p in self.places) + 1):
                    ranks = [first + r for r, p in enumerate(self.places) if getattr(p, field) == value]
                    made = dist.new_group(ranks)
                    if first == members[0] and getattr(self.here, field) == value:
                        found[kind] = made
        return found

    def _rows(self, kind: str, total: int, heads: int, value_dim: int, place: Place) -> Tensor:
        rows = torch.arange(total)
        if kind == "whole":
            return rows
        channels = torch.arange(value_dim).chunk(place.parts)[place.part]
        if kind == "channels":
            return rows[channels]
        mine = rows.view(heads, -1).chunk(place.groups)[place.group]
        return (mine[:, channels] if kind == "values" else mine).flatten()

    def _sharers(self, kind: str) -> str:
        """Who else holds these rows."""
        sharers = {"values": "alone", "heads": "head", "channels": "part", "whole": "all"}[kind]
        return "alone" if self.sizes[sharers] == 1 else sharers

    @property
    def sizes(self) -> dict[str, int]:
        """How many ranks share each kind of rows."""
        return {"alone": 1, "head": self.here.parts, "part": self.here.groups, "all": self.degree}

    def _cut_mixer(self, mixer: Mixer, prefix: str) -> None:
        heads, value_dim = mixer.heads, _value_dim(mixer)
        for name, kinds in MIXERS[mixer.recurrence].items():
            for owner, leaf, path in _leaves(mixer, name):
                widths = _widths(mixer, name, getattr(owner, leaf).shape[0])
                self._cut(owner, leaf, f"{prefix}.{path}", kinds, widths, mixer)
        output = next(name for name in OUTPUTS if hasattr(mixer, name))
        columns = [self._rows("values", heads * value_dim, heads, value_dim, p) for p in self.places]
        self._take(getattr(mixer, output), "weight", f"{prefix}.{output}.weight", 1, columns)
        self._adjust(mixer, value_dim)
        mixer.register_forward_pre_hook(lambda _m, args: (enter(args[0], self.group), *args[1:]))
        mixer.register_forward_hook(lambda _m, _args, out: leave(out, self.group))

    def _cut(
        self, owner: nn.Module, leaf: str, name: str, kinds: str, widths: tuple[int, ...], mixer: Mixer
    ) -> None:
        """Cut rows that are laid out as `kinds`, each so many as `widths` says."""
        heads, value_dim = mixer.heads, _value_dim(mixer)
        index: list[Tensor] = []
        for place in self.places:
            parts, first = [], 0
            for kind, width in zip(kinds.split(), widths):
                parts.append(first + self._rows(kind, width, heads, value_dim, place))
                first += width
            index.append(torch.cat(parts))
        start, pieces = 0, []
        for kind, width in zip(kinds.split(), widths):
            stop = start + len(self._rows(kind, width, heads, value_dim, self.here))
            pieces.append(Piece(start, stop, self._sharers(kind)))
            start = stop
        self._take(owner, leaf, name, 0, index, pieces)

    def _cut_mlp(self, mlp: GatedMLP, prefix: str) -> None:
        index = list(torch.arange(mlp.gate_proj.out_features).chunk(self.degree))
        for name in ("gate_proj", "up_proj", "down_proj"):
            dimension = 1 if name == "down_proj" else 0
            self._take(getattr(mlp, name), "weight", f"{prefix}.{name}.weight", dimension, index)
        mlp.register_forward_pre_hook(lambda _m, args: (enter(args[0], self.group), *args[1:]))
        mlp.register_forward_hook(lambda _m, _args, out: leave(out, self.group))

    def _take(
        self,
        owner: nn.Module,
        leaf: str,
        name: str,
        dimension: int,
        index: list[Tensor],
        pieces: list[Piece] | None = None,
    ) -> None:
        full = getattr(owner, leaf).detach()
        setattr(owner, leaf, nn.Parameter(full.index_select(dimension, index[self.rank].to(full.device))))
        self.cuts[name] = (dimension, index)
        self.pieces[name] = pieces or [Piece(0, getattr(owner, leaf).shape[0], "alone")]

    def _adjust(self, mixer: Mixer, value_dim: int) -> None:
        """Numbers of heads and widths, and the norms whose channels are divided."""
        mixer.heads //= self.here.groups
        inner = mixer.heads * value_dim // self.here.parts
        if mixer.recurrence == "ssd":
            shared = sum(mixer.conv_widths[1:])
            mixer.widths = (inner, inner + shared, mixer.heads)
            mixer.conv_widths = (inner, *mixer.conv_widths[1:])
        for name in NORMS:
            group = self.group if mixer.recurrence == "ssd" else self.sharing["head"]
            if hasattr(mixer, name) and dist.get_world_size(group) > 1:
                setattr(mixer, name, split_norm(getattr(mixer, name), group))

    def sum_gradients(self) -> None:
        """Add up the partial gradients of rows that several ranks hold."""
        for name, pieces in self.pieces.items():
            gradient = self.parameters[name].grad
            for piece in pieces:
                if piece.sharers != "alone":
                    dist.all_reduce(gradient[piece.start : piece.stop], group=self.sharing[piece.sharers])

    def shared_pieces(self, name: str) -> list[tuple[slice, int]]:
        """Rows of a local parameter, and how many ranks of this group hold them."""
        if name not in self.pieces:  # outside of mixers and MLPs
            return [(slice(None), self.degree)]
        return [(slice(piece.start, piece.stop), self.sizes[piece.sharers]) for piece in self.pieces[name]]

    def whole(self, name: str, local: Tensor) -> Tensor:
        """The whole of a tensor that is cut as the parameter `name`. All ranks of the group must ask."""
        if name not in self.cuts:
            return local
        dimension, index = self.cuts[name]
        parts = [torch.empty_like(local) for _ in index]
        dist.all_gather(parts, local.contiguous(), group=self.group)
        shape = list(local.shape)
        shape[dimension] = 1 + max(int(rows.max()) for rows in index)
        full = local.new_empty(shape)
        for rows, part in zip(index, parts):
            full.index_copy_(dimension, rows.to(local.device), part)
        return full

    def own(self, name: str, whole: Tensor) -> Tensor:
        """This rank's part of the whole tensor."""
        if name not in self.cuts:
            return whole
        dimension, index = self.cuts[name]
        return whole.index_select(dimension, index[self.rank].to(whole.device))


def _leaves(mixer: Mixer, name: str) -> list[tuple[nn.Module, str, str]]:
    """The parameters behind an entry of MIXERS: owner, attribute and path."""
    if isinstance(getattr(mixer, name, None), nn.Parameter):
        return [(mixer, name, name)]
    owner = mixer.get_submodule(name)
    return [(owner, leaf, f"{name}.{leaf}") for leaf, _ in owner.named_parameters(recurse=False)]


def _widths(mixer: Mixer, name: str, total: int) -> tuple[int, ...]:
    """Rows of each of the layouts that stand one after the other in a parameter."""
    if mixer.recurrence == "ssd" and name == "in_proj":
        return (mixer.widths[0], *mixer.conv_widths, mixer.widths[2])
    if mixer.recurrence == "ssd" and name == "conv1d":
        return mixer.conv_widths
    return (total,)
