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
from collections.abc import Callable
from pathlib import Path

from isohypse import __version__, commands
from isohypse.errors import IsohypseError, StorageError
from isohypse.storage import FULL

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
Command = Callable[[argparse.Namespace], None]


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
        print("isohypse: interrupted; the same command continues", file=sys.stderr)
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
    _benchmark(_stage(stages, "benchmark", "side by side with other tools and with the real climate"))
    _tools(stages)
    return parser


def _stage(stages: argparse._SubParsersAction, name: str, text: str) -> argparse._SubParsersAction:
    return stages.add_parser(name, help=text, description=text).add_subparsers(
        metavar="<rule>", required=True
    )


def _command(
    group: argparse._SubParsersAction, name: str, command: Command, text: str, settings: bool = True
) -> argparse.ArgumentParser:
    parser = group.add_parser(name, help=text, description=text, allow_abbrev=False)
    parser.set_defaults(command=command)
    if settings:
        parser.add_argument(
            "--settings", required=True, type=_text, help="the stage's settings: JSON or @file"
        )
    return parser


def _text(value: str) -> str:
    """A value, or the content of the file behind an @."""
    if not value.startswith("@"):
        return value
    try:
        return Path(value[1:]).read_text()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{value[1:]}: {error.strerror}") from None


def _paths(parser: argparse.ArgumentParser, *names: str) -> None:
    for name in names:
        parser.add_argument(f"--{name}", required=True, type=Path)


def _stores(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "archive", nargs="+", type=_store, help="yearly Zarr stores (or their zarr.json), in order"
    )


def _store(path: str) -> Path:
    return Path(path).parent if Path(path).name == "zarr.json" else Path(path)


