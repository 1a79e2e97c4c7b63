# SPDX-License-Identifier: Apache-2.0
"""Which job is the same job: a key from its outputs, a fingerprint from what they are made of.

The command enters as the rule writes it, not as formatted: threads, memory and attempt may change between two
starts without making the result another one. Snakemake's own rerun triggers see it the same way.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping

UNKNOWN_YET = "<TBD>"  # Snakemake's text for what depends on files that are not there yet


def members(job) -> list:
    """The rule jobs of a Snakemake job: itself, or those of a group."""
    return list(job.jobs) if job.is_group() else [job]


def title(job) -> tuple[str, dict]:
    """Rule and wildcards, or the name of a group."""
    return (job.groupid, {}) if job.is_group() else (job.rule.name, job.wildcards_dict)


def identity(jobs: Iterable) -> dict[str, str]:
    """{key: fingerprint} of rule jobs."""
    return {key_of(job): fingerprint(job) for job in jobs}


def key_of(job) -> str:
    """The same outputs are the same job; without outputs, the same rule and wildcards are."""
    outputs = sorted(map(str, job.output))
    return digest(outputs or [job.rule.name, job.wildcards_dict])


def fingerprint(job) -> str:
    """Params, inputs and command in one digest; empty while some of them are not known."""
    rule = job.rule
    code = rule.shellcmd or getattr(rule, "run_func_src", None)
    command = [str(part) for part in (code, rule.script, rule.notebook, rule.wrapper) if part]
    what = [rule.name, job.wildcards_dict, list(job.params), list(map(str, job.input)), command]
    text = json.dumps(what, sort_keys=True, default=_plain)
    return "" if UNKNOWN_YET in text else digest(text)


def agree(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """No job of one has another fingerprint in the other. Fingerprints that are not known agree with all."""
    return all(not one[key] or not other[key] or one[key] == other[key] for key in one.keys() & other.keys())


def digest(what: object) -> str:
    """Sixteen hexadecimal digits that stand for it."""
    text = what if isinstance(what, str) else json.dumps(what, sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(value: object) -> object:
    """Paths and the like by their text; objects without one by their kind, as addresses change."""
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    text = str(value)
    return type(value).__name__ if " at 0x" in text else text
