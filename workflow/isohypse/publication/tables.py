# SPDX-License-Identifier: Apache-2.0
"""Tables 1 to 3: the data's statistics, the backbones' sizes, the training's settings.

In: `statistics.json` files, (model, flavour) pairs, the section `training`. Out: CSV and HTML. The paper's
own values stand beside ours where they are of the same thing, else a note says why they do not.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from isohypse.config.settings import TableSettings
from isohypse.data.statistics import Statistics
from isohypse.models import catalogue
from isohypse.publication import paper
from isohypse.publication.document import Column, Row, Table, is_missing, write_table
from isohypse.storage import read_json

HEIGHT = "{:,.1f}"
COUNT = "{:,}"


def table1(
    settings: TableSettings, statistics: Sequence[Path], destination_csv: Path, destination_html: Path
) -> None:
    """Write Table 1 from `statistics.json` of one or more pairs of levels and protocol."""
    rows = list(
        {tuple(row.items()): row for path in statistics for row in _height_rows(settings, path)}.values()
    )
    ours, theirs = "Isohypse (m)", "Paper (m)"
    columns = [
        Column("level_hpa", "Level", "hPa", COUNT),
        Column("protocol", "Protocol"),
        Column("mean_m", "Mean", "", HEIGHT, ours),
        Column("std_m", "Std", "", HEIGHT, ours),
        Column("minimum_m", "Min", "", HEIGHT, ours),
        Column("maximum_m", "Max", "", HEIGHT, ours),
        Column("area_mean_m", "Mean", "area-weighted", HEIGHT, ours),
        Column("area_std_m", "Std", "area-weighted", HEIGHT, ours),
        Column("paper_mean_m", "Mean", "", HEIGHT, theirs),
        Column("paper_std_m", "Std", "", HEIGHT, theirs),
        Column("paper_minimum_m", "Min", "", HEIGHT, theirs),
        Column("paper_maximum_m", "Max", "", HEIGHT, theirs),
        Column("frames", "Frames", "6-hourly", COUNT),
        Column("period", "First to last frame"),
    ]
    about = ["Geopotential height over time and grid; each grid point counts once unless area-weighted."]
    table = Table("Table 1 · The data", about, columns, rows, _height_notes(settings, rows))
    write_table(table, settings, destination_csv, destination_html)


def _height_rows(settings: TableSettings, path: Path) -> Iterator[Row]:
    found = Statistics.read(path)
    for place, level in enumerate(found.levels_hpa):
        row = {
            "level_hpa": level,
            "protocol": found.protocol,
            "mean_m": found.mean[place],
            "std_m": found.std[place],
            "minimum_m": found.minimum[place],
            "maximum_m": found.maximum[place],
            "area_mean_m": found.area_mean[place],
            "area_std_m": found.area_std[place],
            "frames": found.frames,
            "period": " to ".join(time[:16].replace("T", " ") for time in found.period),
        }
        yield row | _paper_heights(settings, found.protocol, level)


def _paper_heights(settings: TableSettings, protocol: str, level: int) -> Row:
    theirs = paper.TABLE_1.get(level)
    if theirs is None or protocol != "paper" or paper.data_reasons(settings):
        return {}
    return {
        "paper_mean_m": theirs.mean,
        "paper_std_m": theirs.std,
        "paper_minimum_m": theirs.minimum,
        "paper_maximum_m": theirs.maximum,
    }


def _height_notes(settings: TableSettings, rows: Sequence[Row]) -> list[str]:
    notes = [
        "Protocol “paper”: statistics over the whole period, as published. Protocol “standard”: over the "
        "frames of the training range only."
    ]
    reasons = paper.data_reasons(settings)
    shown = [row["level_hpa"] for row in rows if not is_missing(row.get("paper_mean_m"))]
    if not shown:
        if not reasons and all(row["protocol"] != "paper" for row in rows):
            reasons = ["the protocol is “standard”, not “paper”"]
        return [
            *notes,
            f"Paper: {paper.not_comparable(reasons or ['it gives no statistics of this level'])}.",
        ]
    origins = (f"{level} hPa from its {paper.TABLE_1[level].origin}" for level in dict.fromkeys(shown))
    return [*notes, f"Paper: {', '.join(origins)}. {paper.LEVEL_NOTE}"]


def table2(
    settings: TableSettings,
    destination_csv: Path,
    destination_html: Path,
    architectures: Sequence[tuple[str, str]],
    grid: tuple[int, int],
    t_outs: Sequence[int] = (1, 4),
    levels: Sequence[int] = (1,),
) -> None:
    """Write Table 2: sizes and numbers of parameters of `architectures`, (model, flavour) pairs.

    grid: numbers of latitudes and longitudes. t_outs and levels: numbers of frames out and of levels that
    totals are given for.
    Raises ConfigurationError for a model or flavour that the catalogue does not have.
    """
    latitude, longitude = grid
    rows = [
        _size_row(model, flavour, t_outs, {"levels": number, "latitude": latitude, "longitude": longitude})
        for model, flavour in architectures
        for number in levels
    ]
    totals = [
        Column(f"parameters_out{n}", f"Total, T_out {n}", "parameters", COUNT, "Isohypse") for n in t_outs
    ]
    columns = [
        Column("model", "Model"),
        Column("flavour", "Flavour"),
        *(Column(key, heading, "", COUNT, "Isohypse") for key, heading in SHAPE.items()),
        Column("stack_parameters", "Backbone", "parameters", COUNT, "Isohypse"),
        Column("levels", "Levels", "", COUNT, "Isohypse"),
        *totals,
        *(Column(f"paper_{key}", heading, "", COUNT, "Paper") for key, heading in SHAPE.items()),
    ]
    about = [f"Grid {latitude} × {longitude}; totals with projection and head."]
    notes = [
        "Paper: its Table 2, beside the flavour “paper” only. It gives about 340 million parameters for all "
        "six; with the sizes it published, Gated DeltaNet and KDA have about 40 % more than the others. "
        "Flavour “matched”: the two at the others' size.",
        "Head dim: channels of a key head (GLA: of a value head). The paper gives no heads for Mamba2.",
    ]
    write_table(
        Table("Table 2 · The models", about, columns, rows, notes),
        settings,
        destination_csv,
        destination_html,
    )


SHAPE = {"layers": "Layers", "hidden": "Hidden", "heads": "Heads", "head_dim": "Head dim"}


def studied(records: Sequence[Path]) -> dict[str, object]:
    """`architectures`, `grid`, `t_outs` and `levels` of the runs whose `run.json` files are given."""
    runs = [read_json(path) for path in records]
    grid = runs[0]["grid"]
    return {
        "architectures": list(dict.fromkeys((run["model"], run["flavour"]) for run in runs)),
        "grid": (len(grid["latitude"]), len(grid["longitude"])),
        "t_outs": sorted({run["task"]["t_out"] for run in runs}),
        "levels": sorted({len(run["task"]["levels_hpa"]) for run in runs}),
    }


def _size_row(model: str, flavour: str, t_outs: Sequence[int], grid: Mapping[str, int]) -> Row:
    sizes = catalogue.flavour_of(model, flavour)
    row = {
        "model": catalogue.label_of(model),
        "flavour": flavour,
        "levels": grid["levels"],
        "layers": sizes.layers,
        "hidden": sizes.d_model,
        "heads": sizes.heads,
        "head_dim": getattr(sizes, "head_dim", sizes.d_model // sizes.heads),
    }
    for t_out in t_outs:
        row["stack_parameters"], row[f"parameters_out{t_out}"] = _parameters(model, flavour, t_out, grid)
    theirs = paper.TABLE_2.get(model) if flavour == "paper" else None
    return row | ({f"paper_{key}": getattr(theirs, key) for key in SHAPE} if theirs else {})


def _parameters(model: str, flavour: str, t_out: int, grid: Mapping[str, int]) -> tuple[int, int]:
    """Numbers of parameters of the backbone and of the whole network, which takes no memory here."""
    from isohypse.models.registry import build

    network = build(model, flavour, t_in=paper.T_IN, t_out=t_out, device="meta", **grid)
    return tuple(sum(p.numel() for p in part.parameters()) for part in (network.backbone, network))


def table3(
    settings: TableSettings, destination_csv: Path, destination_html: Path, training: Mapping[str, object]
) -> None:
    """Write Table 3: each key of the section `training`, and the paper's value with its origin."""
    rows = [_setting_row(key, value) for key, value in training.items()]
    columns = [
        Column("setting", "Setting"),
        Column("value", "Isohypse", "", "{:g}"),
        Column("paper_value", "Paper", "", "{:g}"),
        Column("paper_origin", "Origin"),
        Column("same", "Same"),
    ]
    about = ["Section `training` of the configuration; the same for all models."]
    notes = [
        "Paper: its Table 3; where the text is silent, its published code. “–”: neither tells.",
        "The published code's cosine runs over 22,000 steps: “step 5,000” is a snapshot of that schedule.",
    ]
    write_table(
        Table("Table 3 · The training", about, columns, rows, notes),
        settings,
        destination_csv,
        destination_html,
    )


def training_of(records: Sequence[Path]) -> Mapping[str, object]:
    """Section `training` of the runs whose `run.json` files are given; one study trains all alike."""
    return read_json(records[0])["settings"]["training"]


def _setting_row(key: str, value: object) -> Row:
    theirs = paper.TABLE_3.get(key)
    row = {"setting": key, "value": "as steps" if key == "schedule_steps" and value is None else value}
    if theirs is None:
        return row
    same = "" if value == "auto" else "yes" if value == theirs.value else "no"
    return row | {"paper_value": theirs.value, "paper_origin": theirs.origin, "same": same}
