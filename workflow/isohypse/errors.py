# SPDX-License-Identifier: Apache-2.0
"""The errors a user can cause, and the one voice in which they are told.

The command line prints an `IsohypseError` as one line and exits with its code; anything else is a bug
and shows its traceback. A message says what was wrong, where, and what to do.
"""


class IsohypseError(Exception):
    """Base of every foreseen failure; `exit_code` is what the command line returns for it."""

    exit_code = 1


class ConfigurationError(IsohypseError):
    """A value of the configuration is not allowed: retrying cannot help."""

    exit_code = 2


class DataError(IsohypseError):
    """An input file is not what the data contract asks for (`data/contract.py`)."""

    exit_code = 3


class DownloadError(DataError):
    """A file could not be fetched; running the same command again may help."""

    exit_code = 4


class StorageError(IsohypseError):
    """A result cannot be written where it should be: no room, or a folder is in the place of a file."""

    exit_code = 7


class UnavailableError(IsohypseError):
    """An explicitly chosen backend, device or optional package is not there."""

    exit_code = 5


class TrainingError(IsohypseError):
    """A training cannot go on: a loss that is not finite, a checkpoint of another run."""

    exit_code = 6
