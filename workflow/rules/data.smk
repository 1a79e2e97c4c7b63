# Stage `data`: yearly source files -> Zarr archive -> statistics and climatology.
#
# in    hgt.YYYY.nc (NOAA's format: 6-hourly, metres) or the user's own files
# out   archive/YYYY.zarr   geopotential_height(time, level, latitude, longitude), float32 metres
#       statistics.json     mean, std, min, max of each level over the protocol's period, metres
#       climatology.nc      mean over training frames by day of the year and hour, metres


workflow.global_resources.setdefault("downloads", 4)  # polite without a profile, too


rule data:
    input:
        layout.statistics,
        layout.climatologies,


rule download:
    output:
        "<downloads>/hgt.{year}.nc",
    log:
        "<logs>/data/download/{year}.log",
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=1000,
        runtime=120,
        downloads=1,
    params:
        settings=book.download(),
    shell:
        "isohypse data download --settings {params.settings:q} --year {wildcards.year}"
        " --output {output:q} 2>&1 | tee -i {log:q}"


rule simulate:
    input:
        layout.restart_before,
    output:
        heights="<results>/data/source/hgt.{year}.nc",
        restart="<results>/data/source/restart.{year}.safetensors",
    log:
        "<logs>/data/simulate/{year}.log",
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=1000,
        runtime=30,
    params:
        settings=book.simulate(),
    shell:
        "isohypse data simulate --settings {params.settings:q} --year {wildcards.year} --restart {input:q}"
        " --output {output.heights:q} --next-restart {output.restart:q} 2>&1 | tee -i {log:q}"


rule archive:
    input:
        layout.year_inputs,
    output:
        "<results>/data/archive/{year}.zarr/zarr.json",
    log:
        "<logs>/data/archive/{year}.log",
    conda:
        ENVIRONMENT
    threads: 2
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        settings=book.archive(),
    shell:
        "isohypse data archive --settings {params.settings:q} --threads {threads} --year {wildcards.year}"
        " --output $(dirname {output:q}) {input:q} 2>&1 | tee -i {log:q}"


rule statistics:
    input:
        layout.archive,
    output:
        "<results>/data/{fields}/statistics.json",
    log:
        "<logs>/data/statistics/{fields}.log",
    conda:
        ENVIRONMENT
    threads: 2
    resources:
        mem_mb=4000,
        runtime=120,
    params:
        settings=lambda wildcards: book.statistics(wildcards.fields),
    shell:
        "isohypse data statistics --settings {params.settings:q} --threads {threads}"
        " --output {output:q} {input:q} 2>&1 | tee -i {log:q}"


rule climatology:
    input:
        layout.archive,
    output:
        "<results>/data/{fields}/climatology.nc",
    log:
        "<logs>/data/climatology/{fields}.log",
    conda:
        ENVIRONMENT
    threads: 2
    resources:
        mem_mb=4000,
        runtime=120,
    params:
        settings=lambda wildcards: book.climatology(wildcards.fields),
    shell:
        "isohypse data climatology --settings {params.settings:q} --threads {threads}"
        " --output {output:q} {input:q} 2>&1 | tee -i {log:q}"
