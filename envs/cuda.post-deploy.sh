#!/usr/bin/env bash
# Runs in the new environment. Snakemake puts a copy of this file into <clone>/.snakemake/conda/.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=${ISOHYPSE_ROOT:-$(cd "$here/../.." && pwd)}
[ -f "$root/pyproject.toml" ] || root=$(cd "$here/.." && pwd)
pip install -e "$root[cuda]"

# mamba-ssm comes as source only. Its Triton kernels are all that is used, so no CUDA compiler is needed; its
# declared dependencies are heavy and not used either.
pip install setuptools wheel packaging ninja einops
MAMBA_SKIP_CUDA_BUILD=TRUE MAMBA_FORCE_BUILD=TRUE pip install --no-deps --no-build-isolation mamba-ssm==2.3.2.post1
