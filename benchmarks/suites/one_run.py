"""One run in a process of its own: `python benchmarks/suites/one_run.py JOB`; `jobs.py` starts it.

JOB is the json of a run and of where its record and its run folder go. Killed at any moment, it leaves
a record or none; started again, it goes on where the run folder allows it.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))  # last: benchmarks/requests.py

import torch

from recbole_dpr import run_recbole_dpr
from recbole_dpr.files import HISTORY_FILE, METRICS_FILE, RANKS_FILE, write_json
from recbole_dpr.naming import resolve_model
from suites.knowledge import NEED_VECTORS, knowledge_vectors
from suites.plan import Run
from suites.readers import readers_of
from suites.records import BUSY, ROOT, Folders, Record, cut_off_run, experiment, finished_run
from suites.top_ranks import top_ranks

LOCK, OPTIONS, COMMIT = "lock", "options.json", "commit"
CODE = ("recbole_dpr", "properties", "benchmarks")
GOALS = {"ml-100k": 0.060}  # validation NDCG@10, for `seconds_to_goal`
TIMING = ("rounds", "share", "clock", "until", "limit")  # options of benchmarks/speed.py
VERSIONS = ("recbole", "torch", "transformers", "numpy")


def ours(run: Run, folders: Folders) -> Record:
    """Train and evaluate by `run_recbole_dpr`; the run folder stays, for runs that start from it."""
    work = folders.work(run)
    run_dir = finished_run(work)
    if run_dir is None:
        cut_off = cut_off_run(work)
        if cut_off:
            print(f"goes on in {cut_off}", flush=True)
            result = run_recbole_dpr(resume=cut_off)
        else:
            clear(work)
            options = {**run_options(run, folders), "show_progress": False}
            if run.start is not None:
                options |= start_options(run, folders)
            result = run_recbole_dpr(run.model, run.dataset, config_dict=options)
        run_dir = Path(result["run_dir"])
    return of_run_folder(run_dir)


def start_options(run: Run, folders: Folders) -> dict[str, Any]:
    """Options that put the backbone of another run in the place of stage 1."""
    lender = Run(run.dataset, str(run.start), run.seed, run.model)
    folder = finished_run(folders.work(lender))
    if folder is None:
        raise FileNotFoundError(f"no finished run of {lender} to start from")
    return {"backbone_checkpoint": str(folder), "stage1_epochs": 0}


def of_run_folder(run_dir: Path) -> Record:
    """The record of a finished run folder."""
    record: Record = json.loads((run_dir / METRICS_FILE).read_text())
    history = json.loads((run_dir / HISTORY_FILE).read_text())
    record["top_ranks"] = top_ranks(json.loads((run_dir / RANKS_FILE).read_text()))
    stages = sorted({row["stage"] for row in history})
    record["validation"] = curve(history)
    record["epochs"] = {f"stage{n}": sum(row["stage"] == n for row in history) for n in stages}
    if all("best" in row for row in history):  # older folders do not say
        record["best_epoch"] = {  # None: what the stage began with was kept
            f"stage{n}": max(
                (row["epoch"] for row in history if row["stage"] == n and row["best"]), default=None
            )
            for n in stages
        }
    record["epoch_seconds"] = {
        f"stage{n}": statistics.median(r["train_seconds"] for r in history if r["stage"] == n)
        for n in stages
    }
    return record


def curve(history: Iterable[Record]) -> list[list[float]]:
    """``[seconds, validation NDCG@10]`` after each epoch of stage 1, validation included.

    Empty where that stage is validated on the prompted tasks (``joint``), whose figure is another.
    """
    points, spent = [], 0.0
    for row in history:
        spent += row["seconds"]
        valid = row["valid"] or {}
        if row["stage"] == 1 and "ndcg@10" in valid and "positive_ndcg@10" not in valid:
            points.append([round(spent, 1), valid["ndcg@10"]])
    return points


def seconds_to(points: Iterable[list[float]], goal: float) -> float | None:
    """Seconds until a curve reaches `goal`, or None."""
    return next((seconds for seconds, score in points if score >= goal), None)


def recbole(run: Run, folders: Folders) -> Record:
    """RecBole's own data set, loader and `Trainer.fit`, until it stops early.

    Batches have RecBole's default of 2048 unless the run says otherwise. Autograd's anomaly detection,
    which importing RecBole turns on and which doubles its time, is off.
    """
    from recbole.utils import init_seed

    import speed
    from recbole_dpr.config import DPRConfig
    from recbole_dpr.training.resume import RESUME_FILE
    from suites.recbole_loop import RecBoleLoop

    options = {"metric_decimal_place": 8, "show_progress": False, **run_options(run, folders)}
    config = DPRConfig(run.model, run.dataset, config_dict=options)
    init_seed(run.seed, config["reproducibility"])
    batch_size = run.options.get("train_batch_size", speed.RECBOLE_BATCH)
    side = speed.RecBoleSide(config, batch_size=batch_size)
    torch.autograd.set_detect_anomaly(False)
    progress = folders.work(run) / "recbole"
    progress.mkdir(exist_ok=True)
    loop = RecBoleLoop(side, progress / RESUME_FILE)
    figures = loop.fit()
    total = round(time.perf_counter() - loop.started, 1)
    shutil.rmtree(progress)  # it would be gone on from if asked for again
    return {
        "model": run.model,
        "dataset": run.dataset,
        "seed": run.seed,
        "tasks": {"standard": {"backbone": {**figures, "users": len(side.test.dataset)}}},
        "seconds": {"stage1": loop.seconds, "total": total},
        "validation": loop.points,
        "epochs": {"stage1": len(loop.points)},
    }


def speed_of_both(run: Run, folders: Folders) -> Record:
    """An epoch of both loops, timed in turn by benchmarks/speed.py."""
    import speed

    clear(folders.work(run))
    options = {"show_progress": False, **run_options(run, folders)}
    timing = {name: options.pop(name) for name in TIMING if name in options}
    started = time.perf_counter()
    record = speed.measure(run.model, run.dataset, options, seed=run.seed, **timing)
    return {
        **record,
        "seed": run.seed,
        "seconds": {"total": round(time.perf_counter() - started, 1)},
    }


KINDS = {"ours": ours, "recbole": recbole, "speed": speed_of_both}


def run_options(run: Run, folders: Folders) -> dict[str, Any]:
    """The options of a run, and where it writes."""
    options = {**run.options, "seed": run.seed, "checkpoint_dir": str(folders.work(run))}
    if resolve_model(run.model).backbone in NEED_VECTORS:
        options["data_path"] = str(folders.runs / "knowledge")
        knowledge_vectors(folders.runs / "knowledge" / run.dataset, run.dataset)
    return options


def clear(work: Path) -> None:
    """Remove what an attempt that cannot go on left in a run's folder."""
    for path in work.iterdir():
        if path.is_dir():
            shutil.rmtree(path)


