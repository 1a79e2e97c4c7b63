# SPDX-License-Identifier: Apache-2.0
"""What commands of `isohypse` have in common on their command lines."""

import argparse
from collections.abc import Callable
from pathlib import Path

Command = Callable[[argparse.Namespace], None]
"""What a command does with its arguments."""


def add_command(
    group: argparse._SubParsersAction, name: str, command: Command, text: str, settings: bool = True
) -> argparse.ArgumentParser:
    parser = group.add_parser(name, help=text, description=text, allow_abbrev=False)
    parser.set_defaults(command=command)
    if settings:
        parser.add_argument(
            "--settings", required=True, type=content, help="the stage's settings: JSON or @file"
        )
    return parser


def content(value: str) -> str:
    """A value, or the content of the file behind an @."""
    if not value.startswith("@"):
        return value
    try:
        return Path(value[1:]).read_text()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{value[1:]}: {error.strerror}") from None


def add_paths(parser: argparse.ArgumentParser, *names: str) -> None:
    for name in names:
        parser.add_argument(f"--{name}", required=True, type=Path)


def add_stores(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "archive", nargs="+", type=_store, help="yearly Zarr stores (or their zarr.json), in order"
    )


def _store(path: str) -> Path:
    return Path(path).parent if Path(path).name == "zarr.json" else Path(path)


def add_threads(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", type=int, default=1, help="threads of torch and dask (default 1)")
