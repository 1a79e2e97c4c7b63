# Stage `scaling`: what a training step and a forecast cost against the length of the sequence.
#
# in    nothing: random fields on the study's grid
# out   T<length>.json   one model at one length, measured in a process of its own
#       costs.csv        all of them, tidy


rule scaling:
    input:
        "<results>/scaling/costs.csv",


rule measure:
    output:
        "<results>/scaling/{model}/T{length}.json",
    log:
        "<logs>/scaling/measure/{model}/T{length}.log",
    conda:
        ENVIRONMENT
    threads: 4
    resources:
        gpu=GPUS,
        mem_mb=8000,
        runtime=60,
    params:
        settings=lambda wildcards: book.measure(wildcards.model, wildcards.length),
    shell:
        # Half of the cores that it holds: what else the machine does finds room in the other half, where threads that
        # wait for each other would make a step many times as long.
        "isohypse scaling measure --settings {params.settings:q} --threads $((({threads} + 1) / 2))"
        " --output {output:q} 2>&1 | tee -i {log:q}"


rule costs:
    input:
        layout.measurements,
    output:
        "<results>/scaling/costs.csv",
    log:
        "<logs>/scaling/costs.log",
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        settings=book.costs(),
    shell:
        "isohypse scaling costs --settings {params.settings:q} --output {output:q} {input:q} 2>&1 | tee -i {log:q}"
