"""Where records and run folders lie, and what is done.

A record is one json file in the schema of `metrics.json`, with more keys (`one_run.surroundings`); it is
written whole or not at all. Pages are made of records alone.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole_dpr.files import CONFIG_FILE
from suites.plan import Run

BUSY = 75  # exit status of one_run.py: another process is at this run (EX_TEMPFAIL)
ROOT = Path(__file__).resolve().parents[2]
# Of the machine and not of the experiment: not part of a record.
PLACE_OPTIONS = (
    *("data_path", "checkpoint_dir", "text_cache_dir", "show_progress", "state"),
    *("gpu_id", "use_gpu", "torch_threads"),
)

Record = dict[str, Any]
Records = dict[str, list[Record]]  # by variant, seeds ascending


@dataclass(frozen=True)
class Folders:
    """Where records are kept, and run folders."""

    results: Path = ROOT / "results"
    runs: Path = ROOT / "saved" / "suites"

    def record(self, run: Run) -> Path:
        """The record of a run."""
        return self.results / run.dataset / run.variant / f"seed-{run.seed}.json"

    def work(self, run: Run) -> Path:
        """The folder that holds a run's folder, its lock and what it printed."""
        return self.runs / run.dataset / run.variant / f"seed-{run.seed}"

    def forget(self, run: Run) -> None:
        """Delete the record of a run and all that it left."""
        self.record(run).unlink(missing_ok=True)
        shutil.rmtree(self.work(run), ignore_errors=True)

    def load(self, dataset: str) -> Records:
        """All records of a data set."""
        records: Records = {}
        for path in sorted((self.results / dataset).glob("*/seed-*.json")):
            records.setdefault(path.parent.name, []).append(json.loads(path.read_text()))
        for of_variant in records.values():
            of_variant.sort(key=lambda record: record["seed"])
        return records

    def datasets(self) -> list[str]:
        """The data sets that have records."""
        return sorted({path.parents[1].name for path in self.results.glob("*/*/seed-*.json")})


def finished_run(work: Path) -> Path | None:
    """The run folder in `work` that holds all that a run writes, report.md being the last."""
    return next((path.parent for path in sorted(work.glob("*/report.md"))), None)


def cut_off_run(work: Path) -> Path | None:
    """The run folder in `work` that a run can go on in."""
    saved = sorted(work.glob("*/resume.safetensors"))
    return next((path.parent for path in saved if (path.parent / CONFIG_FILE).is_file()), None)


def experiment(options: dict[str, Any]) -> dict[str, Any]:
    """The options that say what was measured, without those of the machine."""
    return {name: value for name, value in options.items() if name not in PLACE_OPTIONS}


def recorded_with(folders: Folders, run: Run) -> dict[str, Any] | None:
    """The options that a recorded run was made with; None if its record does not say."""
    return json.loads(folders.record(run).read_text()).get("options")
