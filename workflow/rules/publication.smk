# Stage `publication`: the paper's figures and tables, from tidy tables only.
#
# in    metrics.csv, examples.nc, scores.csv, costs.csv, statistics.json, run.json
# out   figure<N>.png (or pdf, svg), table<N>.html and table<N>.csv, numbered as in the paper


rule figures:
    input:
        layout.publication,


rule figure2:
    input:
        layout.metrics,
    output:
        report(
            "<results>/publication/{task}/figure2.<format>",
            caption="../report/figure2.rst",
            category="Training",
            subcategory="{task}",
            labels={"figure": "2", "shows": "loss against step"},
        ),
    log:
        "<logs>/publication/{task}/figure2.log",
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=2000,
        runtime=15,
    params:
        settings=book.figure(),
    shell:
        "isohypse publication figure2 --settings {params.settings:q} --output {output:q} {input:q}"
        " 2>&1 | tee -i {log:q}"


rule figure3:
    input:
        layout.examples,
    output:
        report(
            "<results>/publication/{task}/figure3.<format>",
            caption="../report/figure3.rst",
            category="Forecast maps",
            subcategory="{task}",
            labels={"figure": "3", "shows": "a training sample"},
        ),
    log:
        "<logs>/publication/{task}/figure3.log",
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=2000,
        runtime=15,
    params:
        settings=book.figure(),
    shell:
        "isohypse publication figure3 --settings {params.settings:q} --output {output:q} {input:q}"
        " 2>&1 | tee -i {log:q}"


rule figure4:
    input:
        layout.examples,
    output:
        report(
            "<results>/publication/{task}/figure4.<format>",
            caption="../report/figure4.rst",
            category="Forecast maps",
            subcategory="{task}",
            labels={"figure": "4", "shows": "an evaluation sample"},
        ),
    log:
        "<logs>/publication/{task}/figure4.log",
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=2000,
        runtime=15,
    params:
        settings=book.figure(),
    shell:
        "isohypse publication figure4 --settings {params.settings:q} --output {output:q} {input:q}"
        " 2>&1 | tee -i {log:q}"


rule figure5:
    input:
        "<results>/evaluation/{task}/scores.csv",
    output:
        report(
            "<results>/publication/{task}/figure5.<format>",
            caption="../report/figure5.rst",
            category="Forecast skill",
            subcategory="{task}",
            labels={"figure": "5", "shows": "error against lead time"},
        ),
    log:
        "<logs>/publication/{task}/figure5.log",
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=2000,
        runtime=15,
    params:
        settings=book.figure(),
    shell:
        "isohypse publication figure5 --settings {params.settings:q} --output {output:q} {input:q}"
        " 2>&1 | tee -i {log:q}"


rule figure6:
    input:
        "<results>/scaling/costs.csv",
    output:
        report(
            "<results>/publication/figure6.<format>",
            caption="../report/figure6.rst",
            category="Scaling",
            labels={"figure": "6", "shows": "cost against sequence length"},
        ),
    log:
        "<logs>/publication/figure6.log",
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=2000,
        runtime=15,
    params:
        settings=book.figure(),
    shell:
        "isohypse publication figure6 --settings {params.settings:q} --output {output:q} {input:q}"
        " 2>&1 | tee -i {log:q}"


rule table1:
    input:
        "<results>/data/{fields}/statistics.json",
    output:
        html=report(
            "<results>/publication/{fields}/table1.html",
            caption="../report/table1.rst",
            category="Data",
            subcategory="{fields}",
            labels={"table": "1", "shows": "statistics of the heights"},
        ),
        csv="<results>/publication/{fields}/table1.csv",
    log:
        "<logs>/publication/{fields}/table1.log",
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=1000,
        runtime=15,
    params:
        settings=book.table(),
    shell:
        "isohypse publication table1 --settings {params.settings:q} --output {output.html:q} {input:q}"
        " 2>&1 | tee -i {log:q}"


rule table2:
    input:
        layout.all_run_records,
    output:
        html=report(
            "<results>/publication/table2.html",
            caption="../report/table2.rst",
            category="Training",
            labels={"table": "2", "shows": "the models"},
        ),
        csv="<results>/publication/table2.csv",
    log:
        "<logs>/publication/table2.log",
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=1000,
        runtime=15,
    params:
        settings=book.table(),
    shell:
        "isohypse publication table2 --settings {params.settings:q} --output {output.html:q} {input:q}"
        " 2>&1 | tee -i {log:q}"


rule table3:
    input:
        layout.all_run_records,
    output:
        html=report(
            "<results>/publication/table3.html",
            caption="../report/table3.rst",
            category="Training",
            labels={"table": "3", "shows": "the training set-up"},
        ),
        csv="<results>/publication/table3.csv",
    log:
        "<logs>/publication/table3.log",
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=1000,
        runtime=15,
    params:
        settings=book.table(),
    shell:
        "isohypse publication table3 --settings {params.settings:q} --output {output.html:q} {input:q}"
        " 2>&1 | tee -i {log:q}"


rule table4:
    input:
        scores="<results>/evaluation/{task}/scores.csv",
        records=layout.run_records,
        metrics=layout.metrics,
    output:
        html=report(
            "<results>/publication/{task}/table4.html",
            caption="../report/table4.rst",
            category="Forecast skill",
            subcategory="{task}",
            labels={"table": "4", "shows": "errors, correlation, cost"},
        ),
        csv="<results>/publication/{task}/table4.csv",
    log:
        "<logs>/publication/{task}/table4.log",
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=1000,
        runtime=15,
    params:
        settings=book.table(),
    shell:
        "isohypse publication table4 --settings {params.settings:q} --output {output.html:q}"
        " {input.scores:q} {input.records:q} 2>&1 | tee -i {log:q}"
