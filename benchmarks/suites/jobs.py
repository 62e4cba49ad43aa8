"""Run what is planned, one process per run, and say how long it will take."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from suites.plan import Run
from suites.records import BUSY, Folders, Records, finished_run

ONE_RUN = Path(__file__).with_name("one_run.py")
OUTPUT = "output.txt"  # what a run prints

Say = Callable[[str], None]


def is_done(run: Run, folders: Folders, starts: Iterable[Run | None] = ()) -> bool:
    """Whether a run is recorded; one that others start from must have its run folder, too."""
    if not folders.record(run).is_file():
        return False
    return run not in starts or finished_run(folders.work(run)) is not None


def estimate(run: Run, records: Records) -> float | None:
    """Seconds that a run will take, by those of the likest that are recorded.

    Likest: other seeds of the variant, then other variants of the model, then all of its kind.
    """
    rows = [(name, record) for name, of_name in records.items() for record in of_name]
    same_kind = [row for row in rows if row[1].get("kind", "ours") == run.kind]
    for chosen in (
        [r for name, r in same_kind if name == run.variant],
        [r for name, r in same_kind if r["model"] == run.model],
        [r for name, r in same_kind],
    ):
        seconds = [r["seconds"]["total"] for r in chosen if r.get("seconds")]
        if seconds:
            return float(statistics.median(seconds))
    return None


def time_left(
    waiting: Sequence[Run], running: dict[Run, float], folders: Folders, jobs: int
) -> str:
    """In words: what the waiting runs will take, and the running ones after so many seconds each."""
    records = {
        dataset: folders.load(dataset) for dataset in {run.dataset for run in (*waiting, *running)}
    }
    left, unknown = 0.0, 0
    for run in (*waiting, *running):
        seconds = estimate(run, records[run.dataset])
        unknown += seconds is None
        left += max((seconds or 0) - running.get(run, 0), 0)
    parts = [f"about {duration(left / jobs)}"] if left or not unknown else []
    if unknown:
        parts.append(f"{unknown} run{'s' * (unknown > 1)} of unknown length")
    return " and ".join(parts)


def duration(seconds: float) -> str:
    """`75` as "1 min 15 s"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def run_all(
    runs: Sequence[Run],
    starts: dict[Run, Run | None],
    folders: Folders,
    jobs: int,
    say: Say,
    wait: float = 0.2,
) -> list[Run]:
    """Run what is planned, `jobs` at a time; those that fail do not stop the others.

    Parameters
    ----------
    runs : sequence of Run
    starts : dict
        The run that each starts from, or None; it must be done, or come before.
    jobs : int
    say : callable
        Takes one line of progress.
    wait : float
        Seconds between two looks at the processes.

    Returns
    -------
    list of Run
        Those that have no record now.

    Notes
    -----
    When this process is interrupted, its children are stopped; when it is killed, they go on, write
    their records, and hold a lock by which the next call leaves their runs alone.
    """
    waiting, failed = list(runs), []
    processes: dict[Run, tuple[subprocess.Popen[bytes], float]] = {}
    try:
        while waiting or processes:
            for run in [
                run for run, (process, _) in processes.items() if process.poll() is not None
            ]:
                process, started = processes.pop(run)
                line = _outcome(run, process.returncode, time.monotonic() - started, folders)
                if process.returncode:
                    failed.append(run)
                place = f"[{len(runs) - len(waiting) - len(processes)}/{len(runs)}]"
                ages = {r: time.monotonic() - begun for r, (_, begun) in processes.items()}
                say(f"{place} {line}; left: {time_left(waiting, ages, folders, jobs)}")
            for run in waiting[:]:
                start = starts.get(run)
                if start in failed:
                    waiting.remove(run)
                    failed.append(run)
                    say(f"{run}: not run, because {start} failed")
                elif len(processes) < jobs and start not in waiting and start not in processes:
                    waiting.remove(run)
                    processes[run] = _start(run, folders), time.monotonic()
                    say(f"{run} begins; it prints to {folders.work(run) / OUTPUT}")
            time.sleep(wait if processes else 0)
    finally:
        for process, _ in processes.values():
            process.terminate()
        for process, _ in processes.values():
            process.wait()
    return failed


def _start(run: Run, folders: Folders) -> subprocess.Popen[bytes]:
    work = folders.work(run)
    work.mkdir(parents=True, exist_ok=True)
    job = {"run": vars(run), "results": str(folders.results), "runs": str(folders.runs)}
    with open(work / OUTPUT, "ab") as output:
        return subprocess.Popen(
            [sys.executable, str(ONE_RUN), json.dumps(job)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def _outcome(run: Run, status: int, seconds: float, folders: Folders) -> str:
    if not status:
        return f"{run} took {duration(seconds)}"
    if status == BUSY:
        return f"{run} is being run by another process"
    lines = (folders.work(run) / OUTPUT).read_text(errors="replace").splitlines()
    why = next((line for line in reversed(lines) if line.strip()), "")
    return f"{run} FAILED after {duration(seconds)} (status {status}): {why[:300]}"
