# SPDX-License-Identifier: Apache-2.0
"""The command `isohypse`: `isohypse <stage> <rule>`, the same words as the rules that call it.

Each command takes the settings of its stage as JSON (`--settings`, or @file); `isohypse settings` prints
them, so that any stage can be run by hand. A foreseen error is one line and an exit code of its own
(errors.py); anything else is a bug and shows its traceback. Stages are imported when they are called:
`isohypse --help` needs neither torch nor xarray.
"""

import argparse
import os
import sys
from pathlib import Path

from isohypse import __version__, commands
from isohypse.arguments import add_command, add_paths, add_stores, add_threads, content
from isohypse.benchmark.commands import add_benchmarks
from isohypse.errors import IsohypseError, StorageError
from isohypse.storage import FULL

CONTINUES = "the same command continues"
PUBLISHED = {
    "figure2": "losses against the step, from metrics.csv",
    "figure3": "maps of a training sample, from examples.nc",
    "figure4": "maps of an evaluation sample, from examples.nc",
    "figure5": "errors against the lead time, from scores.csv",
    "figure6": "cost against the length, from costs.csv",
    "table1": "the heights, from statistics.json",
    "table2": "the models, from run.json",
    "table3": "the training, from run.json",
    "table4": "the results, from scores.csv and run.json",
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    args = build_parser().parse_args(arguments)
    args.given = sys.argv[1:] if arguments is None else arguments
    limit_threads(getattr(args, "threads", 1))
    try:
        args.command(args)
    except IsohypseError as error:
        print(f"isohypse: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"isohypse: interrupted; {getattr(args, 'interrupted', CONTINUES)}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # of a file that grows, such as a log; results say more (storage.py)
        if error.errno not in FULL:
            raise
        print(
            f"isohypse: {error.filename or 'a log'}: no room on this disk; what was finished before is "
            "intact: make room and run the same command again",
            file=sys.stderr,
        )
        return StorageError.exit_code
    return 0


def limit_threads(threads: int) -> None:
    """Hold every numerical library to `threads`; must run before the first of them is imported."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
        os.environ[name] = str(threads)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="isohypse", description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"isohypse {__version__}")
    stages = parser.add_subparsers(title="stages and tools", metavar="<stage>", required=True)
    _data(_stage(stages, "data", "source files, archive, statistics, climatology"))
    _training(_stage(stages, "training", "train a model"))
    _evaluation(_stage(stages, "evaluation", "score baselines and models"))
    _scaling(_stage(stages, "scaling", "cost against sequence length"))
    _publication(_stage(stages, "publication", "figures and tables"))
    add_benchmarks(_stage(stages, "benchmark", "side by side with other tools and with the real climate"))
    _tools(stages)
    return parser


def _stage(stages: argparse._SubParsersAction, name: str, text: str) -> argparse._SubParsersAction:
    return stages.add_parser(name, help=text, description=text).add_subparsers(
        metavar="<rule>", required=True
    )


def _execution(parser: argparse.ArgumentParser) -> None:
    default = os.environ.get("ISOHYPSE_EXECUTION", "{}")
    parser.add_argument(
        "--execution", default=default, type=content, help="section `execution`: JSON or @file"
    )


def _data(group: argparse._SubParsersAction) -> None:
    download = add_command(group, "download", commands.download, "fetch one year of the reanalysis")
    server = os.environ.get("ISOHYPSE_SERVER")
    download.add_argument("--server", default=server, type=content, help="section `ncep_r1`: JSON or @file")
    simulate = add_command(group, "simulate", commands.simulate, "one year of the embedded model")
    simulate.add_argument(
        "--restart", nargs="?", type=Path, help="state at the start of the year; none: spin up"
    )
    add_paths(simulate, "next-restart")
    archive = add_command(group, "archive", commands.archive, "one year as a Zarr store")
    archive.add_argument("inputs", nargs="+", type=Path)
    for parser in (download, simulate, archive):
        parser.add_argument("--year", required=True, type=int)
        add_paths(parser, "output")
    add_threads(archive)
    for name, command, text in (
        ("statistics", commands.statistics, "mean, std, min and max of each level"),
        ("climatology", commands.climatology, "mean by day of the year and hour, from training years"),
    ):
        parser = add_command(group, name, command, text)
        add_paths(parser, "output")
        add_stores(parser)
        add_threads(parser)


def _training(group: argparse._SubParsersAction) -> None:
    train = add_command(group, "train", commands.train, "one run; continues from its newest checkpoint")
    add_paths(train, "statistics", "work", "output")
    train.add_argument(
        "--initial-weights", nargs="?", type=Path, help="backbone to start from, FLA's names; none: random"
    )
    add_stores(train)
    add_threads(train)
    _execution(train)


def _evaluation(group: argparse._SubParsersAction) -> None:
    baseline = add_command(group, "baseline", commands.baseline, "fit and score a baseline")
    model = add_command(group, "model", commands.model, "score a trained model")
    for parser in (baseline, model):
        add_paths(parser, "climatology", "output")
        add_stores(parser)
        add_threads(parser)
    add_paths(model, "statistics", "run")
    _execution(model)
    scores = add_command(group, "scores", commands.scores, "tidy table of all scores of a task")
    scores.add_argument("scores", nargs="+", type=Path)
    add_paths(scores, "output")


def _scaling(group: argparse._SubParsersAction) -> None:
    measure = add_command(group, "measure", commands.measure, "one model at one sequence length")
    add_paths(measure, "output")
    add_threads(measure)
    _execution(measure)
    costs = add_command(group, "costs", commands.costs, "tidy table of all measurements")
    costs.add_argument("measurements", nargs="+", type=Path)
    add_paths(costs, "output")


def _publication(group: argparse._SubParsersAction) -> None:
    for rule, text in PUBLISHED.items():
        command = commands.figure if rule.startswith("figure") else commands.table
        parser = add_command(group, rule, command, text)
        parser.set_defaults(rule=rule)
        parser.add_argument("inputs", nargs="+", type=Path)
        add_paths(parser, "output")


def _tools(group: argparse._SubParsersAction) -> None:
    add_command(
        group, "models", commands.models, "the backbones, their sizes and parameter counts", settings=False
    )
    add_command(
        group, "doctor", commands.doctor, "what is installed, what is missing, how to get it", settings=False
    )
    config = add_command(group, "config", commands.config, "the whole checked configuration", settings=False)
    settings = add_command(group, "settings", commands.settings, "the --settings of one job", settings=False)
    settings.add_argument("rule", help="rule, e.g. train")
    settings.add_argument(
        "wildcards", nargs="*", help="its wildcards, e.g. in8-out4/500hPa/standard/kda-small/seed0"
    )
    for parser in (config, settings):
        parser.add_argument("--preset", help="a name in presets/ (default: demo)")
        parser.add_argument(
            "--configfile", type=Path, nargs="*", default=[], help="YAML laid over the preset"
        )

    export = add_command(group, "export", commands.export, "a run's backbone for FLA", settings=False)
    export.add_argument("run", type=Path, help="folder of a finished run")
    export.add_argument("destination", type=Path, help="a .safetensors file")
    imported = add_command(
        group, "import", commands.import_, "a run with a backbone of FLA's", settings=False
    )
    imported.add_argument("source", type=Path, help="a .safetensors file with FLA's names")
    imported.add_argument("--run", required=True, type=Path, help="finished run: sizes, projection, head")
    imported.add_argument("--output", required=True, type=Path, help="a new folder for the run")


if __name__ == "__main__":
    sys.exit(main())
