"""docs/backbones.md, from the records alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from recbole_dpr.files import write_text
from recbole_dpr.model.steering import STEERING, Vector
from suites.figures import NDCG, SATISFIED, VIOLATION, mean_of, number, table
from suites.records import Folders, Record, Records

DATASET, PAGE = "ml-100k", "backbones.md"
STANDARD = ("tasks", "standard", "backbone", NDCG)

INTRODUCTION = """\
# Backbones

Written by `python benchmarks/run.py --suite backbones --dataset ml-100k` from the records in `results/`, with `--long` also the backbones alone.
ml-100k, unseen phrases; a dash is not measured yet. Steered so far: {steered} of {all}; on positive prompts {beaten} of them beat the
`post_filter` of the backbone's top 100, which knows the true attributes.

- **Steered by**: `user vector`: it is moved; `scores`: the semantic dot product is added to them. The table of all {all} and its
  reasons: `recbole_dpr/model/steering.py`.
- **Causal**: found by a probe. Causal backbones train on windows, the others on one sample per prefix.
- **Seconds an epoch**: processor time on one thread, median of three rounds, RecBole's loop reckoned from 5 % of an epoch, without the anomaly
  detection that importing RecBole turns on; of ours on prefixes, too.
- **Standard NDCG@10**: in RecBole's own loop (batches of 256, with which it gets there sooner than with its default of 2048; it stops
  at the sixth validation without a gain), in ours, and of the backbone under DPR, whose training here is short: see the variants
  `recbole` and `short` in `benchmarks/suites/suites.yaml`.
- **Positive, negative NDCG@10**: DPR / `filter` / `post_filter`.
- The short trainings were recorded on 23 and 24 November 2026. What has changed since in the reader, in how spelled names are read, in stage 2 and in the dropout
  of stage 3 is not in them.
- DIN and DIEN, under DPR: histories of 10 and five epochs, for scoring the catalogue takes them a pass for each item.
- GRU4RecKG and KSR: vectors trained on the graph that RecBole ships; films without an entity are left out.
"""

WINDOWS = """\
Causal backbones learn from all positions of a window at once here, and from one sample per prefix in RecBole. Someone who
trained SASRec on all positions reports that it halved the accuracy on ml-100k (0.0774 to 0.0392,
[UniSRec #24](https://github.com/RUCAIBox/UniSRec/issues/24)). [Windows](design.md#windows) that overlap, and a loss only where enough history
stands before the target, did not in the runs below; those of 200 take [fewer windows a step](experiments.md#windows-of-200).
Standard NDCG@10 on the test split; in brackets the number of seeds, over which it is a mean; a dash is not measured yet.
"""


def write(folders: Folders, docs: Path) -> list[Path]:
    """Write the page, if any backbone is recorded; returns its path."""
    records = folders.load(DATASET)
    if not any(_of(records, name) for name in STEERING):
        return []
    write_text(docs / PAGE, page(records))
    return [docs / PAGE]


def _of(records: Records, name: str) -> bool:
    """Whether anything of the suite is recorded of a backbone."""
    return f"{name}-epoch" in records or f"DPR-{name}-short" in records


def page(records: Records) -> str:
    """The text of the page."""
    done = [name for name in sorted(STEERING) if _of(records, name)]
    steered = [name for name in done if f"DPR-{name}-short" in records]
    beaten = [name for name in steered if _beats_post_filter(records[f"DPR-{name}-short"])]
    lines = [INTRODUCTION.format(steered=len(steered), beaten=len(beaten), all=len(STEERING))]
    head = ["", "steered by", "causal", "s ours", "s RecBole", "RecBole", "ours", "under DPR"]
    head += ["positive", "negative", "Satisfied@10", "Violation@10"]
    lines += table(head, [_row(name, records) for name in done], words=3)
    if behind := [name for name in steered if name not in beaten]:
        lines += ["Not ahead of `post_filter` on positive prompts: " + ", ".join(behind) + ".", ""]
    reasons = [r["why"] for name in done for r in records.get(f"{name}-epoch", [])[:1]]
    if reasons:
        lines += ["## Why", "", *(f"- {reason}." for reason in reasons), ""]
    return "\n".join([*lines, *_loops(records)]).rstrip() + "\n"


def _beats_post_filter(records: Sequence[Record]) -> bool:
    ours, theirs = (
        mean_of(records, "tasks", "positive", system, NDCG) for system in ("DPR", "post_filter")
    )
    return ours is not None and theirs is not None and ours > theirs


def _row(name: str, records: Records) -> list[str]:
    """One line of the table."""
    epoch, short, plain, recbole = (
        records.get(variant, [])
        for variant in (f"{name}-epoch", f"DPR-{name}-short", name, f"{name}-recbole")
    )
    kind = "user vector" if isinstance(STEERING[name], Vector) else "scores"
    causal = "-" if not epoch else "yes" if epoch[0]["causal"] else "no"
    seconds = [number(mean_of(epoch, key), 1) for key in ("ours_s", "recbole_plain_s")]
    standard = [_standard(of_loop) for of_loop in (recbole, plain, short)]
    steering = [
        " / ".join(
            number(mean_of(short, "tasks", task, system, NDCG), 3)
            for system in ("DPR", "filter", "post_filter")
        )
        for task in ("positive", "negative")
    ]
    shares = [
        number(mean_of(short, "tasks", task, "DPR", share), 3)
        for task, share in (("positive", SATISFIED), ("negative", VIOLATION))
    ]
    return [name, kind, causal, *seconds, *standard, *steering, *shares]


def _standard(records: Sequence[Record], digits: int = 3) -> str:
    return number(mean_of(records, *STANDARD), digits)


def _loops(records: Records) -> list[str]:
    """Standard NDCG@10 of causal backbones in both loops, by the longest history."""
    rows = []
    for name in sorted(STEERING):
        if not any(record["causal"] for record in records.get(f"{name}-epoch", [])):
            continue
        lengths = {int(m[1]) for v in records if (m := re.fullmatch(rf"{name}-L(\d+)", v))}
        for length in sorted(lengths | {50}):
            suffix = "" if length == 50 else f"-L{length}"
            pair = [records.get(f"{name}{suffix}{loop}", []) for loop in ("-recbole", "")]
            if not pair[1]:
                continue
            theirs, ours = (mean_of(of_loop, *STANDARD) for of_loop in pair)
            figures = [f"{_standard(r, 4)} ({len(r)})" if r else "-" for r in pair]
            gain = "-" if theirs is None or ours is None else f"{ours - theirs:+.4f}"
            rows.append([name, str(length), *figures, gain])
    if not rows:
        return []
    head = ["", "longest history", "RecBole's loop", "ours", "difference"]
    return ["## Windows against prefixes", "", WINDOWS, *table(head, rows)]
