# Sourced in each job before Snakemake starts: what the Slurm executor lacks so that a training survives its walltime.
# Modules and environment of your site may be added here.

# When the job is killed: not every version of Slurm says so in the job's environment.
ISOHYPSE_DEADLINE=$(date -d "$(squeue -h -j "$SLURM_JOB_ID" -o %e)" +%s) && export ISOHYPSE_DEADLINE

# A training that stopped itself leaves this file and an error. Slurm starts such a job again, under its old number,
# so that Snakemake sees no failure. One that was cancelled is not running any more and stays so.
export ISOHYPSE_CONTINUE="$PWD/.snakemake/slurm_continue.$SLURM_JOB_ID"
rm -f "$ISOHYPSE_CONTINUE"
continue_if_asked() {
    [ -e "$ISOHYPSE_CONTINUE" ] || return
    rm -f "$ISOHYPSE_CONTINUE"
    [ "$(squeue -h -j "$SLURM_JOB_ID" -o %T)" = RUNNING ] || return
    [ "${SLURM_RESTART_COUNT:-0}" -lt 50 ] && scontrol requeue "$SLURM_JOB_ID"
}
trap continue_if_asked EXIT
