"""Data plane: step-labelled JSON lines in, checked records and a Parquet table of step lists out; rows per CPU-second.

    python benchmarks/data_plane.py            # 10^4 and 10^5 rows
    python benchmarks/data_plane.py --full     # and 10^6 rows: six million steps, about 570 MB of text

Every arm is a process of its own on one thread, timed after a warm-up on 1,000 rows, so that imports do not count.
Every row is distinct. The arms do not do the same:

- prm-kit: `import` (strict checks, rejects, content addresses of every solution and annotation, exact deduplication,
  source hash, snapshot with manifest) and then `export` of the snapshot to a Parquet table of steps and labels.
- polars: scan, write the wide table, explode steps and labels to a long table, streaming. No checks, no ids.
- datasets: Hugging Face `load_dataset`, a batched map that joins the steps, write the wide table, explode to the long
  one. No checks, no ids.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from itertools import chain
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))


def make(path, n):
    """Write `n` distinct solutions of four to eight steps, six on average."""
    draw = random.Random(n)
    with path.open("w") as file:
        for i in range(n):
            total, labels, steps = draw.randrange(10**6), [], []
            problem = f"A shop has {total} items and gets {draw.randrange(10**5)} more. How many after {i} days?"
            for _ in range(draw.randrange(4, 9)):
                more = draw.randrange(10**4)
                steps.append(f"Add {more} more: {total} + {more} = {total + more}.")
                labels.append(draw.choices((-1, 0, 1), (5, 10, 85))[0])
                total += more
            row = {
                "id": f"synthetic-{i}",
                "source": "synthetic",
                "license": "CC0-1.0",
                "problem": problem,
                "steps": steps,
                "labels": labels,
                "first_error": labels.index(-1) if -1 in labels else None,
                "final_answer": str(total),
                "reference_answer": str(total),
                "is_correct": -1 not in labels,
                "meta": {"split": "train", "human": False},
            }
            file.write(json.dumps(row) + "\n")


def prm_kit(rows, out):
    from prm_kit.importing import import_data
    from prm_kit.view import View
    from prm_kit.view_files import write_step_table

    def stage_import():
        import_data("steps", [rows], out / "snapshot")

    def stage_export():
        write_step_table(View([out / "snapshot"]), out / "steps.parquet")

    return {"import": stage_import, "export": stage_export}


def polars(rows, out):
    import polars as pl

    def wide():
        joined = pl.col("steps").list.join("\n\n").alias("completion")
        pl.scan_ndjson(rows).with_columns(joined).sink_parquet(out / "wide.parquet")

    def long():
        columns = pl.col("id", "steps", "labels")
        pl.scan_ndjson(rows).select(columns).explode("steps", "labels").sink_parquet(out / "long.parquet")

    return {"wide": wide, "long": long}


def datasets(rows, out):
    os.environ["HF_HOME"] = str(out / "hf")
    os.environ["HF_DATASETS_OFFLINE"] = "1"
    import datasets as hf

    hf.disable_progress_bars()

    def load():
        return hf.load_dataset("json", data_files=str(rows), split="train", cache_dir=str(out / f"hf-{rows.stem}"))

    def join(batch):
        return {"completion": ["\n\n".join(steps) for steps in batch["steps"]]}

    def wide():
        load().map(join, batched=True).to_parquet(str(out / "wide.parquet"))

    def explode(batch):
        ids = [name for name, steps in zip(batch["id"], batch["steps"], strict=True) for _ in steps]
        return {
            "id": ids,
            "step": [*chain.from_iterable(batch["steps"])],
            "label": [*chain.from_iterable(batch["labels"])],
        }

    def long():
        loaded = load()
        loaded.map(explode, batched=True, remove_columns=loaded.column_names).to_parquet(str(out / "long.parquet"))

    return {"wide": wide, "long": long}


ARMS = {"prm-kit": prm_kit, "polars": polars, "datasets": datasets}


def run_arm(name, rows, n):
    """Time one arm in this process; print one JSON line."""
    import pyarrow as pa

    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    with tempfile.TemporaryDirectory(dir=rows.parent) as folder:
        small = Path(folder) / "small"
        small.mkdir()
        with rows.open() as file:
            head = [line for _, line in zip(range(1000), file, strict=False)]
        (small / "head.jsonl").write_text("".join(head))
        for stage in ARMS[name](small / "head.jsonl", small).values():
            stage()
        stages = {}
        for stage, work in ARMS[name](rows, Path(folder)).items():
            start = time.process_time()
            work()
            stages[stage] = time.process_time() - start
    seconds = sum(stages.values())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"arm": name, "rows": n, "seconds": seconds, "peak_mb": peak, "stages": stages}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="also 10^6 rows")
    parser.add_argument("--rows", type=int, nargs="+", help="other sizes")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--rounds", type=int, default=1, help="interleaved rounds; the median is shown")
    parser.add_argument("--arm", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.arm:
        run_arm(asked.arm[0], Path(asked.arm[1]), int(asked.arm[2]))
        return
    threads = ("OMP_NUM_THREADS", "POLARS_MAX_THREADS", "RAYON_NUM_THREADS")
    environment = os.environ | dict.fromkeys(threads, "1") | {"TOKENIZERS_PARALLELISM": "false"}
    print(f"{'rows':>9} {'arm':<9} {'rows/CPU-s':>11} {'CPU-s':>7} {'peak MB':>8}  stages (CPU-s)")
    for n in asked.rows or [10**4, 10**5, *([10**6] if asked.full else [])]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "rows.jsonl"
            make(path, n)
            print(f"{n:>9} {path.stat().st_size / 1e6:.0f} MB of text")
            runs = {name: [] for name in asked.arms}
            for _ in range(asked.rounds):
                for name in asked.arms:
                    command = [sys.executable, __file__, "--arm", name, str(path), str(n)]
                    done = subprocess.run(command, env=environment, capture_output=True, text=True)
                    if done.returncode:
                        sys.exit(f"{name} failed:\n{done.stderr}")
                    runs[name].append(json.loads(done.stdout.splitlines()[-1]))
            for name, measured in runs.items():
                middle = sorted(measured, key=lambda run: run["seconds"])[len(measured) // 2]
                stages = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in middle["stages"].items())
                speed = n / middle["seconds"]
                peak = max(run["peak_mb"] for run in measured)
                print(f"{n:>9} {name:<9} {speed:>11,.0f} {middle['seconds']:>7.2f} {peak:>8,.0f}  {stages}", flush=True)


if __name__ == "__main__":
    main()
