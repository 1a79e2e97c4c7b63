# SPDX-License-Identifier: Apache-2.0
"""What an earlier client left behind, at the start of the next one.

Jobs that still run are adopted: the same outputs from the same params, inputs and command need no second
copy. Jobs that ended well while no client watched are settled: Snakemake finds their outputs and has nothing
to do, but it has no record of what they were made from, so later changes would go unseen. The record is
written, or, where they were made from something else, the job is run again.
"""

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from .identity import agree, fingerprint, key_of
from .pbs import PbsError, Server, ServerSilent
from .registry import Entry, Registry
from .states import State, Verdict

DELETION_SECONDS = 90
QSUB_SECONDS = 15  # a qsub outlives its client, and may still be on its way


@dataclass
class Survivors:
    """Entries of an earlier client: of jobs that live, and of jobs that ended well."""

    live: list[Entry] = field(default_factory=list)
    ended: list[Entry] = field(default_factory=list)

    def claim(self, jobs: Mapping[str, str]) -> Entry | None:
        """The entry of a job that makes all of these, from the same; it is taken out."""
        for entries in (self.live, self.ended):
            for entry in entries:
                if jobs.keys() <= entry.jobs.keys() and agree(jobs, entry.jobs):
                    entries.remove(entry)
                    return entry
        return None

    def overlapping(self, jobs: Mapping[str, str]) -> list[Entry]:
        """Entries of live jobs that make some of these."""
        return [entry for entry in self.live if jobs.keys() & entry.jobs.keys()]

    def clashes(self, jobs: Mapping[str, str]) -> list[Entry]:
        """Entries of live jobs that make some of these, but from something else."""
        return [entry for entry in self.live if not agree(jobs, entry.jobs)]

    def supersede(self, jobs: Mapping[str, str], registry: Registry) -> None:
        """Forget ended jobs that are about to be done again."""
        for entry in [e for e in self.ended if jobs.keys() & e.jobs.keys()]:
            self.ended.remove(entry)
            registry.forget(entry)


def find_survivors(registry: Registry, server: Server) -> Survivors:
    """Ask PBS about every entry, by one qstat for all. Raises ServerSilent, PbsError."""
    entries = [entry for entry in registry.entries() if _identified(entry, registry, server)]
    unsure = [entry.id for entry in entries if not entry.ended]
    states = server.poll(unsure)
    if missing := [job_id for job_id in unsure if job_id not in states]:
        raise ServerSilent(f"qstat does not tell whether {' '.join(missing)} still run")
    dying = [e for e in entries if e.deleted and states[e.id].verdict in (Verdict.LIVE, Verdict.STUCK)]
    _await_deletion(dying, server)
    found = Survivors()
    for entry in entries:
        if entry.ended or states[entry.id].verdict in (Verdict.DONE, Verdict.UNKNOWN):
            _keep_ended(entry, registry, found)
        elif entry not in dying and states[entry.id].verdict is Verdict.LIVE:
            found.live.append(entry)
        else:
            _discard(entry, states[entry.id], registry, server)
    return found


def _identified(entry: Entry, registry: Registry, server: Server) -> bool:
    """Give the entry the id that its client did not live to write. False: PBS never got the job."""
    if entry.id is not None and not entry.doubtful:
        return True
    end = time.monotonic() + QSUB_SECONDS - registry.age_seconds(entry)
    while not (found := server.find(entry.name)) and time.monotonic() < end:
        time.sleep(1)
    if not found:
        registry.clear(entry)
        return False
    *copies, entry.id = found
    server.delete(copies)
    registry.write(entry)
    return True


def _await_deletion(dying: list[Entry], server: Server) -> None:
    """Jobs that the earlier client deleted take a while to end; two copies must not run."""
    end = time.monotonic() + DELETION_SECONDS
    ids = [entry.id for entry in dying]
    while ids:
        server.delete(ids)
        states = server.poll(ids)
        ids = [i for i in ids if i not in states or states[i].verdict in (Verdict.LIVE, Verdict.STUCK)]
        if ids and time.monotonic() > end:
            raise PbsError(f"PBS jobs {' '.join(ids)} were deleted, but do not end")
        time.sleep(1 if ids else 0)


def _keep_ended(entry: Entry, registry: Registry, found: Survivors) -> None:
    if not entry.ended:
        entry.ended = True
        registry.write(entry)
    found.ended.append(entry)


def _discard(entry: Entry, state: State, registry: Registry, server: Server) -> None:
    if state.verdict is Verdict.STUCK:
        server.delete([entry.id])
    registry.clear(entry)


def settle(survivors: Survivors, registry: Registry, workflow, logger) -> None:
    """Bring Snakemake's records up to date with the jobs that ended while no client watched."""
    by_key = {key_of(job): job for job in workflow.dag.jobs} if survivors.ended else {}
    forced = set()
    for entry in list(survivors.ended):
        settled, outdated = _settle_entry(entry, by_key, workflow)
        forced |= outdated
        if outdated:
            logger.warning(
                f"Made again, as PBS job {entry.id} made it from something else: {' '.join(outdated)}"
            )
        if settled:
            survivors.ended.remove(entry)
            registry.clear(entry)
    if forced:
        workflow.dag.forcefiles.update(forced)
        workflow.async_run(workflow.dag.postprocess())


def _settle_entry(entry: Entry, by_key: Mapping[str, object], workflow) -> tuple[bool, set[str]]:
    """(whether nothing of the entry is left to settle, outputs that were made from something else)."""
    settled, outdated = True, set()
    for key, made_from in entry.jobs.items():
        job = by_key.get(key)
        if job is None or workflow.dag.needrun(job) or not outputs_exist(job):
            settled = False
        elif agree({key: fingerprint(job)}, {key: made_from}):
            workflow.async_run(workflow.persistence.finished(job))
        elif any(trigger.name == "PARAMS" for trigger in workflow.rerun_triggers):
            outdated |= set(job.output)
            settled = False
    return settled, outdated


def outputs_exist(job) -> bool:
    """Whether all outputs are there."""
    return all(os.path.exists(path) for path in job.output)


def is_fresh(jobs: Iterable, workflow) -> bool:
    """Whether all outputs are there, none older than an input, and the user did not ask for the job anew."""
    settings = workflow.dag_settings
    if settings.forceall or settings.forcerun or settings.forcetargets:
        return False
    return all(outputs_exist(job) and _newer(job.output, job.input) for job in jobs)


def _newer(outputs: Iterable[str], inputs: Iterable[str]) -> bool:
    try:
        newest_input = max(map(os.path.getmtime, inputs), default=0.0)
        return min(map(os.path.getmtime, outputs), default=0.0) >= newest_input
    except OSError:
        return False
