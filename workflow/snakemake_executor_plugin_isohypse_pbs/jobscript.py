# SPDX-License-Identifier: Apache-2.0
"""What runs on the node before Snakemake. PBS starts the script in $HOME with hardly any environment.

Two variables are there for the rule's program, which cannot learn its walltime otherwise:
    SNAKEMAKE_PBS_DEADLINE   when the walltime ends, in seconds since 1970
    SNAKEMAKE_PBS_CONTINUE   a path: create this file, then exit with an error, to be started again
"""

import shlex
from pathlib import Path

DEADLINE = "SNAKEMAKE_PBS_DEADLINE"
CONTINUE = "SNAKEMAKE_PBS_CONTINUE"


def template(prologue: str | None) -> str:
    """Snakemake's job script with the site's lines in it. The deadline counts from its first line."""
    lines = (prologue or "").strip().replace("{", "{{").replace("}", "}}")
    head = "#!/bin/bash\n# properties = {properties}\nSNAKEMAKE_PBS_START=$(date +%s)\n"
    return f"{head}{lines}\n{{exec_job}}\n"


def prefix(minutes: int, marker: Path, folder: str | None, programs: Path) -> str:
    """Shell commands before Snakemake's own: deadline, marker, the client's programs and working directory.

    SNAKEMAKE_PROFILE goes, in case a login file sets it: the node's Snakemake has all that it needs.
    """
    start = "${SNAKEMAKE_PBS_START:-$(date +%s)}"
    commands = [
        f"export {DEADLINE}=$(({start} + {minutes * 60}))",
        f"export {CONTINUE}={shlex.quote(str(marker))}",
        f'export PATH={shlex.quote(str(programs))}:"$PATH"',
        "unset SNAKEMAKE_PROFILE",
    ]
    commands += [f"cd {shlex.quote(folder)}"] if folder else []
    return " && ".join(commands)
