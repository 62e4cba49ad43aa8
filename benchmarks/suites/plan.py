"""Which runs a suite is made of, as `suites.yaml` says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from recbole_dpr.errors import DPRError, did_you_mean
from recbole_dpr.files import read_yaml

FILE = Path(__file__).with_name("suites.yaml")
SHARED = "shared"  # holds what the suites refer to
KINDS = ("ours", "recbole", "speed")
KEYS = ("models", "prefix", "seeds", "variants", "options", "start", "kind", "long")

Suites = dict[str, dict[str, list[dict[str, Any]]]]


@dataclass(frozen=True)
class Run:
    """One run of one model with one seed; two are the same if data set, variant and seed are.

    Parameters
    ----------
    dataset : str
    variant : str
        The model and, after a dash, what is special; names the record's folder.
    seed : int
    model : str
    kind : str
        One of `KINDS`.
    options : dict
    start : str, optional
        Variant whose run of the same seed lends its backbone, in place of stage 1.
    long : bool
        Days on two cores.
    """

    dataset: str
    variant: str
    seed: int
    model: str = field(compare=False)
    kind: str = field(default=KINDS[0], compare=False)
    options: dict[str, Any] = field(default_factory=dict, compare=False)
    start: str | None = field(default=None, compare=False)
    long: bool = field(default=False, compare=False)

    def __str__(self) -> str:
        return f"{self.variant} seed {self.seed}"


def read_suites(path: str | Path = FILE) -> Suites:
    """Read and check the table of suites.

    Raises
    ------
    DPRError
        Naming the suite and the data set of a group that is not right.
    """
    suites = read_yaml(path)
    suites.pop(SHARED, None)
    for suite, datasets in suites.items():
        for dataset, groups in datasets.items():
            for group in groups:
                _check(group, f"{path}, {suite} of {dataset}")
    return suites


def _check(group: dict[str, Any], where: str) -> None:
    for key in group:
        if key not in KEYS:
            raise DPRError(f"{where}: unknown {key!r}{did_you_mean(key, KEYS)}")
    for key in ("models", "seeds"):
        if not group.get(key):
            raise DPRError(f"{where}: a group has no {key}")
    if group.get("kind", KINDS[0]) not in KINDS:
        raise DPRError(f"{where}: kind {group['kind']!r} is none of {', '.join(KINDS)}")


def runs_of(suites: Suites, suite: str, dataset: str) -> list[Run]:
    """Every run of a suite on a data set, in the order of the table."""
    runs: dict[tuple[str, int], Run] = {}
    for group in suites[suite].get(dataset, []):
        for suffix, options in group.get("variants", {"": {}}).items():
            for name in group["models"]:
                model = group.get("prefix", "") + name
                start = None if group.get("start") is None else variant_of(model, group["start"])
                for seed in group["seeds"]:
                    run = Run(
                        dataset,
                        variant_of(model, suffix),
                        seed,
                        model,
                        group.get("kind", KINDS[0]),
                        {**group.get("options", {}), **(options or {})},
                        start,
                        group.get("long", False),
                    )
                    runs[run.variant, seed] = run
    return list(runs.values())


def variant_of(model: str, suffix: str) -> str:
    """The name of a model's variant."""
    return f"{model}-{suffix}" if suffix else model


def plan(
    suites: Suites,
    suite: str,
    dataset: str,
    *,
    models: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    options: dict[str, Any] | None = None,
    long: bool = False,
) -> list[Run]:
    """The runs that are asked for.

    Parameters
    ----------
    models : sequence of str, optional
        Only these models or variants.
    seeds : sequence of int, optional
        In place of those of the table.
    options : dict, optional
        Options of every run, stronger than the table's.
    long : bool
        Whether the long runs come, too.

    Raises
    ------
    DPRError
        If there is no such suite, or it has nothing on the data set or nothing of a model.
    """
    if suite not in suites:
        raise DPRError(f"there is no suite {suite!r}{did_you_mean(suite, suites)}")
    known = runs_of(suites, suite, dataset)
    if not known:
        others = [name for name, groups in suites[suite].items() if groups]
        raise DPRError(f"suite {suite} has no runs on {dataset}, only on {', '.join(others)}")
    names = {name for run in known for name in (run.model, run.variant)}
    for name in models or []:
        if name not in names:
            raise DPRError(f"suite {suite} has no {name!r} on {dataset}{did_you_mean(name, names)}")
    chosen = [run for run in known if not models or {run.model, run.variant} & set(models)]
    chosen = [run for run in chosen if long or not run.long]
    if seeds:
        chosen = [replace(run, seed=seed) for run in _one_per_variant(chosen) for seed in seeds]
    return [replace(run, options={**run.options, **(options or {})}) for run in chosen]


def _one_per_variant(runs: Sequence[Run]) -> list[Run]:
    return list({run.variant: run for run in reversed(runs)}.values())[::-1]


def start_of(suites: Suites, run: Run, options: dict[str, Any] | None = None) -> Run | None:
    """The run that lends its backbone to `run`, found in any suite, with the seed of `run`.

    ``options`` are as in `plan`.

    Raises
    ------
    DPRError
        If no suite has it.
    """
    if run.start is None:
        return None
    for suite in suites:
        for other in runs_of(suites, suite, run.dataset):
            if other.variant == run.start:
                options = {**other.options, **(options or {})}
                return replace(other, seed=run.seed, options=options)
    raise DPRError(f"no suite has {run.start} on {run.dataset}, which {run.variant} starts from")
