"""Run every task for every system, through RecBole's own evaluation data loader and evaluator."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from recbole.data.dataloader import FullSortEvalDataLoader
from recbole.evaluator import DataStruct, Evaluator
from recbole.utils import set_color
from torch import Tensor
from tqdm import tqdm

from recbole_dpr.errors import DPRError
from recbole_dpr.evaluation.metrics import (
    DECIMALS,
    METRICS,
    PER_USER,
    PromptCollector,
    register_metrics,
)
from recbole_dpr.evaluation.systems import PromptedBatch, System, baselines, hide_padding
from recbole_dpr.files import write_text

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
    sampler: Any = None,
    extra: Mapping[str, System] | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Measure the model and the systems that it is compared with on every task.

    A promptable model (one with ``backbone_scores``) is the system ``DPR``; any other RecBole
    sequential model is the backbone of the filters, and there is no ``DPR``. The standard task has no
    prompt, so that only ``DPR`` and ``backbone`` are run on it.

    Parameters
    ----------
    model : SequentialRecommender
    tasks : sequence of PromptedTask
        Tasks of unseen phrases go to ``tasks``, those of phrases ``"train"`` to
        ``tasks_seen_phrases``, hard ones to ``tasks_hard_phrases``; the standard task goes to all.
    config : RecBole Config
        Reads ``model``, ``dataset``, ``seed``, ``topk``, ``device``, ``PROMPT_ID_FIELD``,
        ``post_filter_k``, ``show_progress`` and what RecBole's loader and collector read.
    dataset : PromptDataset
        The test (or validation) split, whose rows the tasks name.
    prompts : PromptTable
        Gives the intents by prompt id.
    sampler : optional
        The split's sampler, passed to the loader as RecBole does.
    extra : mapping of name to System, optional
        More systems for the prompted tasks.

    Returns
    -------
    metrics : dict
        The content of ``metrics.json``. Beside the design's keys it has ``slices`` (task ->
        ``on_habit`` / ``off_habit`` -> system -> figures, unseen phrases), ``left_out`` (task ->
        number of users without a valid prompt) and ``standard_error`` (task -> system -> standard
        error of the NDCG, over the users).
    ranks : dict
        For tests of significance: ``unseen`` / ``train`` / ``hard`` -> task -> ``{"rows": [...], "ranks":
        {system: [...]}}``, the target's rank (1 = first, ties at their average) for each row.

    Raises
    ------
    DPRError
        If scores are NaN, or the model cannot score the whole catalogue.
    """
    register_metrics()
    started = time.perf_counter()
    model.eval()
    asked = [p for p in PARTS if p == "unseen" or any(task.phrases == p for task in tasks)]
    keys = ("slices", "left_out", "standard_error", "seconds")
    metrics: dict[str, Any] = {key: config[key] for key in ("model", "dataset", "seed")}
    metrics.update({key: {} for key in (*(PARTS[p] for p in asked), *keys)})
    ranks: dict[str, Any] = {phrases: {} for phrases in asked}
    evaluator = Evaluator(_settings(config))

    for task in tasks:
        systems = _systems(model, task, config, extra or {})
        collected = _collect(model, task, config, dataset, prompts, systems, sampler)
        figures = {name: _figures(evaluator, struct) for name, struct in collected.items()}
        standard = task.name == "standard"
        for phrases in asked if standard else [task.phrases]:
            metrics[PARTS[phrases]][task.name] = figures
        if standard or task.phrases == "unseen":
            metrics["left_out"][task.name] = int(task.left_out)
            metrics["standard_error"][task.name] = {
                name: _standard_error(struct["rec.rank"], _report_k(config))
                for name, struct in collected.items()
            }
            if not standard:
                metrics["slices"][task.name] = _slices(evaluator, collected, task.on_habit)
        ranks["unseen" if standard else task.phrases][task.name] = {
            "rows": task.rows.tolist(),
            "ranks": {name: _plain(s["rec.rank"]) for name, s in collected.items()},
        }

    metrics["seconds"]["evaluate"] = round(time.perf_counter() - started, 2)
    return metrics, ranks