def surroundings(run: Run) -> Record:
    """What the figures were measured with: options, machine, versions, peak memory in MB."""
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if sys.platform == "darwin":  # bytes there
        kilobytes /= 1024
    memory = {"memory_mb": round(kilobytes / 1024)}
    if torch.cuda.is_available():
        memory["gpu_memory_mb"] = round(torch.cuda.max_memory_allocated() / 2**20)
    return {
        "variant": run.variant,
        "kind": run.kind,
        "options": experiment(run.options),
        "readers": readers_of(run.options) if resolve_model(run.model).promptable else {},
        "machine": machine(),
        "versions": {name: version(name) for name in VERSIONS},
        **memory,
    }


def commit() -> str | None:
    """The commit of this code, with "-dirty" behind it where it was changed; None where there is no git."""
    git = ["git", "-C", str(ROOT)]
    try:
        head = subprocess.run(
            [*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
        )
        # Suites write records and pages themselves.
        changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", *CODE], check=False)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + "-dirty" * bool(changed.returncode)


def machine() -> str:
    """Cores, GPU and Python, in words."""
    gpu = f"{torch.cuda.get_device_name()}, " if torch.cuda.is_available() else ""
    return f"{gpu}{os.cpu_count()} CPU cores, Python {platform.python_version()}"


def main() -> int:
    """Make the record of one run."""
    job = json.loads(sys.argv[1])
    run, folders = Run(**job["run"]), Folders(Path(job["results"]), Path(job["runs"]))
    work = folders.work(run)
    work.mkdir(parents=True, exist_ok=True)
    with open(work / LOCK, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another process is at this run")
            return BUSY
        started_with = work / OPTIONS
        options = json.dumps(experiment(run.options), sort_keys=True)
        began_at = work / COMMIT
        if not started_with.is_file() or started_with.read_text() != options:
            clear(work)  # of an attempt with other options
            started_with.write_text(options)
            began_at.write_text(
                commit() or ""
            )  # a run of hours, or one that goes on, may outlive it
        code = began_at.read_text() if began_at.is_file() else ""
        record = KINDS[run.kind](run, folders) | surroundings(run) | {"commit": code or None}
        goal = GOALS.get(run.dataset)
        if goal and "validation" in record:
            record["seconds_to_goal"] = seconds_to(record["validation"], goal)
        write_json(folders.record(run), record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
