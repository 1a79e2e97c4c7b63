#!/usr/bin/env bash
# Runs in the new environment. Snakemake puts a copy of this file into <clone>/.snakemake/conda/.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=${ISOHYPSE_ROOT:-$(cd "$here/../.." && pwd)}
[ -f "$root/pyproject.toml" ] || root=$(cd "$here/.." && pwd)
pip install -c "$root/constraints.txt" -e "$root"
