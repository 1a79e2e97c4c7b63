# SPDX-License-Identifier: Apache-2.0
"""What each command of `isohypse` does: unpack the arguments, call one function of the stage.

Stages are imported inside: a command that draws a table does not wait for torch.
"""

import argparse
import json
import sys
from inspect import signature

from pydantic import ValidationError

from isohypse.config import settings as stage
from isohypse.config.base import Section
from isohypse.config.layout import project_root
from isohypse.config.loading import load_experiment, merge, read_yaml
from isohypse.config.sections import Execution, NcepR1
from isohypse.errors import ConfigurationError
from isohypse.launching import launch, launched

Args = argparse.Namespace


def download(args: Args) -> None:
    from isohypse.data.sources.download import download_year

    if args.server is None:
        raise ConfigurationError(
            "--server is missing: section `ncep_r1` as JSON; `isohypse config` prints it"
        )
    download_year(_section(NcepR1, args.server), args.year, args.output)


def simulate(args: Args) -> None:
    from isohypse.data.quasigeostrophic import simulate_year

    settings = stage.SimulateSettings.from_json(args.settings)
    model = settings.quasigeostrophic
    simulate_year(model, args.year, args.restart, args.next_restart, args.output, model.levels_hpa)


def archive(args: Args) -> None:
    from isohypse.data.archive import write_archive_year

    settings = stage.ArchiveSettings.from_json(args.settings)
    with dask_on(args.threads):
        write_archive_year(settings, args.year, args.inputs, args.output, args.threads)


def statistics(args: Args) -> None:
    from isohypse.data.statistics import compute_statistics

    settings = stage.StatisticsSettings.from_json(args.settings)
    with dask_on(args.threads):
        compute_statistics(settings, args.archive, args.output)


def climatology(args: Args) -> None:
    from isohypse.data.climatology import compute_climatology

    settings = stage.ClimatologySettings.from_json(args.settings)
    with dask_on(args.threads):
        compute_climatology(settings, args.archive, args.output)