def _threads(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", type=int, default=1, help="threads of torch and dask (default 1)")


def _execution(parser: argparse.ArgumentParser) -> None:
    default = os.environ.get("ISOHYPSE_EXECUTION", "{}")
    parser.add_argument("--execution", default=default, type=_text, help="section `execution`: JSON or @file")


def _data(group: argparse._SubParsersAction) -> None:
    download = _command(group, "download", commands.download, "fetch one year of the reanalysis")
    server = os.environ.get("ISOHYPSE_SERVER")
    download.add_argument("--server", default=server, type=_text, help="section `ncep_r1`: JSON or @file")
    simulate = _command(group, "simulate", commands.simulate, "one year of the embedded model")
    simulate.add_argument(
        "--restart", nargs="?", type=Path, help="state at the start of the year; none: spin up"
    )
    _paths(simulate, "next-restart")
    archive = _command(group, "archive", commands.archive, "one year as a Zarr store")
    archive.add_argument("inputs", nargs="+", type=Path)
    for parser in (download, simulate, archive):
        parser.add_argument("--year", required=True, type=int)
        _paths(parser, "output")
    _threads(archive)
    for name, command, text in (
        ("statistics", commands.statistics, "mean, std, min and max of each level"),
        ("climatology", commands.climatology, "mean by day of the year and hour, from training years"),
    ):
        parser = _command(group, name, command, text)
        _paths(parser, "output")
        _stores(parser)
        _threads(parser)


def _training(group: argparse._SubParsersAction) -> None:
    train = _command(group, "train", commands.train, "one run; continues from its newest checkpoint")
    _paths(train, "statistics", "work", "output")
    train.add_argument(
        "--initial-weights", nargs="?", type=Path, help="backbone to start from, FLA's names; none: random"
    )
    _stores(train)
    _threads(train)
    _execution(train)


def _evaluation(group: argparse._SubParsersAction) -> None:
    baseline = _command(group, "baseline", commands.baseline, "fit and score a baseline")
    model = _command(group, "model", commands.model, "score a trained model")
    for parser in (baseline, model):
        _paths(parser, "climatology", "output")
        _stores(parser)
        _threads(parser)
    _paths(model, "statistics", "run")
    _execution(model)
    scores = _command(group, "scores", commands.scores, "tidy table of all scores of a task")
    scores.add_argument("scores", nargs="+", type=Path)
    _paths(scores, "output")


def _scaling(group: argparse._SubParsersAction) -> None:
    measure = _command(group, "measure", commands.measure, "one model at one sequence length")
    _paths(measure, "output")
    _threads(measure)
    _execution(measure)
    costs = _command(group, "costs", commands.costs, "tidy table of all measurements")
    costs.add_argument("measurements", nargs="+", type=Path)
    _paths(costs, "output")


def _publication(group: argparse._SubParsersAction) -> None:
    for rule, text in PUBLISHED.items():
        command = commands.figure if rule.startswith("figure") else commands.table
        parser = _command(group, rule, command, text)
        parser.set_defaults(rule=rule)
        parser.add_argument("inputs", nargs="+", type=Path)
        _paths(parser, "output")


def _benchmark(group: argparse._SubParsersAction) -> None:
    step = _command(group, "step", commands.benchmark_step, "training step and forecast", settings=False)
    step.add_argument("--models", nargs="*", help="of `isohypse models`; all by default")
    step.add_argument("--flavour", default="paper")
    step.add_argument("--batch", type=int, default=256, help="sequences in a step (default 256)")
    step.add_argument("--frames", type=int, default=8, help="frames in a sequence (default 8)")
    step.add_argument("--rounds", type=int, default=7, help="rounds of steps that are timed (default 7)")
    step.add_argument("--alone", action="store_true", help="without flash-linear-attention's layers")
    _paths(step, "output")
    _scaling_out(group)
    forms = _command(group, "forms", commands.benchmark_forms, "recurrences on this CPU", settings=False)
    forms.add_argument("--models", nargs="*", help="of `isohypse models`; all by default")
    forms.add_argument("--flavour", default="paper")
    forms.add_argument("--batch", type=int, default=32, help="sequences side by side (default 32)")
    forms.add_argument("--frames", type=int, default=8, help="frames in a sequence (default 8)")
    forms.add_argument(
        "--rounds", type=int, default=15, help="passes of each form that are timed (default 15)"
    )
    data = _command(group, "data", commands.benchmark_data, "conversion of a year", settings=False)
    data.add_argument("--file", type=Path, help="a year of 17 levels (default: the embedded model makes one)")
    data.add_argument("--repeats", type=int, default=3)
    climate = _command(group, "climate", commands.benchmark_climate, "500 hPa against ERA5", settings=False)
    _stores(climate)
    loader = _command(group, "loader", commands.benchmark_loader, "batches against a step", settings=False)
    loader.add_argument("--levels", type=int, default=1)
    loader.add_argument("--step-milliseconds", type=float, default=100.0, help="of the device's work")
    for parser in (forms, data, climate, loader):
        _threads(parser)
        _paths(parser, "output")


def _scaling_out(group: argparse._SubParsersAction) -> None:
    text = "training step on several GPUs of this machine"
    parser = _command(group, "scaling-out", commands.benchmark_scaling_out, text, settings=False)
    parser.add_argument("--models", nargs="*", help="of `isohypse models`; all by default")
    parser.add_argument("--flavour", default="paper")
    parser.add_argument("--scalings", nargs="*", help="of weak, strong, long; all by default")
    parser.add_argument("--modes", nargs="*", help="of replicate, fsdp, tensor2, tensor4, tensor8")
    parser.add_argument("--gpus", nargs="*", type=int, default=[1, 2, 4, 8], help="(default 1 2 4 8)")
    parser.add_argument("--batch", type=int, default=256, help="windows: weak a GPU, strong in all")
    parser.add_argument("--frames", type=int, default=8, help="frames in a window (default 8)")
    parser.add_argument("--long-frames", type=int, default=131_072, help="in the one window of `long`")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of steps that are timed (default 5)")
    parser.add_argument("--steps", type=int, default=10, help="steps of a round; `long`: 1 (default 10)")
    parser.add_argument("--limit", type=float, default=300, help="seconds of a measurement (default 300)")
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto")
    _paths(parser, "output")


def _tools(group: argparse._SubParsersAction) -> None:
    _command(
        group, "models", commands.models, "the backbones, their sizes and parameter counts", settings=False
    )
    _command(
        group, "doctor", commands.doctor, "what is installed, what is missing, how to get it", settings=False
    )
    config = _command(group, "config", commands.config, "the whole checked configuration", settings=False)
    settings = _command(group, "settings", commands.settings, "the --settings of one job", settings=False)
    settings.add_argument("rule", help="rule, e.g. train")
    settings.add_argument(
        "wildcards", nargs="*", help="its wildcards, e.g. in8-out4/500hPa/standard/kda-small/seed0"
    )
    for parser in (config, settings):
        parser.add_argument("--preset", help="a name in presets/ (default: demo)")
        parser.add_argument(
            "--configfile", type=Path, nargs="*", default=[], help="YAML laid over the preset"
        )

    export = _command(group, "export", commands.export, "a run's backbone for FLA", settings=False)
    export.add_argument("run", type=Path, help="folder of a finished run")
    export.add_argument("destination", type=Path, help="a .safetensors file")
    imported = _command(group, "import", commands.import_, "a run with a backbone of FLA's", settings=False)
    imported.add_argument("source", type=Path, help="a .safetensors file with FLA's names")
    imported.add_argument("--run", required=True, type=Path, help="finished run: sizes, projection, head")
    _paths(imported, "output")


if __name__ == "__main__":
    sys.exit(main())
