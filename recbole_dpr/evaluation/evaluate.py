"""Run every task for every system, through RecBole's own evaluation data loader and evaluator."""

from __future__ import annotations

import time
import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from recbole.evaluator import DataStruct, Evaluator
from torch import Tensor

from recbole_dpr.evaluation.batches import is_promptable, prompted_batches, score_prompted
from recbole_dpr.evaluation.significance import paired
from recbole_dpr.evaluation.systems import System, baselines
from recbole_dpr.metrics import (
    DECIMALS,
    METRICS,
    PER_USER,
    PromptCollector,
    ndcg_gain,
    register_metrics,
)
from recbole_dpr.options import reported_k

if TYPE_CHECKING:
    from recbole_dpr.data.dataset import PromptDataset
    from recbole_dpr.data.prompts import PromptTable
    from recbole_dpr.data.tasks import PromptedTask

# Where the figures of each kind of phrases stand in metrics.json.
PARTS = {
    "unseen": "tasks",
    "train": "tasks_seen_phrases",
    "hard": "tasks_hard_phrases",
    "logged": "tasks_logged",
}


@torch.no_grad()
def evaluate_tasks(
    model: Any,
    tasks: Sequence[PromptedTask],
    config: Any,
    dataset: PromptDataset,
    prompts: PromptTable,
    *,
    extra: Mapping[str, System] | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Measure the model and the systems that it is compared with on every task.

    A promptable model (`is_promptable`) is the system ``DPR``; any other RecBole
    sequential model is the backbone of the filters, and there is no ``DPR``. The standard task has no
    prompt, so that only ``DPR`` and ``backbone`` are run on it.

    Parameters
    ----------
    model : SequentialRecommender
    tasks : sequence of PromptedTask
        Tasks of unseen phrases go to ``tasks``, those of phrases ``"train"`` to
        ``tasks_seen_phrases``, hard ones to ``tasks_hard_phrases``; the standard task goes to all.
    config : RecBole Config
        Reads ``model``, ``dataset``, ``seed``, ``exclude_history``, ``topk``, ``device``, ``PROMPT_ID_FIELD``,
        ``post_filter_k``, ``show_progress`` and what RecBole's loader and collector read.
    dataset : PromptDataset
        The test (or validation) split, whose rows the tasks name.
    prompts : PromptTable
        Gives the intents by prompt id.
    extra : mapping of name to System, optional
        More systems for the prompted tasks.

    Returns
    -------
    metrics : dict
        The content of ``metrics.json``. Beside the design's keys it has ``slices`` (task ->
        ``on_habit`` / ``off_habit`` -> system -> figures, unseen phrases), ``left_out`` (task ->
        number of users without a valid prompt), ``standard_error`` (task -> system -> standard
        error of the NDCG, over the users), ``significance`` (task -> system -> `paired` of ``DPR``
        against it, unseen phrases) and ``system_seconds`` (system -> seconds that it took, the
        backbone's scores being there; what systems share counts for the first that asks, and ``DPR``
        runs the backbone once more, for its states).
    ranks : dict
        For tests of significance: ``unseen`` / ``train`` / ``hard`` / ``logged`` -> task -> ``{"rows": [...],
        "asked": checksum of what was asked, "ranks": {system: [...]}}``, the target's rank (1 = first, ties
        at their average) for each row.

    Raises
    ------
    DPRError
        If scores are NaN, or the model cannot score the whole catalogue.
    """
    register_metrics()
    started = time.perf_counter()
    model.eval()
    asked = [p for p in PARTS if p == "unseen" or any(task.phrases == p for task in tasks)]
    keys = ("slices", "left_out", "standard_error", "significance", "system_seconds", "seconds")
    named = ("model", "dataset", "seed", "exclude_history")
    metrics: dict[str, Any] = {key: config[key] for key in named}
    metrics.update({key: {} for key in (*(PARTS[p] for p in asked), *keys)})
    ranks: dict[str, Any] = {phrases: {} for phrases in asked}
    evaluator = Evaluator(_settings(config))
    compared = prompted_systems(model, config, extra)
    seconds: dict[str, float] = {}
    k = reported_k(config["topk"])

    for task in tasks:
        standard = task.name == "standard"
        names = [n for n in compared if not standard or n in ("DPR", "backbone")]
        systems = {name: compared[name] for name in names}
        collected = _collect(model, task, config, dataset, prompts, systems, seconds)
        task_ranks = {name: struct["rec.rank"] for name, struct in collected.items()}
        figures = {name: _figures(evaluator, struct) for name, struct in collected.items()}
        for phrases in asked if standard else [task.phrases]:
            metrics[PARTS[phrases]][task.name] = figures
        if standard or task.phrases == "unseen":
            metrics["left_out"][task.name] = int(task.left_out)
            metrics["standard_error"][task.name] = {
                name: _standard_error(rank, k) for name, rank in task_ranks.items()
            }
            if "DPR" in task_ranks:
                metrics["significance"][task.name] = paired(task_ranks, "DPR", k)
            if not standard:
                metrics["slices"][task.name] = _slices(evaluator, collected, task.on_habit)
        ranks["unseen" if standard else task.phrases][task.name] = {
            "rows": task.rows.tolist(),
            "asked": _checksum(prompts.include[task.prompt_ids], prompts.exclude[task.prompt_ids]),
            "ranks": {name: _plain(rank) for name, rank in task_ranks.items()},
        }

    metrics["system_seconds"] = {name: round(spent, 2) for name, spent in seconds.items()}
    metrics["seconds"]["evaluate"] = round(time.perf_counter() - started, 2)
    return metrics, ranks


def prompted_systems(
    model: Any, config: Any, extra: Mapping[str, System] | None = None
) -> dict[str, System]:
    """The systems of the prompted tasks by name: ``DPR`` where the model is promptable, then others."""
    systems: dict[str, System] = {}
    if is_promptable(model):
        systems["DPR"] = lambda batch: score_prompted(model, batch.interaction)
    return {**systems, **baselines(config), **(extra or {})}


def _checksum(include: Tensor, exclude: Tensor) -> str:
    """Tells apart what was asked: wanted and rejected values, bool ``[n, V]`` each."""
    first = zlib.crc32(include.numpy().tobytes())
    return f"{zlib.crc32(exclude.numpy().tobytes(), first):08x}"


def _settings(config: Any) -> dict[str, Any]:
    """Return what RecBole's Collector and Evaluator read, with our metrics and more decimals."""
    known = {name.lower() for name in METRICS}
    return {
        "metrics": [*METRICS, *(name for name in config["metrics"] if name.lower() not in known)],
        "topk": config["topk"],
        "metric_decimal_place": DECIMALS,
        "eval_args": config["eval_args"],
        "device": config["device"],
    }


