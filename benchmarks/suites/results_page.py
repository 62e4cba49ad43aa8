"""docs/results.md, from the records alone."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from recbole_dpr.evaluation.systems import described
from recbole_dpr.files import write_text
from suites import plots
from suites.figures import command, is_steered
from suites.plan import Suites, runs_of, start_of
from suites.readers import read_by_others
from suites.records import Folders, Records, experiment
from suites.steering_tables import (
    ablation_table,
    delta_auc_table,
    model_tables,
    requests_tables,
)
from suites.training_tables import baselines_table, effort_table, speed_table

PAGE, IMAGES = "results.md", "images"
CONFLICT = "gradient-conflict.png"
OVERVIEW = """\
# Results

Written by `python benchmarks/run.py` from the records in `results/`; nothing here is typed by hand.

**Compared** are `DPR`, its own backbone without the prompt, and what one would try instead, over the same backbone:

{systems}

**Protocol.** ml-1m and amazon-beauty are 5-core ([evaluation.md](evaluation.md#data)). Leave one out by time; the whole catalogue is ranked; test set. One prompt for each user and task, drawn once and
asked of every system, model and seed alike (of runs called `-L200` from longer histories, so that some of what they reject is another value): a *positive* one wants a value of the target, a *negative* one rejects a value of the history that
the target lacks, a *compound* one does both. The phrases never occurred in training, unless a table says *seen*, where they may have. Of a run that is called `-exclude_history` no system
recommends what stands in the user's history ([design.md](design.md#what-stands-in-the-history)); of the others all may, as in RecBole. Prompts of a run that is called `-two_readers` are read by the
larger reader beside the default one ([prompts.md](prompts.md#another-reader-or-several)).

**Reading the tables.** NDCG@10, mean over the seeds ± half of the 95 % confidence interval (Student's t: wide for three seeds, very wide for two; none for one).
Satisfied@10: share of the top ten that the prompt allows; Violation@10: share that it rules out. p: paired t-test over the users, whose NDCG is
averaged over the seeds first, with Holm's correction over the column of systems. **Bold**: the best, where it beats every other with p < 0.05, corrected over its own comparisons (the tables of `DPR` over the others are corrected over those of `DPR`). A dash: not measured.
"""


def write(folders: Folders, docs: Path, suites: Suites) -> list[Path]:
    """Write the page and its plots; returns their paths."""
    datasets = {dataset: folders.load(dataset) for dataset in folders.datasets()}
    written, parts = [], [_overview(datasets.values())]
    for dataset, records in datasets.items():
        lines, images = section(dataset, records, suites, docs / IMAGES)
        parts += [*lines, ""]
        written += images
    write_text(docs / PAGE, "\n".join(parts).rstrip() + "\n")
    return [docs / PAGE, *written]


def _overview(datasets: Iterable[Records]) -> str:
    seen = {
        system
        for records in datasets
        for of_name in records.values()
        for record in of_name
        for system in record.get("tasks", {}).get("positive", {})
    }
    lines = ["- `DPR` sees the prompt's text; `backbone` sees no prompt."]
    return OVERVIEW.format(systems="\n".join([*lines, *described(seen)]))


def section(
    dataset: str, records: Records, suites: Suites, images: Path
) -> tuple[list[str], list[Path]]:
    """The lines on one data set, and its plots."""
    lines, written = [f"## {dataset}", ""], []
    main = [name for name in _variants(suites, "main", dataset) if name in records]
    steered = {name: records[name] for name in main if is_steered(records[name])}
    if steered:
        path = plots.systems(dataset, steered, images / f"systems-{dataset}.png")
        written.append(path)
        lines += [command("main", dataset), ""]
        lines += [f"![Systems on {dataset}]({IMAGES}/{path.name})", ""]
        lines += _departures(dataset, records, suites)
        for name, of_name in steered.items():
            lines += model_tables(name, of_name)
        lines += delta_auc_table(steered)
    lines += baselines_table(dataset, records)
    ablations = {
        name: records[name] for name in _variants(suites, "ablation", dataset) if name in records
    }
    full = _full(suites, dataset)
    if ablations and full in records:
        path = plots.ablations(
            dataset, {full: records[full], **ablations}, images / f"ablations-{dataset}.png"
        )
        written.append(path)
        long = all(run.long for run in runs_of(suites, "ablation", dataset))
        lines += ["### Ablations", "", command("ablation", dataset, long), ""]
        lines += ["What each switch takes away: [ablations.md](ablations.md).", ""]
        lines += [f"![Ablations on {dataset}]({IMAGES}/{path.name})", ""]
        lines += ablation_table(full, records, list(ablations))
        lines += _conflict(dataset, images)
    lines += requests_tables(records)
    lines += speed_table(dataset, records)
    lines += effort_table({name: records[name] for name in (*main, *ablations)})
    return lines, written


def _variants(suites: Suites, suite: str, dataset: str) -> list[str]:
    return list(dict.fromkeys(run.variant for run in runs_of(suites, suite, dataset)))


def _departures(dataset: str, records: Records, suites: Suites) -> list[str]:
    """Where the records are not what the command of the main suite gives."""
    planned = [run for run in runs_of(suites, "main", dataset) if not run.long]
    there = {(name, record["seed"]): record for name in records for record in records[name]}
    lines, missing = [], []
    for run in planned:
        record = there.get((run.variant, run.seed))
        if record is None:
            missing.append(str(run))
            continue
        suites_own = experiment(run.options)
        flags = " ".join(
            f"--{name}={value}"
            for name, value in record.get("options", {}).items()
            if suites_own.get(name) != value
        )
        if flags:
            lines += [f"{run} was made with `{flags}`, too.", ""]
    shown = {name for suite in ("main", "ablation") for name in _variants(suites, suite, dataset)}
    old = read_by_others(
        {n: r for n, r in records.items() if n in shown or n.endswith("-requests")}
    )
    if old:
        lines += [
            f"Read by the readers of an earlier version, and not measured again since: {', '.join(old)}.",
            "",
        ]
    if missing:
        lines += [f"Planned, without a record yet: {', '.join(missing)}.", ""]
    return lines


def _conflict(dataset: str, images: Path) -> list[str]:
    """The plot of benchmarks/conflict.py, where it was drawn."""
    if dataset != "ml-100k" or not (images / CONFLICT).is_file():
        return []
    lines = ["Why experts: the gradients of wanting and of not wanting, over training."]
    lines += ["", "`python benchmarks/conflict.py`", ""]
    return [*lines, f"![Gradient conflict]({IMAGES}/{CONFLICT})", ""]


def _full(suites: Suites, dataset: str) -> str:
    """The variant that ablations start from."""
    starts = (start_of(suites, run) for run in runs_of(suites, "ablation", dataset))
    return next((start.variant for start in starts if start), "")
