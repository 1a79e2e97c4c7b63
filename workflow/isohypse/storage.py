# SPDX-License-Identifier: Apache-2.0
"""Atomic results: a file or folder appears under its final name only when it is complete.

Everything is written beside its destination under a hidden temporary name (the same file system, so
that the rename is atomic) and moved when the writer has finished; whatever fails leaves nothing behind.
A file never takes the place of a folder: that is a mistaken name, and would cost what lies in it.
"""

import errno
import hashlib
import json
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from isohypse.errors import StorageError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FULL_BYTES = 1 << 16
"""Less than this left is a full disk, whatever a library that failed to write calls it."""
_umask = os.umask(0)
os.umask(_umask)  # read once: it cannot be read without being set, for all threads
USUAL = 0o666 & ~_umask
"""Who may do what with a new file."""


@contextmanager
def atomic_path(destination: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `destination`; on success it replaces `destination`.

    The caller may create a file or a folder under the yielded path. If the block raises, the temporary
    path is removed and an existing `destination` stays as it was. Raises StorageError if the disk is full, or
    if a file was written and `destination` is a folder.
    """
    destination = Path(destination)
    destination.parent.mkdir(parents=True, exist_ok=True)
    # The suffix is kept: several writers choose their format by it.
    temporary = destination.parent / f".{uuid.uuid4().hex[:8]}.part-{destination.name}"
    try:
        yield temporary
        if not temporary.exists():
            raise FileNotFoundError(f"nothing was written for {destination}")
        _open_up(temporary)
        _replace(temporary, destination)
    except Exception as error:
        if no_room(error, destination.parent):
            raise StorageError(
                f"{destination}: no room on this disk; nothing was written, what was there before is intact: "
                "make room and run the same command again"
            ) from error
        raise
    finally:
        _remove(temporary)


def no_room(error: BaseException | None, folder: Path) -> bool:
    """Whether a write failed because the disk, or the user's share of it, is full."""
    if shutil.disk_usage(folder).free < FULL_BYTES:
        return True
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return True
        error = error.__cause__ or error.__context__
    return False


def _replace(source: Path, destination: Path) -> None:
    """Move `source` over `destination`. A folder cannot be replaced in one call: the old one steps aside."""
    if destination.is_dir() and not destination.is_symlink():
        if not source.is_dir():
            raise StorageError(f"{destination} is a folder and stays one: name a file")
        aside = destination.parent / f".{uuid.uuid4().hex[:8]}.old-{destination.name}"
        os.rename(destination, aside)
        os.rename(source, destination)
        _remove(aside)
    else:
        os.replace(source, destination)


def _open_up(path: Path) -> None:
    """Let others read what the user's umask lets them: safetensors writes for the owner alone."""
    for file in [path] if path.is_file() else [child for child in path.iterdir() if child.is_file()]:
        mode = stat.S_IMODE(file.stat().st_mode)
        if mode | USUAL != mode:
            with suppress(PermissionError):  # of a file system that has modes of its own
                file.chmod(mode | USUAL)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_json(destination: Path | str, value: Any) -> None:
    """Write `value` as indented JSON, atomically. NaN and infinity are refused: JSON has neither."""
    with atomic_path(destination) as path:
        path.write_text(json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def sha256(path: Path | str) -> str:
    """Of the content of a file, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path | str) -> Any:
    return json.loads(Path(path).read_text())
