"""From records to the cells of a table."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from recbole_dpr.evaluation.significance import paired, seed_interval
from recbole_dpr.evaluation.tables import markdown
from suites.records import Record
from suites.top_ranks import K, over_seeds

TASKS = ("positive", "negative", "compound")
NDCG, SATISFIED, VIOLATION = f"ndcg@{K}", f"satisfied@{K}", f"violation@{K}"
SHIPPED = "ml-100k"  # comes with RecBole, so that no folder need be given
SURE = 0.05  # p, Holm-corrected, below which a difference is one
NONE = "-"


def values_of(records: Iterable[Record], *keys: str) -> list[float]:
    """A figure of every record that has it: ``record[key][key]...``."""
    values = []
    for record in records:
        value: Any = record
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        if value is not None:
            values.append(value)
    return values


def mean_of(records: Iterable[Record], *keys: str) -> float | None:
    """The mean of a figure over the records that have it."""
    values = values_of(records, *keys)
    return statistics.mean(values) if values else None


def half_width(values: Sequence[float]) -> float | None:
    """Half the 95 % confidence interval of the mean over seeds; None for one seed."""
    interval = seed_interval(values)
    return None if interval is None else (interval[1] - interval[0]) / 2


def cell(records: Iterable[Record], *keys: str, digits: int = 4, scale: float = 1) -> str:
    """Mean over the seeds ± half of its confidence interval; a dash where nothing was measured."""
    values = [scale * value for value in values_of(records, *keys)]
    if not values:
        return NONE
    half = half_width(values)
    spread = "" if half is None else f" ± {half:.{digits}f}"
    return f"{statistics.mean(values):.{digits}f}{spread}"


def percent(records: Iterable[Record], *keys: str) -> str:
    """The mean over the seeds of a share."""
    mean = mean_of(records, *keys)
    return NONE if mean is None else f"{100 * mean:.1f} %"


def number(value: float | None, digits: int = 0) -> str:
    """A number, or a dash."""
    return NONE if value is None else f"{value:,.{digits}f}"


def ratio(records: Sequence[Record], over: Sequence[str], under: Sequence[str]) -> float | None:
    """A figure over another, both as means of the records that have both; infinite over 0."""
    both = [r for r in records if values_of([r], *over) and values_of([r], *under)]
    above, below = mean_of(both, *over), mean_of(both, *under)
    if above is None or below is None:
        return None
    return above / below if below else math.inf


def tested(ranks: Mapping[str, np.ndarray], reference: str) -> dict[str, dict[str, float]]:
    """`paired` of the reference against all others; empty where there are no ranks of it."""
    return paired(ranks, reference, K) if reference in ranks and len(ranks) > 1 else {}


def clearly_best(records: Sequence[Record], task: str) -> set[str]:
    """The best system of a task if it beats all others significantly, with any that equals it."""
    ranks = over_seeds(records, task)
    means = {name: mean_of(records, "tasks", task, name, NDCG) or 0 for name in ranks}
    if not means:
        return set()
    best = max(means, key=lambda name: means[name])
    equal = {name for name in ranks if np.array_equal(ranks[name], ranks[best])}
    rivals = {name: rows for name, rows in ranks.items() if name not in equal or name == best}
    tests = tested(rivals, best).values()
    return equal if tests and all(test["p_holm"] < SURE for test in tests) else set()


def p_text(p: float | None) -> str:
    """A p-value in words."""
    if p is None:
        return ""
    if p < SURE <= round(p, 3):  # no rounding across the line that bold is drawn at
        return f"p < {SURE:.3f}"
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], words: int = 1) -> list[str]:
    """The lines of a markdown table whose first `words` columns are no numbers, and an empty one."""
    return [*markdown([head, *rows], words).splitlines(), ""]


def grouped(names: Iterable[str], key: Callable[[str], str]) -> dict[str, list[str]]:
    """The names by what `key` says of each."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(key(name), []).append(name)
    return groups


def is_steered(records: Iterable[Record]) -> bool:
    """Whether DPR is among the systems of a variant."""
    return bool(values_of(records, "tasks", "positive", "DPR", NDCG))


def command(suite: str, dataset: str, long: bool = False) -> str:
    """What to type for the runs of a table; `long` where none of them comes without that flag."""
    flags = " --long" * long
    if dataset != SHIPPED:
        flags += " --data_path=FOLDER"  # RecBole's download has other rows
    return f"`python benchmarks/run.py --suite {suite} --dataset {dataset}{flags}`"
