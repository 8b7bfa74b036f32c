"""One of the processes of a run, as torchrun would start it. `test_train_processes` hands it JOB.

JOB: rank, size, port, runs (each settings, a folder and the number of problems), stop: {rank, update, signal} or None.
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
from rl.loop import Loop  # noqa: E402

torch.set_num_threads(1)
stop, update = job["stop"], Loop._update


def updating(run, number):
    if stop and (stop["rank"], stop["update"]) == (job["rank"], number):
        os.kill(os.getpid(), getattr(signal, stop["signal"]))
    update(run, number)


Loop._update = updating
sys.path.insert(0, job["tests"])
try:
    from process_runs import run

    with world_of_torchrun():
        for arguments in job["runs"]:
            run(*arguments)
except KeyboardInterrupt:
    sys.exit(130)
except Exception as error:
    (job["errors"] / f"{job['rank']}.txt").write_text(f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
    sys.exit(getattr(error, "exit_code", 1))
