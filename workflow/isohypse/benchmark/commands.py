# SPDX-License-Identifier: Apache-2.0
"""The commands `isohypse benchmark ...`: what each takes, and the one function that each calls.

As in `isohypse.commands`, what a command needs is imported when it is called.
"""

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from isohypse.arguments import add_command, add_paths, add_stores, add_threads
from isohypse.commands import dask_on

Args = argparse.Namespace


def add_benchmarks(group: argparse._SubParsersAction) -> None:
    step = add_command(group, "step", benchmark_step, "training step and forecast", settings=False)
    _sizes(step, batch=256)
    step.add_argument("--rounds", type=int, default=7, help="rounds of steps that are timed (default 7)")
    step.add_argument("--alone", action="store_true", help="without flash-linear-attention's layers")
    scaling_out = add_command(
        group, "scaling-out", benchmark_scaling_out, "training step on several GPUs", settings=False
    )
    _scaling_out(scaling_out)
    forms = add_command(group, "forms", benchmark_forms, "recurrences on this CPU", settings=False)
    _sizes(forms, batch=32)
    forms.add_argument(
        "--rounds", type=int, default=15, help="passes of each form that are timed (default 15)"
    )
    parity = add_command(group, "parity", benchmark_parity, "mixers against FLA and float64", settings=False)
    _models(parity)
    lengths = [8, 64, 100, 1024, 4096]
    parity.add_argument("--lengths", nargs="*", type=int, default=lengths, help=f"frames (default {lengths})")
    parity.add_argument("--precisions", nargs="*", default=["bf16", "fp32"], help="(default bf16 fp32)")
    losses = add_command(group, "losses", benchmark_losses, "losses of fast and plain steps", settings=False)
    _sizes(losses, batch=256)
    losses.add_argument("--steps", type=int, default=200, help="(default 200)")
    losses.add_argument("--layers", type=int, default=4, help="of each model (default 4)")
    endurance = add_command(
        group, "endurance", benchmark_endurance, "a long training with validation", settings=False
    )
    _sizes(endurance, batch=256)
    endurance.add_argument("--steps", type=int, default=5000, help="(default 5000)")
    endurance.add_argument("--evaluate-every", type=int, default=20, help="steps (default 20)")
    endurance.add_argument("--windows", type=int, default=128, help="in an evaluation (default 128)")
    data = add_command(group, "data", benchmark_data, "conversion of a year", settings=False)
    data.add_argument("--file", type=Path, help="a year of 17 levels (default: the embedded model makes one)")
    data.add_argument("--repeats", type=int, default=3)
    climate = add_command(group, "climate", benchmark_climate, "500 hPa against ERA5", settings=False)
    add_stores(climate)
    loader = add_command(group, "loader", benchmark_loader, "batches against a step", settings=False)
    loader.add_argument("--levels", type=int, default=1)
    loader.add_argument("--flavour", default="paper")
    steps = loader.add_mutually_exclusive_group()
    steps.add_argument("--model", help="whose training steps they are; by default a stand-in's")
    steps.add_argument("--step-milliseconds", type=float, default=100.0, help="of the stand-in")
    for parser in (forms, data, climate, loader):
        add_threads(parser)
    for parser in (parity, losses, endurance):
        _device(parser)
    for parser in (step, parity, losses, endurance):
        parser.add_argument("--limit", type=float, default=1800, help="seconds of a model (default 1800)")
    for parser in (step, scaling_out, forms, parity, losses, endurance, data, climate, loader):
        add_paths(parser, "output")
        parser.set_defaults(interrupted="the same command measures all of it anew")


