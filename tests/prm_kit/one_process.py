"""One of the processes of a run, as torchrun would start it. `test_train_processes` hands it JOB.

JOB: rank, size, port, runs (each the arguments of `train`), stop: {rank, update, signal} or None, short: {rank, tokens}
(what memory that process has for one micro-batch; now and then, every fourth time, for no two sequences) or None.
"""

import itertools
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
from prm_kit.train import train  # noqa: E402
from prm_kit.train_forward import Forward  # noqa: E402
from prm_kit.train_loop import TrainLoop  # noqa: E402

torch.set_num_threads(1)
stop, short, update, logits = job["stop"], job["short"], TrainLoop._update, Forward.logits


def updating(run, interruption):
    if stop and (stop["rank"], stop["update"]) == (job["rank"], run.standing.update):
        os.kill(os.getpid(), getattr(signal, stop["signal"]))
    update(run, interruption)


calls = itertools.count(1)


def computing(forward, batch):
    found = logits(forward, batch)
    scarce = short and short["rank"] == job["rank"]
    if scarce and (forward.computed_tokens(batch) > short["tokens"] or (next(calls) % 4 == 0 and len(batch) > 1)):
        raise torch.OutOfMemoryError("CUDA out of memory.")
    return found


TrainLoop._update, Forward.logits = updating, computing
try:
    with world_of_torchrun():
        for arguments in job["runs"]:
            train(*arguments)
except KeyboardInterrupt:
    sys.exit(130)
except Exception as error:
    (job["errors"] / f"{job['rank']}.txt").write_text(f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
    sys.exit(getattr(error, "exit_code", 1))
