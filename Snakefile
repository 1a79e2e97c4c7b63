# Table of contents of the study. What it depends on is config.yaml, a preset and what comes from outside
# (--configfile, --config); where it runs is a profile: `snakemake --profile demo`.
import sys

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version

from isohypse.config import BASELINES, FIELDS_PATTERN, RUN_PATTERN, TASK_PATTERN
from isohypse.config import Layout, StageBook, export_execution, load_experiment
from isohypse.errors import ConfigurationError

min_version("9.20")

try:
    experiment = load_experiment(config, root=workflow.basedir)
    layout, book = Layout(experiment), StageBook(experiment)
except ConfigurationError as error:
    raise WorkflowError(str(error)) from None

export_execution(experiment)
GPUS = 0 if experiment.execution.device == "cpu" else 1
ENVIRONMENT = f"../../envs/{'cuda' if GPUS else 'cpu'}.yaml"

if workflow.is_main_process:
    print(layout.summary(), file=sys.stderr)


pathvars:
    results=layout.results,
    logs=layout.logs,
    downloads=layout.downloads,
    format=experiment.publication.format,


report: "workflow/report/workflow.rst"


wildcard_constraints:
    year=r"\d{4}",
    fields=FIELDS_PATTERN,
    task=TASK_PATTERN,
    run=RUN_PATTERN,
    baseline="|".join(BASELINES),
    model=r"[a-z0-9_]+",
    length=r"\d+",


localrules:
    all,
    data,
    training,
    evaluation,
    scaling,
    figures,
    download,


rule all:
    default_target: True
    input:
        layout.publication,


include: "workflow/rules/data.smk"
include: "workflow/rules/training.smk"
include: "workflow/rules/evaluation.smk"
include: "workflow/rules/scaling.smk"
include: "workflow/rules/publication.smk"
