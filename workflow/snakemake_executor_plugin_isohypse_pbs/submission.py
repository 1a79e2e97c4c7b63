# SPDX-License-Identifier: Apache-2.0
"""The desk where jobs are handed in: one qsub at a time, in a thread that Ctrl-C does not interrupt.

A server that is down, hangs or has a full queue costs no job: the ticket waits and is tried again after the
next poll that got an answer. A qsub that got no answer may have reached the server: from then on the job is
looked for by its name before and after every further try, and of two copies the newer stays.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from .deletion import withdraw
from .pbs import PbsError, QueueFull, Server, ServerSilent
from .registry import Entry, Registry


@dataclass
class Ticket:
    """A job to be submitted: Snakemake's job, its entry, and the qsub command."""

    job: object
    entry: Entry
    argv: list[str]
    since: float = field(default_factory=time.monotonic)


class Connection:
    """Whether the server answers; says so once when it stops, and once when it is back."""

    def __init__(self, logger):
        self.logger, self.silent = logger, False

    def lost(self, error: ServerSilent) -> None:
        if not self.silent:
            self.logger.warning(f"PBS does not answer ({error}). Jobs go on; asking again until it does.")
        self.silent = True

    def back(self) -> None:
        if self.silent:
            self.logger.info("PBS answers again.")
        self.silent = False


class Desk:
    """Submits tickets in the order they come, and reports each to `accepted` or `refused`."""

    def __init__(
        self,
        server: Server,
        registry: Registry,
        patience_seconds: float,
        logger,
        accepted: Callable[[Ticket], None],
        refused: Callable[[Ticket, Exception], None],
    ):
        self.server, self.registry, self.patience_seconds = server, registry, patience_seconds
        self.logger, self.accepted, self.refused = logger, accepted, refused
        self.connection = Connection(logger)
        self.worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="qsub")
        self.waiting: list[Ticket] = []
        self.full_queue_told = self.closed = False

    def hand_in(self, ticket: Ticket) -> None:
        """Queue a ticket. Raises RuntimeError after `close`."""
        self.worker.submit(self._serve, ticket)

    def try_again(self) -> None:
        """After an answer of the server: hand in what waits."""
        tickets, self.waiting = self.waiting, []
        for ticket in tickets:
            try:
                self.hand_in(ticket)
            except RuntimeError:
                self.waiting.append(ticket)

    def close(self) -> None:
        """Wait for the qsub in flight; tickets not begun join those that wait."""
        self.closed = True
        self.worker.shutdown(wait=True)

    def sweep(self, entry: Entry) -> None:
        """Delete the copies that a qsub without an answer may have left beside the one that counts."""
        copies = [job_id for job_id in self.server.find(entry.name) if job_id != entry.id]
        if copies:
            self.logger.warning(f"Deleting second copies of {entry.name}: {' '.join(copies)}")
            self.server.delete(copies)

    def _serve(self, ticket: Ticket) -> None:
        if self.closed:
            self.waiting.append(ticket)
            return
        try:
            if self.connection.silent:
                raise ServerSilent("PBS did not answer before")
            self._submit(ticket)
        except ServerSilent as error:
            self._server_silent(ticket, error)
        except QueueFull as error:
            if not self.full_queue_told:
                self.logger.warning(f"{error}. Waiting for room.")
            self.full_queue_told = True
            self.waiting.append(ticket)
        except Exception as error:
            self._give_up(ticket, error)
        else:
            self.accepted(ticket)

    def _give_up(self, ticket: Ticket, error: Exception) -> None:
        """PBS should not have the job. Look all the same: the connection may have broken on the way back."""
        ticket.entry.doubtful = True
        withdraw(ticket.entry, self.server, self.registry, self.logger)
        self.refused(ticket, error)

    def _submit(self, ticket: Ticket) -> None:
        entry = ticket.entry
        if entry.id is None and entry.doubtful and (found := self.server.find(entry.name)):
            entry.id = found[-1]
        if entry.id is None:
            self.registry.write(entry)
            entry.id = self.server.submit(ticket.argv)
        self.registry.write(entry)
        if entry.doubtful:
            self._sweep_after_doubt(entry)

    def _sweep_after_doubt(self, entry: Entry) -> None:
        try:
            found = self.server.find(entry.name)
            entry.id = found[-1] if found else entry.id
            self.registry.write(entry)
            self.sweep(entry)
        except PbsError as error:
            self.logger.warning(f"{error}. Second copies of {entry.name} are looked for when it ends.")

    def _server_silent(self, ticket: Ticket, error: ServerSilent) -> None:
        self.connection.lost(error)
        if error.sent:
            ticket.entry.doubtful = True
            self.registry.write(ticket.entry)
        overdue = time.monotonic() - ticket.since > self.patience_seconds
        if overdue and not ticket.entry.doubtful:
            self.registry.clear(ticket.entry)
            self.refused(ticket, PbsError(f"no answer for {self.patience_seconds:g} s: {error}"))
        else:
            self.waiting.append(ticket)
