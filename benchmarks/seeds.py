"""Run models over several seeds, record the figures, and write docs/results.md from the records.

    python benchmarks/seeds.py                                   # what docs/results.md shows
    python benchmarks/seeds.py --models DPR-SASRec --seeds 2020
    python benchmarks/seeds.py --report                          # only rebuild the page

A record is the run's `metrics.json`, kept as results/<dataset>/<model>/seed-<n>.json together with
the seconds to validation NDCG@10 0.060 and the versions; what is recorded is not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # requests.py must not hide the library of that name
    sys.path.append(sys.path.pop(0))

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PAGE = ROOT / "results", ROOT / "docs" / "results.md"
GOAL = 0.060
PARTS = {
    "tasks": "unseen phrases",
    "tasks_seen_phrases": "seen phrases",
    "tasks_hard_phrases": "hard phrases",
}
TASKS = ("positive", "negative", "compound")
VERSIONS = ("recbole", "torch", "transformers", "numpy")

Record = dict[str, Any]


def run(model: str, dataset: str, seed: int, options: list[str] | dict[str, Any]) -> Record:
    """Run one model with one seed; returns its record.

    ``options`` are texts of a command line, or values by name.
    """
    from recbole_dpr import run_recbole_dpr

    named = options if isinstance(options, dict) else {}
    line = [f"--seed={seed}", "--show_progress=False", *([] if named else options)]
    result = run_recbole_dpr(model, dataset, config_dict=named, command_line=line)
    run_dir = Path(result["run_dir"])
    record = json.loads((run_dir / "metrics.json").read_text())
    history = json.loads((run_dir / "training.json").read_text())
    record["seconds_to_goal"] = seconds_to(history, GOAL)
    record["epochs"] = {f"stage{n}": sum(row["stage"] == n for row in history) for n in (1, 2, 3)}
    record["epoch_seconds"] = {
        f"stage{n}": statistics.median([r["train_seconds"] for r in history if r["stage"] == n])
        for n in {row["stage"] for row in history}
    }
    record["machine"] = f"{os.cpu_count()} CPU cores, Python {platform.python_version()}"
    record["versions"] = {name: version(name) for name in VERSIONS}
    return record


def seconds_to(history: Iterable[Record], goal: float) -> float | None:
    """Seconds of stage 1, validation included, until validation NDCG@10 reaches `goal`."""
    spent = 0.0
    for row in history:
        spent += row["seconds"]
        if row["stage"] == 1 and row["valid"].get("ndcg@10", 0) >= goal:
            return round(spent, 1)
    return None


def recorded(dataset: str) -> dict[str, list[Record]]:
    """The records of a data set by model, seeds ascending."""
    return {
        folder.name: [json.loads(path.read_text()) for path in sorted(folder.glob("seed-*.json"))]
        for folder in sorted((RESULTS / dataset).iterdir())
        if folder.is_dir()
    }


def figure(records: list[Record], part: str, task: str, system: str, name: str) -> str:
    values = [record[part][task][system][name] for record in records]
    spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4f}{spread}"


def ratio(records: list[Record], part: str, task: str, system: str, to: str) -> float:
    """Mean NDCG@10 of a system over that of another."""
    means = [
        statistics.mean(record[part][task][name]["ndcg@10"] for record in records)
        for name in (system, to)
    ]
    return means[0] / means[1]


def page(dataset: str, models: dict[str, list[Record]]) -> str:
    """docs/results.md."""
    lines = [
        f"# Results on {dataset}",
        "",
        "Written by `python benchmarks/seeds.py` from the records in `results/`. Mean over the seeds, and"
        " their standard deviation after ±. Headline: **unseen phrases**, drawn once and asked of every"
        " system, model and seed alike. The filters see the true attributes of every item and exactly"
        " what is meant; DPR sees the prompt's text alone. Hard phrases: the very"
        " words of wanting and not wanting are held out of training, too.",
        "",
    ]
    for model, records in models.items():
        seeds = ", ".join(str(record["seed"]) for record in records)
        first = records[0]
        lines += [f"## {model}", "", f"Seeds {seeds}. {first['machine']}.", ""]
        lines += ["| | NDCG@10 | Recall@10 |", "|---|---:|---:|"]
        for system in first["tasks"]["standard"]:
            cells = [
                figure(records, "tasks", "standard", system, m) for m in ("ndcg@10", "recall@10")
            ]
            lines.append(f"| standard, {system} | {cells[0]} | {cells[1]} |")
        lines.append("")
        for part, title in PARTS.items():
            if part not in first:
                continue
            lines += [
                f"| {title} | NDCG@10 | x filter | Satisfied@10 | Violation@10 |",
                "|---|---:|---:|---:|---:|",
            ]
            for task in TASKS:
                for system in first[part][task]:
                    names = ("ndcg@10", "satisfied@10", "violation@10")
                    ndcg, satisfied, violation = (
                        figure(records, part, task, system, name) for name in names
                    )
                    times = ratio(records, part, task, system, "filter")
                    lines.append(
                        f"| {task}, {system} | {ndcg} | {times:.3f} | {satisfied} | {violation} |"
                    )
            lines.append("")
        lines += ["| seconds | " + " | ".join(f"seed {r['seed']}" for r in records) + " |"]
        lines += ["|---" * (len(records) + 1) + "|"]
        for name in first["seconds"]:
            cells = " | ".join(f"{record['seconds'][name]:.0f}" for record in records)
            lines.append(f"| {name} | {cells} |")
        goal = " | ".join(str(record["seconds_to_goal"]) for record in records)
        lines += [f"| stage 1 to validation NDCG@10 {GOAL:.3f} | {goal} |", ""]
        epoch = " | ".join(f"{r['epoch_seconds'].get('stage1', 0):.2f}" for r in records)
        lines[-1:] = [f"| one epoch of stage 1, median | {epoch} |", ""]
        used = ", ".join(f"{name} {number}" for name, number in first["versions"].items())
        lines += [f"Versions: {used}.", ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--models", nargs="+", default=["DPR-SASRec", "DPR-GRU4Rec"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[2020, 2021, 2022])
    parser.add_argument("--dataset", default="ml-100k")
    parser.add_argument("--report", action="store_true", help="only rebuild the page")
    args, options = parser.parse_known_args()
    for model in [] if args.report else args.models:
        for seed in args.seeds:
            path = RESULTS / args.dataset / model / f"seed-{seed}.json"
            if path.is_file():
                continue
            record = run(model, args.dataset, seed, options)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(record, indent=1) + "\n")
    PAGE.write_text(page(args.dataset, recorded(args.dataset)))
    print(f"wrote {PAGE.relative_to(ROOT)}", file=sys.stderr)


if __name__ == "__main__":
    main()
