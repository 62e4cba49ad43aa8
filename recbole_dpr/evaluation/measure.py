"""All that is measured of a run on a split, and what its folder keeps of it."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from importlib.metadata import version
from logging import getLogger
from typing import TYPE_CHECKING, Any

import torch

from recbole_dpr import __version__
from recbole_dpr.data.draws import KINDS
from recbole_dpr.data.logged import known_intents
from recbole_dpr.data.phrasebook import Phrasebook
from recbole_dpr.data.prompts import PromptTable
from recbole_dpr.data.tasks import PromptedTask, logged_task, prompted_tasks, validation_tasks
from recbole_dpr.evaluation.compared import compared_systems, rerank_scorer
from recbole_dpr.evaluation.evaluate import evaluate_tasks, prompted_systems
from recbole_dpr.evaluation.examples import collect_examples
from recbole_dpr.evaluation.reading import reading
from recbole_dpr.evaluation.report import write_report
from recbole_dpr.evaluation.steereval import delta_auc, steering_tasks
from recbole_dpr.evaluation.systems import System, family
from recbole_dpr.evaluation.text_systems import TextSimilarity, tuned_weights
from recbole_dpr.files import CONFIG_FILE, HISTORY_FILE, METRICS_FILE, RANKS_FILE, write_json
from recbole_dpr.model.build import make_encoder
from recbole_dpr.model.dpr import DPR

if TYPE_CHECKING:
    from recbole_dpr.data.loading import Splits
    from recbole_dpr.training.trainer import DPRTrainer

VERSIONS = ("recbole", "torch", "transformers", "numpy", "pandas")


def measure(
    config: Any, valid: Any, test: Any, model: Any, phrasebook: Phrasebook
) -> tuple[dict[str, Any], dict[str, Any], list[PromptedTask], PromptTable]:
    """Every task on the test split.

    Parameters
    ----------
    config : DPRConfig
    valid, test : FullSortEvalDataLoader
        The compared systems are tuned on the first and measured on the second.
    model : SequentialRecommender
    phrasebook : Phrasebook

    Returns
    -------
    metrics, ranks : dict
        As `evaluate_tasks`; ``metrics`` also has `reading` of a model that takes prompts, and ``tuned`` (system ->
        what was tuned for it) and `delta_auc`, where the options ask for them.
    tasks : list of PromptedTask
    prompts : PromptTable
    """
    started = time.perf_counter()
    split = test.dataset
    prompts = PromptTable(len(split.attributes))
    seed, n_users = config["task_seed"], config["delta_auc_users"]
    n_rows = config["prompted_test_size"]
    tasks = prompted_tasks(split, phrasebook, prompts, seed, n_rows=n_rows)
    promptable = isinstance(model, DPR)
    labelled = all(intent is not None for _, intent in split.logged)
    if split.logged and (labelled or promptable):
        logged = known_intents(split.logged, model.read if promptable else None)
        task = logged_task(split, logged, prompts, seed, n_rows)
        tasks += [task] if len(task.rows) else []
        getLogger().info(f"{len(task.rows)} of {len(split)} test interactions came with a prompt")
    steering = steering_tasks(split, phrasebook, prompts, seed, n_users) if n_users else []
    if promptable:
        model.set_prompts(prompts.texts)
    extra, tuned = _compared(config, valid, model, phrasebook, split, prompts)
    metrics, ranks = evaluate_tasks(model, tasks, config, split, prompts, extra=extra)
    if promptable:
        known = [task for task in tasks if labelled or task.phrases != "logged"]
        metrics["reading"] = reading(model, known, prompts, split.attributes.values)
    if tuned:
        metrics["tuned"] = tuned
    if any(len(task.rows) for task in steering):  # none where all items have all values
        # A model that reads each pair would take hours, for a top whose order hardly moves the AUC.
        if config["rerank_model"]:
            extra = {name: system for name, system in extra.items() if family(name) != "rerank"}
        systems = prompted_systems(model, config, extra)
        metrics["delta_auc"] = delta_auc(systems, steering, model, config, split, prompts)
    metrics["seconds"]["evaluate"] = round(time.perf_counter() - started, 2)
    return metrics, ranks, tasks, prompts


def _compared(
    config: Any, valid: Any, model: Any, phrasebook: Phrasebook, split: Any, prompts: PromptTable
) -> tuple[dict[str, System], dict[str, Any]]:
    """The systems of option ``compare``, tuned on the validation split."""
    if not config["compare"]:
        return {}, {}
    encoder = make_encoder(config)

    def similarity(texts: list[str]) -> TextSimilarity:
        return TextSimilarity(encoder, split.item_text, texts, config["device"])

    def tune() -> dict[str, float]:
        dataset = valid.dataset
        seed, n_rows = config["task_seed"], config["prompted_valid_size"]
        tasks, asked = validation_tasks(dataset, phrasebook, seed, n_rows)
        return tuned_weights(model, similarity(asked.texts), tasks, config, dataset, asked)

    scorer = rerank_scorer(config, split, prompts.texts)
    return compared_systems(config, similarity(prompts.texts), scorer, tune)


def write_results(
    trainer: DPRTrainer, data: Splits, phrasebook: Phrasebook, started: float
) -> dict[str, Any]:
    """Measure what was trained on the test split; writes its figures and its report into the run folder.

    Parameters
    ----------
    trainer : DPRTrainer
        After its ``fit``.
    started : float
        When the run began, as `time.perf_counter` counts.

    Returns
    -------
    dict
        The content of metrics.json.
    """
    config, model, run_dir = trainer.config, trainer.model, trainer.run_dir
    metrics, ranks, tasks, prompts = measure(config, data.valid, data.test, model, phrasebook)
    metrics["seconds"] = {
        **{stage: round(seconds, 2) for stage, seconds in trainer.seconds.items()},
        **metrics["seconds"],
        "total": round(time.perf_counter() - started, 2),
    }
    write_json(run_dir / METRICS_FILE, metrics)
    write_json(run_dir / RANKS_FILE, ranks, indent=None)
    write_json(run_dir / HISTORY_FILE, trainer.history)
    write_report(
        run_dir,
        metrics,
        command=f"python run_recbole_dpr.py --config_files={run_dir / CONFIG_FILE}",
        training=trainer.history,
        router=router_weights(model, tasks) if isinstance(model, DPR) else None,
        examples=collect_examples(model, tasks, config, data.test.dataset, prompts),
        versions={
            "python": platform.python_version(),
            "recbole_dpr": __version__,
            **{name: version(name) for name in VERSIONS},
        },
    )
    return metrics


@torch.no_grad()
def router_weights(model: DPR, tasks: Sequence[PromptedTask]) -> dict[str, list[float]]:
    """Mean weight of each expert by the kind of prompt, unseen phrases."""
    model.eval()
    return {
        task.name: model.router_weights(*model.read_prompts(task.prompt_ids)).mean(dim=0).tolist()
        for task in tasks
        if task.name in KINDS and task.phrases == "unseen" and len(task.prompt_ids)
    }