def train(args: Args) -> None:
    execution = _section(Execution, args.execution)
    settings = stage.TrainSettings.from_json(args.settings)
    if execution.processes > 1 and not launched():
        if status := launch(args.given, execution.nodes, execution.gpus_per_node):
            raise SystemExit(status)
        return
    from isohypse.training.trainer import train as train_run

    threads = max(1, args.threads // execution.gpus_per_node)
    places = (args.archive, args.statistics, args.output, args.work)
    train_run(settings, *places, execution, threads, args.initial_weights)


def baseline(args: Args) -> None:
    from isohypse.evaluation.scoring import score_baseline

    settings = stage.BaselineSettings.from_json(args.settings)
    with dask_on(args.threads):
        score_baseline(settings, args.archive, args.climatology, args.output)


def model(args: Args) -> None:
    from isohypse.evaluation.scoring import score_to_files
    from isohypse.training.forecaster import load_forecaster

    settings = stage.ModelSettings.from_json(args.settings)
    execution = _section(Execution, args.execution)
    forecaster = load_forecaster(args.run, args.statistics, execution.device, args.threads)
    with dask_on(args.threads):
        score_to_files(forecaster, settings, args.archive, args.climatology, args.output)


def scores(args: Args) -> None:
    from isohypse.evaluation.tables import tabulate_scores

    tabulate_scores(stage.ScoresSettings.from_json(args.settings), args.scores, args.output)


def measure(args: Args) -> None:
    from isohypse.scaling.measure import measure as measure_cost

    settings = stage.MeasureSettings.from_json(args.settings)
    measure_cost(settings, args.output, _section(Execution, args.execution), args.threads)


def costs(args: Args) -> None:
    from isohypse.scaling.costs import tabulate_costs

    tabulate_costs(args.measurements, args.output)


def figure(args: Args) -> None:
    from isohypse.publication import costs, curves, maps

    settings = stage.FigureSettings.from_json(args.settings)
    draw = {
        "figure2": lambda: curves.figure2(settings, args.inputs, args.output),
        "figure3": lambda: maps.figure_maps(settings, args.inputs, "train", args.output),
        "figure4": lambda: maps.figure_maps(settings, args.inputs, "evaluation", args.output),
        "figure5": lambda: curves.figure5(settings, args.inputs[0], args.output),
        "figure6": lambda: costs.figure6(settings, args.inputs[0], args.output),
    }
    draw[args.rule]()


def table(args: Args) -> None:
    from isohypse.publication import results, tables

    settings = stage.TableSettings.from_json(args.settings)
    files = (args.output.with_suffix(".csv"), args.output)
    draw = {
        "table1": lambda: tables.table1(settings, args.inputs, *files),
        "table2": lambda: tables.table2(settings, *files, **tables.studied(args.inputs)),
        "table3": lambda: tables.table3(settings, *files, tables.training_of(args.inputs)),
        "table4": lambda: results.table4(settings, args.inputs[0], args.inputs[1:], *files),
    }
    draw[args.rule]()


def models(args: Args) -> None:
    from isohypse.models.sizes import parameter_rows

    layout = "{:<16}{:<9}{:>7}{:>9}{:>7}{:>14}{:>16}{:>16}"
    print("Parameters on the paper's grid, one level of 73 x 144 points:")
    print(
        layout.format(
            "model", "flavour", "layers", "d_model", "heads", "backbone", "all, T_out 1", "all, T_out 4"
        )
    )
    for row in parameter_rows():
        counts = (f"{n:,}" for n in (row.stack_parameters, row.total_parameters[1], row.total_parameters[4]))
        print(layout.format(row.model, row.flavour, row.layers, row.d_model, row.heads, *counts))


def export(args: Args) -> None:
    from isohypse.training.weights import export_run

    export_run(args.run, args.destination)
    print(f"isohypse: the backbone of {args.run} is in {args.destination}", file=sys.stderr)


def import_(args: Args) -> None:
    from isohypse.training.weights import import_run

    import_run(args.source, args.run, args.output)
    print(f"isohypse: {args.run} with the backbone of {args.source} is in {args.output}", file=sys.stderr)


def doctor(args: Args) -> None:
    from isohypse.doctor import report

    print(report())


def config(args: Args) -> None:
    print(json.dumps(_experiment(args).model_dump(mode="json"), indent=2))


def settings(args: Args) -> None:
    book = stage.StageBook(_experiment(args))
    known = {name: function for name, function in vars(stage.StageBook).items() if not name.startswith("_")}
    rule = args.rule.rstrip("0123456789")  # figure2 and figure5 share the settings of `figure`
    if rule not in known:
        raise ConfigurationError(f"rule {args.rule!r} has no settings; those that have: {', '.join(known)}")
    wanted = list(signature(known[rule]).parameters)[1:]
    if len(args.wildcards) != len(wanted):
        needed = " and ".join(wanted) or "no wildcard"
        raise ConfigurationError(
            f"settings of {rule}: needs {needed}, got {' '.join(args.wildcards) or 'none'}"
        )
    try:
        print(known[rule](book, *args.wildcards))
    except (ValueError, KeyError) as error:
        raise ConfigurationError(f"settings of {rule}: {error}") from None


def _section(kind: type[Section], text: str) -> Section:
    """A section of the configuration that came as JSON."""
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(map(str, problem["loc"]))
        raise ConfigurationError(
            f"section {kind.__name__} on the command line: {key}: {problem['msg']}"
        ) from None


def _experiment(args: Args):
    outside: dict = {}
    for path in args.configfile:
        outside = merge(outside, read_yaml(path))
    if args.preset:
        outside["preset"] = args.preset
    return load_experiment(outside, root=project_root())


def dask_on(threads: int):
    """Dask on `threads` threads of this process."""
    import dask

    return dask.config.set(scheduler="threads" if threads > 1 else "synchronous", num_workers=threads)
