# SPDX-License-Identifier: Apache-2.0
"""One process of several: `python rank.py jobs.json` trains each job with all ranks, one after the other.

They meet at the job's `port`, where whoever has started them listens, as under torchrun. A job that fails
with a foreseen error leaves its message in a file `error` beside the destination.
"""

import json
import os
import sys
from pathlib import Path

from isohypse.config.sections import Execution
from isohypse.config.settings import TrainSettings
from isohypse.errors import IsohypseError
from isohypse.training.ranks import ranks_of
from isohypse.training.trainer import train


def run(job: dict) -> None:
    os.environ |= {"MASTER_PORT": str(job["port"]), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    settings, execution = TrainSettings.from_json(job["settings"]), Execution(**job["execution"])
    destination = Path(job["destination"])
    try:
        train(settings, job["stores"], job["statistics"], destination, destination / "../work", execution, 1)
    except IsohypseError as error:
        if ranks_of().main:
            destination.with_name("error").write_text(str(error))


if __name__ == "__main__":
    for entry in json.loads(Path(sys.argv[1]).read_text()):
        run(entry)
