"""One of the processes of a run, as torchrun would start it. `test_train_processes` hands it JOB.

JOB: rank, size, port, runs (each the arguments of `train`), stop: {rank, update, signal} or None.
"""

import os
import signal
import sys
import traceback

job = globals()["JOB"]
os.environ.update(
    RANK=str(job["rank"]),
    LOCAL_RANK=str(job["rank"]),
    WORLD_SIZE=str(job["size"]),
    MASTER_ADDR="127.0.0.1",
    MASTER_PORT=str(job["port"]),
)

import torch  # noqa: E402

from prm_kit.distributed import world_of_torchrun  # noqa: E402
from prm_kit.train import _Run, train  # noqa: E402

torch.set_num_threads(1)
stop, update = job["stop"], _Run._update


def updating(run, interruption):
    if stop and (stop["rank"], stop["update"]) == (job["rank"], run.standing.update):
        os.kill(os.getpid(), getattr(signal, stop["signal"]))
    update(run, interruption)


_Run._update = updating
try:
    with world_of_torchrun():
        for arguments in job["runs"]:
            train(*arguments)
except KeyboardInterrupt:
    sys.exit(130)
except Exception as error:
    (job["errors"] / f"{job['rank']}.txt").write_text(f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
    sys.exit(getattr(error, "exit_code", 1))
