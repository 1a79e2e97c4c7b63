# SPDX-License-Identifier: Apache-2.0
"""Refusals before anything starts: what PBS would refuse later, or worse, drop without a word."""

from collections.abc import Iterable

from snakemake_interface_common.exceptions import WorkflowError

from .identity import UNKNOWN_YET, members
from .resources import RESOURCES, Request, RequestError, check_limits, request


def ask(job, settings) -> Request:
    """What a job, or a group of jobs, asks of PBS. Raises RequestError."""
    resources = dict(job.resources.items())
    if job.is_group():  # Snakemake adds up what runs side by side; but nodes are shared by all members
        resources["nodes"] = largest(job, "nodes", 1)
    wanted = request(resources, job.threads, settings)
    check_limits(wanted, settings.queue_limits or ())
    return wanted


def largest(job, resource: str, default: int) -> object:
    """What the member of a group that asks for the most of `resource` asks for."""
    return max((member.resources.get(resource, default) for member in members(job)), key=int)


def check_jobs(jobs: Iterable, settings) -> None:
    """Raises RequestError, naming the rule. Jobs whose resources are not known yet are checked later."""
    for job in jobs:
        try:
            if any(UNKNOWN_YET in str(value) for value in _used(job)):
                continue
        except WorkflowError:
            continue
        try:
            # Runtimes of a group add up, so that a member says nothing about the limits.
            request(job.resources, job.threads, settings) if job.group else ask(job, settings)
        except RequestError as error:
            raise RequestError(f"rule {job.rule.name}: {error}") from error


def _used(job):
    return [job.threads, *(job.resources.get(name) for name in RESOURCES)]