def prompted_batch(
    model: Any, interaction: Any, config: Any, dataset: PromptDataset, prompts: PromptTable
) -> PromptedBatch:
    """Score one of RecBole's batches with the backbone and look up what its prompts ask for.

    The parameters are those of `evaluate_tasks`; `interaction` carries the prompt ids.
    """
    interaction = interaction.to(config["device"])
    ids = interaction[config["PROMPT_ID_FIELD"]].cpu()
    return PromptedBatch(
        backbone=_scores(
            model, getattr(model, "backbone_scores", model.full_sort_predict), interaction
        ),
        include=prompts.include[ids],
        exclude=prompts.exclude[ids],
        attributes=dataset.attributes,
        interaction=interaction,
    )


def score_prompted(model: Any, interaction: Any) -> Tensor:
    """Return the model's own scores for its prompts, ``[batch, n_items]``."""
    return _scores(model, model.full_sort_predict, interaction)


def write_json(path: str | Path, content: Any, indent: int | None = 1) -> None:
    """Write JSON so that a reader finds the old file or the whole new one, never a part.

    ``indent=None`` gives one long line, for the thousands of numbers of the ranks.

    Raises
    ------
    DPRError
        If the file cannot be written (say, the disk is full); the previous file is untouched.
    """
    write_text(path, json.dumps(content, indent=indent, allow_nan=False) + "\n")


def _settings(config: Any) -> dict[str, Any]:
    """Return what RecBole's Collector and Evaluator read, with our metrics and more decimals."""
    return {
        "metrics": list(METRICS),
        "topk": config["topk"],
        "metric_decimal_place": DECIMALS,
        "eval_args": config["eval_args"],
        "device": config["device"],
    }


def _systems(
    model: Any, task: PromptedTask, config: Any, extra: Mapping[str, System]
) -> dict[str, System]:
    systems: dict[str, System] = {}
    if hasattr(model, "backbone_scores"):
        systems["DPR"] = lambda batch: score_prompted(model, batch.interaction)
    compared = baselines(config)
    if task.name == "standard":
        return {**systems, "backbone": compared["backbone"]}
    return {**systems, **compared, **extra}


def _collect(
    model: Any,
    task: PromptedTask,
    config: Any,
    dataset: PromptDataset,
    prompts: PromptTable,
    systems: Mapping[str, System],
    sampler: Any,
) -> dict[str, DataStruct]:
    """Rank the catalogue for every row of one task; returns what was collected per system."""
    if not len(task.rows):
        return {name: _empty() for name in systems}
    settings = _settings(config)
    collectors = {
        name: PromptCollector(settings, label=f"{name} on the {task.name} task") for name in systems
    }
    split = dataset.with_prompts(task.rows, task.prompt_ids)
    loader = FullSortEvalDataLoader(config, split, sampler)
    title = set_color(f"Evaluate {task.name} {task.phrases}".strip(), "pink")
    for interaction, _, users, items in tqdm(
        loader, ncols=100, desc=title, disable=not config["show_progress"]
    ):
        batch = prompted_batch(model, interaction, config, dataset, prompts)
        for name, system in systems.items():
            collectors[name].eval_batch_collect(
                system(batch), batch.interaction, users, items, batch.allowed, batch.forbidden
            )
    return {name: collector.get_data_struct() for name, collector in collectors.items()}


def _scores(model: Any, predict: Any, interaction: Any) -> Tensor:
    try:
        scores = predict(interaction)
    except NotImplementedError:
        raise DPRError(
            f"{type(model).__name__} cannot score the whole catalogue (it has no "
            "full_sort_predict): choose another backbone, such as SASRec or GRU4Rec"
        ) from None
    return hide_padding(scores.view(len(interaction), -1))


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
    for key in PER_USER:
        part.set(key, collected[key][rows])
    return part


def _empty() -> DataStruct:
    part = DataStruct()
    for key in PER_USER:
        part.set(key, torch.empty(0))
    return part


def _report_k(config: Any) -> int:
    return 10 if 10 in config["topk"] else max(config["topk"])


def _standard_error(rank: Tensor, k: int) -> float | None:
    """Return the standard error of the mean NDCG@k, or None for fewer than two users."""
    if len(rank) < 2:
        return None
    place = rank.double().ceil()
    gain = torch.where(place <= k, 1 / torch.log2(place + 1), 0.0)
    return round(float(gain.std() / len(gain) ** 0.5), DECIMALS)


def _plain(rank: Tensor) -> list[float]:
    """Return ranks as numbers, whole ones without a trailing ``.0`` (half the file's size)."""
    return [int(value) if value.is_integer() else value for value in rank.tolist()]