def _models(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", nargs="*", help="of `isohypse models`; all by default")
    parser.add_argument("--flavour", default="paper")


def _sizes(parser: argparse.ArgumentParser, batch: int) -> None:
    _models(parser)
    parser.add_argument("--batch", type=int, default=batch, help=f"sequences in a step (default {batch})")
    parser.add_argument("--frames", type=int, default=8, help="frames in a sequence (default 8)")


def _device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto")


def _scaling_out(parser: argparse.ArgumentParser) -> None:
    _models(parser)
    parser.add_argument("--scalings", nargs="*", help="of weak, strong, long; all by default")
    parser.add_argument("--modes", nargs="*", help="of replicate, fsdp, tensor2, tensor4, tensor8")
    parser.add_argument("--gpus", nargs="*", type=int, default=[1, 2, 4, 8], help="(default 1 2 4 8)")
    parser.add_argument("--batch", type=int, default=256, help="windows: weak a GPU, strong in all")
    parser.add_argument("--frames", type=int, default=8, help="frames in a window (default 8)")
    parser.add_argument("--long-frames", type=int, default=131_072, help="in the one window of `long`")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of steps that are timed (default 5)")
    parser.add_argument("--steps", type=int, default=10, help="steps of a round; `long`: 1 (default 10)")
    parser.add_argument("--limit", type=float, default=300, help="seconds of a measurement (default 300)")
    _device(parser)


def benchmark_data(args: Args) -> None:
    from isohypse.benchmark.data import benchmark_data as measure_data

    print(measure_data(args.file, args.repeats, args.threads, args.output), end="")


def benchmark_climate(args: Args) -> None:
    from isohypse.benchmark.climate import compare_climate

    with dask_on(args.threads):
        print(compare_climate(args.archive, args.output), end="")


def benchmark_loader(args: Args) -> None:
    from isohypse.benchmark.loader import benchmark_loader as measure_loader

    stand_in = args.step_milliseconds / 1000
    print(measure_loader(args.levels, stand_in, args.output, args.model, args.flavour), end="")


def benchmark_step(args: Args) -> None:
    from isohypse.benchmark.step import benchmark_step as run
    from isohypse.benchmark.trial import Trial

    sizes = {"batch_size": args.batch, "frames": args.frames, "rounds": args.rounds, "peer": not args.alone}
    trials = [Trial(model, args.flavour, **sizes) for model in _chosen(args)]
    print(run(trials, args.output, args.limit), end="")


def benchmark_scaling_out(args: Args) -> None:
    from isohypse.benchmark.scaling_out import MODES, SCALINGS, Plan
    from isohypse.benchmark.scaling_out import benchmark_scaling_out as run

    plan = Plan(
        models=tuple(_chosen(args)),
        flavour=args.flavour,
        scalings=tuple(args.scalings or SCALINGS),
        modes=tuple(args.modes or MODES),
        gpus=tuple(args.gpus),
        batch_size=args.batch,
        frames=args.frames,
        long_frames=args.long_frames,
        rounds=args.rounds,
        steps=args.steps,
        device=args.device,
    )
    print(run(plan, args.output, args.limit), end="")


def benchmark_forms(args: Args) -> None:
    from isohypse.benchmark.forms import benchmark_forms as measure_forms

    sizes = (args.flavour, args.batch, args.frames, args.rounds)
    print(measure_forms(args.models, *sizes, args.threads, args.output), end="")


def benchmark_parity(args: Args) -> None:
    from isohypse.benchmark.parity import Comparison
    from isohypse.benchmark.parity import benchmark_parity as run

    what = (args.flavour, tuple(args.lengths), tuple(args.precisions), args.device)
    comparisons = [Comparison(model, *what) for model in _chosen(args)]
    print(run(comparisons, args.output, args.limit), end="")


def benchmark_losses(args: Args) -> None:
    from isohypse.benchmark.losses import benchmark_losses as run
    from isohypse.benchmark.smooth import SmoothTraining

    sizes = _training(args) | {"layers": args.layers, "warmup_steps": args.steps // 4}
    print(run([SmoothTraining(model, **sizes) for model in _chosen(args)], args.output, args.limit), end="")


def benchmark_endurance(args: Args) -> None:
    from isohypse.benchmark.endurance import Endurance
    from isohypse.benchmark.endurance import benchmark_endurance as run
    from isohypse.benchmark.trial import TABLE_3

    sizes = _training(args) | {"warmup_steps": min(TABLE_3["warmup_steps"], args.steps // 2)}
    sizes |= {"evaluate_every": args.evaluate_every, "windows": args.windows}
    print(run([Endurance(model, **sizes) for model in _chosen(args)], args.output, args.limit), end="")


def _training(args: Args) -> dict[str, Any]:
    """What is common to trainings on smooth fields."""
    shape = {"batch_size": args.batch, "frames": args.frames, "device": args.device}
    return {"flavour": args.flavour, "steps": args.steps, **shape}


def _chosen(args: Args) -> Iterable[str]:
    from isohypse.models.catalogue import MODELS

    return args.models or MODELS
