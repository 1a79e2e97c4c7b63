# Stage `training`: one run is one model in one flavour on one task with one seed.
#
# in    archive/YYYY.zarr, statistics.json, the weights of runs.initial_weights
# out   weights.safetensors   parameters under flash-linear-attention's names
#       metrics.csv           step, split, metric, value
#       run.json              settings, provenance, kernels used, speed, memory
# With execution.nodes * gpus_per_node > 1 the command starts itself once for each GPU. threads and gpu are those of
# one node. Checkpoints live in work/, which is no output: Snakemake would delete it with a failed job, and the next
# start of the same command continues from there.


rule training:
    input:
        expand("{run}/weights.safetensors", run=layout.trainings()),


rule train:
    input:
        statistics=lambda wildcards: layout.statistics_of(wildcards.run),
        archive=layout.archive,
        initial=layout.initial_weights,
    output:
        weights="<results>/training/{run}/weights.safetensors",
        metrics="<results>/training/{run}/metrics.csv",
        record="<results>/training/{run}/run.json",
    log:
        "<logs>/training/train/{run}.log",
    conda:
        ENVIRONMENT
    threads: 8
    resources:
        nodes=experiment.execution.nodes,
        gpu=GPUS * experiment.execution.gpus_per_node,
        mem_mb=16000,
        runtime=180,
    params:
        settings=lambda wildcards: book.train(wildcards.run),
        work=f"{layout.results}/training/work/{{run}}",
    shell:
        "isohypse training train --settings {params.settings:q} --threads {threads}"
        " --statistics {input.statistics:q} --initial-weights {input.initial:q} --work {params.work:q} --output $(dirname {output.weights:q})"
        " {input.archive:q} 2>&1 | tee -i -a {log:q}"
