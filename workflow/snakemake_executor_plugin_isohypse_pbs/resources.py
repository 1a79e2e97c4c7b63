# SPDX-License-Identifier: Apache-2.0
"""Snakemake's resources in, qsub's options out; and the limits of queues.

nodes     chunks of `-l select` (default 1); threads and gpu are those of ONE node
threads   ncpus of a chunk
gpu       ngpus of a chunk
runtime   walltime (minutes; needed)
account, queue, filesystems, place   before the settings of the same name
select    the whole select statement, when the above cannot say it
rerunnable   "y" (default) or "n": may PBS itself start the job again (qsub -r)
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

RESOURCES = (
    "nodes", "gpu", "runtime", "account", "queue", "filesystems", "place", "select", "rerunnable"
)  # fmt: skip


class RequestError(ValueError):
    """What a rule asks for cannot be asked of PBS."""


@dataclass(frozen=True)
class Request:
    """What one job asks of PBS."""

    account: str
    queue: str | None
    filesystems: str | None
    select: str
    nodes: int
    place: str
    minutes: int
    rerunnable: str

    def argv(self, name: str, logs: Path, umask: int) -> list[str]:
        """qsub without the script. `-f` keeps qsub in the foreground; `-k doe` writes the log as it grows."""
        options = ["-f", "-N", name, "-A", self.account]
        options += ["-q", self.queue] if self.queue else []
        options += ["-l", f"select={self.select}", "-l", f"place={self.place}"]
        options += ["-l", f"walltime={self.minutes // 60:02d}:{self.minutes % 60:02d}:00"]
        options += ["-l", f"filesystems={self.filesystems}"] if self.filesystems else []
        options += ["-j", "oe", "-k", "doe", "-o", f"{logs}/", "-r", self.rerunnable]
        return ["qsub", *options, "-W", f"umask={umask:03o}"]


def request(resources: Mapping[str, object], threads: int, settings) -> Request:
    """What a job with these resources asks for. Raises RequestError."""

    def value(name, default=None):
        own = resources.get(name)
        return default if own in (None, "") else own

    minutes, nodes = _minutes(value("runtime")), _whole("nodes", value("nodes", 1))
    gpus, extra = _whole("gpu", value("gpu", 0), least=0), settings.chunk
    chunk = [
        str(nodes),
        *([extra] if extra else []),
        f"ncpus={threads}",
        *([f"ngpus={gpus}"] if gpus else []),
    ]
    rerunnable = str(value("rerunnable", "y"))
    if rerunnable not in ("y", "n"):
        raise RequestError(f'resource rerunnable is {rerunnable!r}; give "y" or "n"')
    select = _literal("select", value("select", ":".join(chunk)))
    return Request(
        account=_literal("account", value("account", settings.account), needed=True),
        queue=_literal("queue", value("queue", settings.queue)),
        filesystems=_literal("filesystems", value("filesystems", settings.filesystems)),
        select=select,
        nodes=chunks(select),
        place=_literal("place", value("place", settings.place)),
        minutes=minutes,
        rerunnable=rerunnable,
    )


def chunks(select: str) -> int:
    """Number of chunks of a select statement: `2:ncpus=4+1:ncpus=1` has 3."""
    return sum(int(match[0]) if (match := re.match(r"\d+", part)) else 1 for part in select.split("+"))


def _literal(name, value, needed=False):
    hint = f"--isohypse-pbs-{name} or resource {name}"
    if value is None and needed:
        raise RequestError(f"no PBS {name}: give it with {hint}")
    if value is not None and "$" in str(value):
        raise RequestError(f"PBS {name} is {value!r}, a variable that is not set; give it with {hint}")
    return None if value is None else str(value)


def _whole(name, value, least=1):
    try:
        number = int(value)
    except ValueError:
        number = least - 1
    if number < least:
        raise RequestError(f"resource {name} is {value!r}; give a whole number of at least {least}")
    return number


def _minutes(runtime):
    if runtime is None:
        raise RequestError("no walltime: give `runtime` (minutes) in the rule or in default-resources")
    return _whole("runtime", runtime)


@dataclass(frozen=True)
class QueueLimit:
    """Least and most nodes and minutes of a queue."""

    nodes: tuple[int, int] = (0, 10**9)
    minutes: tuple[int, int] = (0, 10**9)

    @classmethod
    def parse(cls, text: str) -> tuple[str, "QueueLimit"]:
        """(queue, limit) of `prod:nodes=10-496,minutes=5-1440`, or of `demand`. Raises RequestError."""
        name, _, rules = text.partition(":")
        spans = re.findall(r"(nodes|minutes)=(\d+)-(\d+)(?:,|$)", rules)
        if not name or ",".join(f"{k}={a}-{b}" for k, a, b in spans) != rules:
            raise RequestError(f"queue limit {text!r} does not read QUEUE:nodes=A-B,minutes=C-D")
        return name, cls(**{key: (int(least), int(most)) for key, least, most in spans})


def check_limits(wanted: Request, limits: Iterable[str]) -> None:
    """Raises RequestError when the request breaks a queue's limits, or names a queue that has none."""
    table = dict(QueueLimit.parse(text) for text in limits)
    if not table or wanted.queue is None:
        return
    if wanted.queue not in table:
        raise RequestError(
            f"queue {wanted.queue!r} is not in queue-limits ({', '.join(table)}); add it or correct it"
        )
    limit = table[wanted.queue]
    for unit in ("nodes", "minutes"):
        least, most = getattr(limit, unit)
        if not least <= getattr(wanted, unit) <= most:
            raise RequestError(
                f"queue {wanted.queue!r} takes {least} to {most} {unit}, not {getattr(wanted, unit)};"
                " choose another queue for the rule"
            )
