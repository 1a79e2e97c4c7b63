# SPDX-License-Identifier: Apache-2.0
"""Two processes that a real mpiexec (Open MPI or MPICH) starts train what one does."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from isohypse.training.log import read_metrics

from .conftest import TIMED
from .test_parallel import BASE, meeting

HERE = {  # more processes than processors, as root in a container
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "OMPI_MCA_hwloc_base_binding_policy": "none",
}


@pytest.mark.skipif(shutil.which("mpiexec") is None, reason="no mpiexec here")
@pytest.mark.parametrize("execution", [{}, {"parallel": "fsdp"}], ids=["replicate", "fsdp"])
def test_processes_of_mpiexec_train_what_one_does(folders, finished, study, tmp_path, execution):
    settings, store = finished.settings, meeting()
    job = {
        "settings": settings.to_json(),
        "execution": BASE | execution,
        "stores": [str(store) for store in study.stores],
        "statistics": str(study.statistics(settings.run.task)),
        "destination": str(tmp_path / "run"),
        "port": store.port,
    }
    (tmp_path / "jobs.json").write_text(json.dumps([job]))
    told = {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = ["mpiexec", "-n", "2", sys.executable, str(Path(__file__).with_name("rank.py"))]
    command.append(str(tmp_path / "jobs.json"))
    done = subprocess.run(command, env=os.environ | HERE | told, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = {row[:3]: row[3] for row in read_metrics(tmp_path / "run" / "metrics.csv") if row[2] != TIMED}
    assert rows == pytest.approx({row[:3]: row[3] for row in finished.rows()}, rel=1e-5, abs=1e-6)
