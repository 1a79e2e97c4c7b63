# SPDX-License-Identifier: Apache-2.0
"""Snakemake's side: hand jobs in, ask for all of them by one qstat a poll, delete them on Ctrl-C.

Three threads meet here. Snakemake's main thread calls `run_job`, `cancel` and `shutdown`; its poll thread
calls `check_active_jobs`; the desk's thread submits. The poll thread starts before `__post_init__`, so every
attribute that it touches exists before `super().__init__`.
"""

import asyncio
import os
import sys
import threading
import time
from pathlib import Path

from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

from . import jobscript, names
from .checks import ask, check_jobs, largest
from .deletion import deaf_to_ctrl_c, delete, withdraw
from .identity import digest, identity, key_of, members, title
from .pbs import PbsError, Server, ServerSilent
from .recovery import Survivors, find_survivors, is_fresh, settle
from .registry import Entry, Registry
from .resources import RequestError
from .states import Verdict
from .submission import Desk, Ticket
from .verification import DOUBTFUL, verify

POLLS_SHARE = 5  # a poll takes at most a fifth of the time


class Executor(RemoteExecutor):
    """One PBS job a Snakemake job."""

    def __init__(self, workflow, logger):
        self.live: dict[str, SubmittedJobInfo] = {}  # by id; Snakemake's own list is empty during a poll
        self.doubted_since: dict[str, float] = {}
        self.stopping = threading.Event()
        self.desk: Desk | None = None
        super().__init__(workflow, logger)

    def __post_init__(self):
        """The DAG is there and nothing runs yet: the one place where raising harms no job."""
        try:
            self._set_up()
            self._start()
        except (RequestError, PbsError) as error:
            self.stopping.set()
            raise WorkflowError(f"{error}. Nothing was started.") from error
        except BaseException:
            self.stopping.set()
            raise

    # ---- start ---------------------------------------------------------------------------------------------

    def _set_up(self):
        settings = self.settings = self.workflow.executor_settings
        self.registry = Registry(self.workflow.persistence.path.absolute() / "isohypse-pbs")
        self._tmpdir = str(self.registry.folder)  # the node waits for this folder: it must outlive the client
        self.server = Server(settings.command_timeout)
        self.survivors = Survivors()
        self.logs = Path(settings.logdir).absolute()
        self.umask = os.umask(0o077)
        os.umask(self.umask)
        self.next_seconds_between_status_checks = settings.poll_interval
        if self.is_default_jobscript:
            self.jobscript = jobscript.template(settings.prologue)
        elif settings.prologue:
            raise RequestError("give --jobscript or --isohypse-pbs-prologue, not both")
        self.desk = Desk(
            self.server, self.registry, settings.patience, self.logger, self._accepted, self._refused
        )

    def _start(self):
        """Refuse what cannot work, then find and settle what an earlier client left."""
        if self.workflow.remote_execution_settings.immediate_submit:
            raise RequestError(
                "--immediate-submit is not supported: PBS would start jobs before their inputs exist"
            )
        jobs = self._needed()
        check_jobs(jobs, self.settings)
        try:
            if jobs or self.registry.entries():
                self.server.find("snakemake.is.there")
                self.survivors = find_survivors(self.registry, self.server)
        except ServerSilent as error:
            if jobs:
                raise PbsError(f"{error}; PBS jobs of an earlier start may be alive") from error
            self.logger.warning(
                f"PBS does not answer ({error}); jobs of an earlier start were not looked at."
            )
        settle(self.survivors, self.registry, self.workflow, self.logger)
        self._refuse_clashes()

    def _needed(self):
        return [job for job in self.dag.needrun_jobs() if not job.is_local]

    def _refuse_clashes(self):
        clashes = self.survivors.live and self.survivors.clashes(identity(self._needed()))
        if clashes:
            raise PbsError(
                "PBS still makes some of these outputs from other params, inputs or command: "
                f"{_ids(clashes)}. Let them end or qdel them, then start again"
            )

    # ---- submit --------------------------------------------------------------------------------------------

    def run_job(self, job):
        """Adopt the PBS job that makes this already, or hand in a new one."""
        try:
            jobs = identity(members(job))
            entry = self.survivors.claim(jobs)
            if entry and (not entry.ended or is_fresh(members(job), self.workflow)):
                self._adopt(job, entry)
            elif overlap := self.survivors.overlapping(jobs):
                # An error of the job would make Snakemake delete outputs that are being written.
                text = f"PBS jobs {_ids(overlap)} of an earlier start make some of the outputs of {job.name}"
                self.workflow.scheduler.executor_error_callback(WorkflowError(f"{text}. Let them end first."))
            else:
                if entry:
                    self.registry.forget(entry)
                self.survivors.supersede(jobs, self.registry)
                self._submit(job, jobs)
        except Exception as error:
            self.report_job_error(SubmittedJobInfo(job), msg=f"Not submitted: {error}. ")

    def _submit(self, job, jobs):
        base = self._base(job)
        entry = Entry(names.job_name(base), base, jobs, str(self._log_folder(job)))
        self.registry.marker(base).unlink(missing_ok=True)
        self.write_jobscript(job, self.get_jobscript(job))
        self._hand_in(job, entry)

    def _hand_in(self, job, entry):
        """Snakemake's marker gets our name before the node's Snakemake can have replaced it."""
        wanted = ask(job, self.settings)
        logs = Path(entry.logs)
        logs.mkdir(parents=True, exist_ok=True)
        argv = [*wanted.argv(entry.name, logs, self.umask), self.get_jobscript(job)]
        job.register(external_jobid=entry.name)
        self.desk.hand_in(Ticket(job, entry, argv))

    def _adopt(self, job, entry):
        self.logger.info(f"Adopted PBS job {entry.id} ({entry.name}) of an earlier start for {job.name}.")
        self._watch(job, entry)

    def _accepted(self, ticket):
        entry = ticket.entry
        self.logger.info(f"Submitted PBS job {entry.id} ({entry.name}), log {entry.log}")
        self._watch(ticket.job, entry)

    def _refused(self, ticket, error):
        self.report_job_error(SubmittedJobInfo(ticket.job), msg=f"Not submitted: {error}. ")

    def _watch(self, job, entry):
        info = SubmittedJobInfo(job, external_jobid=entry.id, aux={"entry": entry})
        self.live[entry.id] = info
        self.report_job_submission(info, register_job=False)

    # ---- job script ----------------------------------------------------------------------------------------

    def get_jobscript(self, job):
        return str(self.registry.script(self._base(job)))

    def get_job_exec_prefix(self, job):
        minutes = ask(job, self.settings).minutes
        folder = self.workflow.workdir_init if self.workflow.storage_settings.assume_common_workdir else None
        marker, programs = self.registry.marker(self._base(job)), Path(sys.executable).parent
        return jobscript.prefix(minutes, marker, folder, programs)

    def _base(self, job):
        return f"{names.label(*title(job))}.{digest(sorted(map(key_of, members(job))))[:8]}"

    def _log_folder(self, job):
        return names.log_folder(self.logs, *title(job))

    # ---- poll ----------------------------------------------------------------------------------------------

    async def check_active_jobs(self, active_jobs):
        """Yield the jobs that go on; report the others."""
        states = self._poll([info.external_jobid for info in active_jobs]) if self.desk else {}
        for info in active_jobs:
            end = await self._end_of(info, states.get(info.external_jobid))
            if end is None or self.stopping.is_set():
                yield info
            else:
                self._close(info, end)

    def _poll(self, ids):
        """{id: state} of the ids that got an answer."""
        if self.stopping.is_set() or not (ids or self.desk.waiting):
            return {}
        start, states = time.monotonic(), {}
        try:
            if ids:
                states = self.server.poll(ids)
            else:
                self.server.find("snakemake.is.there")
        except ServerSilent as error:
            self.desk.connection.lost(error)
        except PbsError as error:
            self.logger.warning(str(error))
        else:
            self.desk.connection.back()
            self.desk.try_again()
        pause = POLLS_SHARE * (time.monotonic() - start)
        self.next_seconds_between_status_checks = max(self.settings.poll_interval, pause)
        return states

    async def _end_of(self, info, state):
        """How the job ended; None while it goes on, and for a grace period while its end is in doubt."""
        if state is None or state.verdict is Verdict.LIVE:
            self.doubted_since.pop(info.external_jobid, None)
            return None
        end = await verify(state, info.aux["entry"].name, members(info.job), self.workflow.persistence)
        if end not in DOUBTFUL:
            return end
        since = self.doubted_since.setdefault(info.external_jobid, time.monotonic())
        return end if time.monotonic() - since >= self.settings.grace else None

    def _close(self, info, state):
        entry = info.aux["entry"]
        self.live.pop(info.external_jobid, None)
        if state.verdict is Verdict.STUCK:
            delete([entry], self.server, self.registry, self.logger)
        if entry.doubtful:
            self._sweep(entry)
        if state.verdict is not Verdict.DONE and self._continue(info, state):
            return
        self.registry.clear(entry)
        if state.verdict is Verdict.DONE:
            self.report_job_success(info)
        else:
            self.report_job_error(info, msg=f"PBS: {state.words}. ", aux_logs=[entry.log])

    def _sweep(self, entry):
        try:
            self.desk.sweep(entry)
        except PbsError as error:
            self.logger.warning(f"Could not look for second copies of {entry.name}: {error}")

    def _continue(self, info, state):
        """Ended by the machine, or by itself in time: the same job again, which is not a retry."""
        entry, marker = info.aux["entry"], self.registry.marker(info.aux["entry"].base)
        asked = state.verdict is Verdict.FAILED and marker.exists()
        budget = int(largest(info.job, "continuations", 0))
        if not (asked or state.verdict is Verdict.INTERRUPTED) or entry.continued >= budget:
            return False
        marker.unlink(missing_ok=True)
        successor = Entry(names.job_name(entry.base), entry.base, entry.jobs, entry.logs)
        successor.continued = entry.continued + 1
        words = "stopped itself to be continued" if asked else state.words
        self.logger.info(f"PBS job {entry.id}: {words}; continuing, {successor.continued} of {budget} times.")
        try:
            self._hand_in(info.job, successor)
        except Exception as error:
            self.logger.error(f"Not continued: {error}")
            return False
        self.registry.forget(entry)
        return True

    async def sleep(self):
        """Until the next poll, or until the end."""
        end = time.monotonic() + self.next_seconds_between_status_checks
        while not self.stopping.is_set() and time.monotonic() < end:
            await asyncio.sleep(0.2)

    # ---- end -----------------------------------------------------------------------------------------------

    def cancel(self):
        """Ctrl-C: nothing of ours stays in PBS, or the user is told what and the next start finds it."""
        with deaf_to_ctrl_c():
            self.stopping.set()
            self.logger.info("Deleting the PBS jobs of this workflow.")
            self.desk.close()
            for ticket in self.desk.waiting:
                withdraw(ticket.entry, self.server, self.registry, self.logger)
            self.cancel_jobs(list(self.live.values()))
            self.shutdown()

    def cancel_jobs(self, active_jobs):
        delete([info.aux["entry"] for info in active_jobs], self.server, self.registry, self.logger)

    def shutdown(self):
        """The end. What jobs that go on need stays: scripts, entries, output folders."""
        self.stopping.set()
        self.desk.close()
        if self.desk.waiting or not all(info.aux["entry"].deleted for info in self.live.values()):
            self.workflow.dag.cleanup_workdir = lambda: None  # it removes output folders still empty
        with self.lock:
            self.wait = False
        self.wait_thread.join()


def _ids(entries):
    return " ".join(str(entry.id) for entry in entries)
