# SPDX-License-Identifier: Apache-2.0
"""Deleting PBS jobs so that none is forgotten: what stays keeps its entry, and the user is told."""

import signal
import threading
import time
from collections.abc import Sequence
from contextlib import contextmanager

from .pbs import PbsError, Server
from .registry import Entry, Registry

TRIES = 3
PAUSE_SECONDS = 2


def delete(entries: Sequence[Entry], server: Server, registry: Registry, logger) -> None:
    """qdel. The entries stay, marked, until the jobs have ended: the next start waits for that."""
    kept = {entry.id: "" for entry in entries}
    for attempt in range(TRIES if entries else 0):
        time.sleep(PAUSE_SECONDS if attempt else 0)
        kept = server.delete(list(kept))
        if not kept:
            break
    for entry in entries:
        if entry.id not in kept:
            entry.deleted = True
            registry.write(entry)
    if kept:
        ids, why = " ".join(kept), next(iter(kept.values()))
        logger.error(f"qdel failed ({why}). These PBS jobs go on, and the next start adopts them: {ids}")


def withdraw(entry: Entry, server: Server, registry: Registry, logger) -> None:
    """Take back a submission without an id. If its qsub got no answer, PBS may have the job all the same."""
    try:
        ids = server.find(entry.name) if entry.doubtful else []
    except PbsError as error:
        logger.error(f"{entry.name} may yet appear in PBS ({error}); the next start looks for it.")
        return
    if not server.delete(ids):
        registry.clear(entry)


@contextmanager
def deaf_to_ctrl_c():
    """A second Ctrl-C would end the deletion half done; it takes a bounded time."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