def _collect(
    model: Any,
    task: PromptedTask,
    config: Any,
    dataset: PromptDataset,
    prompts: PromptTable,
    systems: Mapping[str, System],
    seconds: dict[str, float],
) -> dict[str, DataStruct]:
    """Rank the catalogue for every row of one task; returns what was collected per system.

    The time that each system takes to score is added to `seconds`.
    """
    if not len(task.rows):
        return {name: _empty() for name in systems}
    settings = _settings(config)
    collectors = {
        name: PromptCollector(settings, label=f"{name} on the {task.name} task") for name in systems
    }
    for batch, users, items in prompted_batches(model, task, config, dataset, prompts):
        for name, system in systems.items():
            started = time.perf_counter()
            scores = system(batch)
            if scores.is_cuda:
                torch.cuda.synchronize()
            seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - started
            collectors[name].eval_batch_collect(
                scores, batch.interaction, users, items, batch.allowed, batch.forbidden
            )
    return {name: collector.get_data_struct() for name, collector in collectors.items()}


def _figures(evaluator: Evaluator, collected: DataStruct) -> dict[str, float]:
    users = len(collected["rec.rank"])
    if not users:
        return {"users": 0}
    figures = {key: float(value) for key, value in evaluator.evaluate(collected).items()}
    return {**figures, "users": users}


def _slices(
    evaluator: Evaluator, collected: Mapping[str, DataStruct], on_habit: Tensor
) -> dict[str, dict[str, dict[str, float]]]:
    on_habit = on_habit.cpu()
    return {
        label: {
            name: _figures(evaluator, _subset(struct, rows)) for name, struct in collected.items()
        }
        for label, rows in (("on_habit", on_habit), ("off_habit", ~on_habit))
    }


def _subset(collected: DataStruct, rows: Tensor) -> DataStruct:
    part = DataStruct()
    for key in (*PER_USER, "rec.items"):  # the last where a metric of RecBole's looks at the lists
        if key in collected:
            part.set(key, collected[key][rows])
    return part


def _empty() -> DataStruct:
    part = DataStruct()
    for key in PER_USER:
        part.set(key, torch.empty(0))
    return part


def _standard_error(rank: Tensor, k: int) -> float | None:
    """Return the standard error of the mean NDCG@k, or None for fewer than two users."""
    if len(rank) < 2:
        return None
    gain = ndcg_gain(rank, k)
    return round(float(gain.std() / len(gain) ** 0.5), DECIMALS)


def _plain(rank: Tensor) -> list[float]:
    """Return ranks as numbers, whole ones without a trailing ``.0`` (half the file's size)."""
    return [int(value) if value.is_integer() else value for value in rank.tolist()]
