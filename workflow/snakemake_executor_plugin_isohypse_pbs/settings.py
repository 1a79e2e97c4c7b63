# SPDX-License-Identifier: Apache-2.0
"""The executor's settings: `--isohypse-pbs-NAME VALUE`, or `isohypse-pbs-NAME: VALUE` in a profile."""

# ruff: noqa: RUF009, UP006, UP035, UP045 (Snakemake's plugin registry reads fields and types in this form)

from dataclasses import dataclass, field
from typing import List, Optional

from snakemake_interface_executor_plugins.settings import CommonSettings, ExecutorSettingsBase


def _setting(help, default=None, **metadata):
    return field(default=default, metadata={"help": help, "required": False, **metadata})


@dataclass
class ExecutorSettings(ExecutorSettingsBase):
    """Defaults of all jobs. A resource of the same name in a rule (account, queue, ...) goes before them."""

    account: Optional[str] = _setting(
        "Allocation that pays for the jobs (qsub -A). Needed; not marked as such, because dry runs are free.",
        env_var=True,
    )
    queue: Optional[str] = _setting("Queue (qsub -q). Default: the server's.", env_var=True)
    filesystems: Optional[str] = _setting(
        "File systems that the jobs use (qsub -l filesystems), for example home:eagle."
    )
    chunk: Optional[str] = _setting(
        "Resources added to each chunk of `-l select`, for example system=polaris."
    )
    place: str = _setting("How chunks are placed (qsub -l place).", "scatter")
    queue_limits: List[str] = _setting(
        "Limits of queues, checked before anything starts, for example prod:nodes=10-496,minutes=5-1440. "
        "When given, a queue that is not listed is refused.",
        nargs="+",
    )
    logdir: str = _setting("Folder of the PBS logs.", "logs/pbs")
    prologue: Optional[str] = _setting("Shell lines run on the node before Snakemake: modules, environment.")
    poll_interval: int = _setting(
        "Seconds between two polls, at least; five times a poll's own duration.", 30
    )
    command_timeout: int = _setting("Seconds after which a PBS command counts as unanswered.", 60)
    patience: int = _setting("Seconds for which a submission is tried again when PBS does not answer.", 3600)
    grace: int = _setting(
        "Seconds for which a job may be unknown to PBS, or end without a trace, until it counts as failed.",
        60,
    )


common_settings = CommonSettings(
    non_local_exec=True,
    implies_no_shared_fs=False,
    job_deploy_sources=False,
    pass_envvar_declarations_to_cmd=True,
    auto_deploy_default_storage_provider=False,
    init_seconds_before_status_checks=1,
)
