# SPDX-License-Identifier: Apache-2.0
"""One small file a PBS job, so that a client that starts later knows what an earlier one left.

A submission is written down before qsub (the intent, without an id) and again after it (with the id). If the
client dies between the two, the job is found by its name, which is unique.

    <base>.sh         the job script (it may hold `envvars:` in plain text: the folder is closed to others)
    <base>.continue   left by a job that stopped itself in time and wants to go on
    <name>.json       the entry of one submission
"""

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass
class Entry:
    """A submission: PBS name and id, the rule jobs it makes ({key: fingerprint}), its log folder."""

    name: str
    base: str
    jobs: dict[str, str]
    logs: str
    id: str | None = None
    continued: int = 0  # how many times the job has been continued already
    doubtful: bool = False  # qsub did not answer in time: PBS may have the job, or get it later
    deleted: bool = False  # deleted by us; may take a while to end
    ended: bool = False  # known to have ended well

    @property
    def log(self) -> str:
        """Where PBS writes the log, from the working directory."""
        return os.path.relpath(Path(self.logs, f"{self.id}.OU"))


class Registry:
    """The folder of entries."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def script(self, base: str) -> Path:
        return self.folder / f"{base}.sh"

    def marker(self, base: str) -> Path:
        return self.folder / f"{base}.continue"

    def write(self, entry: Entry) -> None:
        """On disk before it returns: the next thing done may be qsub, and then a power cut."""
        path = self.folder / f"{entry.name}.json"
        part = path.with_name(path.name + ".part")
        with open(part, "w") as file:
            json.dump(asdict(entry), file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)

    def forget(self, entry: Entry) -> None:
        """Remove the entry; `clear` removes what the next submission of the same job would still use."""
        (self.folder / f"{entry.name}.json").unlink(missing_ok=True)

    def clear(self, entry: Entry) -> None:
        """Remove the entry, its script (and the list of awaited files beside it) and its marker."""
        self.forget(entry)
        for path in (*self.folder.glob(f"{entry.base}.sh*"), self.marker(entry.base)):
            path.unlink(missing_ok=True)

    def age_seconds(self, entry: Entry) -> float:
        """Since the entry was written."""
        return max(0.0, time.time() - os.path.getmtime(self.folder / f"{entry.name}.json"))

    def entries(self) -> list[Entry]:
        """All entries, in the order of their names. A damaged file is no entry."""
        found = []
        for path in sorted(self.folder.glob("*.json")):
            try:
                found.append(Entry(**json.loads(path.read_text())))
            except (OSError, ValueError, TypeError):
                continue
        return found
