# Stage `evaluation`: every baseline and every trained model is scored by the same code on the same windows.
#
# in    archive/YYYY.zarr, statistics.json, climatology.nc, weights.safetensors
# out   scores.nc     errors and anomaly correlation of each forecast: definition, sample, lead_time, level
#       examples.nc   whole forecasts of a training and an evaluation window, metres
#       scores.csv    tidy: method, lead time, metric, value, confidence interval


rule evaluation:
    input:
        layout.score_tables,


rule baseline:
    input:
        climatology=lambda wildcards: layout.climatology_of(wildcards.task),
        archive=layout.archive,
    output:
        scores="<results>/evaluation/{task}/{baseline}/scores.nc",
        examples="<results>/evaluation/{task}/{baseline}/examples.nc",
    log:
        "<logs>/evaluation/baseline/{task}/{baseline}.log",
    conda:
        ENVIRONMENT
    threads: 4
    resources:
        mem_mb=8000,
        runtime=120,
    params:
        settings=lambda wildcards: book.baseline(wildcards.task, wildcards.baseline),
    shell:
        "isohypse evaluation baseline --settings {params.settings:q} --threads {threads}"
        " --climatology {input.climatology:q} --output $(dirname {output.scores:q})"
        " {input.archive:q} 2>&1 | tee -i {log:q}"


rule model:
    input:
        climatology=lambda wildcards: layout.climatology_of(wildcards.run),
        statistics=lambda wildcards: layout.statistics_of(wildcards.run),
        weights="<results>/training/{run}/weights.safetensors",
        record="<results>/training/{run}/run.json",
        archive=layout.archive,
    output:
        scores="<results>/evaluation/{run}/scores.nc",
        examples="<results>/evaluation/{run}/examples.nc",
    log:
        "<logs>/evaluation/model/{run}.log",
    conda:
        ENVIRONMENT
    threads: 4
    resources:
        gpu=GPUS,
        mem_mb=8000,
        runtime=60,
    params:
        settings=lambda wildcards: book.model(wildcards.run),
    shell:
        "isohypse evaluation model --settings {params.settings:q} --threads {threads}"
        " --climatology {input.climatology:q} --statistics {input.statistics:q}"
        " --run $(dirname {input.weights:q}) --output $(dirname {output.scores:q})"
        " {input.archive:q} 2>&1 | tee -i {log:q}"


rule scores:
    input:
        layout.scores,
    output:
        "<results>/evaluation/{task}/scores.csv",
    log:
        "<logs>/evaluation/scores/{task}.log",
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=2000,
        runtime=20,
    params:
        settings=lambda wildcards: book.scores(wildcards.task),
    shell:
        "isohypse evaluation scores --settings {params.settings:q} --output {output:q}"
        " {input:q} 2>&1 | tee -i {log:q}"
