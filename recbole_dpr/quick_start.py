"""Run an experiment, load its result: the same shape as `recbole.quick_start`."""

from __future__ import annotations

import platform
import shlex
import sys
from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import version
from logging import getLogger
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from recbole.utils import init_seed, set_color

from recbole_dpr import __version__, compat
from recbole_dpr.config import CONFIG_FILE, DPRConfig
from recbole_dpr.data.catalogue import (
    CATALOGUE_FILE,
    USERS_FILE,
    Catalogue,
    check_catalogue,
    save_users,
)
from recbole_dpr.data.dataset import PromptDataset
from recbole_dpr.data.draws import KINDS
from recbole_dpr.data.facts import FACTS_FILE, Facts
from recbole_dpr.data.loading import PrefixLoader, Splits, load_data, say_of_repeats
from recbole_dpr.data.phrasebook import Phrasebook
from recbole_dpr.data.tasks import validation_tasks
from recbole_dpr.data.windows import WindowLoader
from recbole_dpr.errors import DPRError
from recbole_dpr.evaluation.compared import rerank_scorer
from recbole_dpr.evaluation.evaluate import write_json
from recbole_dpr.evaluation.measure import measure
from recbole_dpr.evaluation.report import collect_examples, write_report
from recbole_dpr.evaluation.tables import summary_table
from recbole_dpr.files import read_run_options
from recbole_dpr.logs import log_to
from recbole_dpr.model.backbone import Backbone
from recbole_dpr.model.build import build_dpr, make_encoder
from recbole_dpr.model.dpr import DPR
from recbole_dpr.model.recbole_model import recbole_model
from recbole_dpr.model.ways import way_of
from recbole_dpr.serving.recommender import load
from recbole_dpr.training import checkpoint
from recbole_dpr.training.trainer import DPRTrainer
from recbole_dpr.training.validation import PromptedTraining

__all__ = ["evaluate", "load", "load_data_and_model", "objective_function", "run_recbole_dpr"]

VERSIONS = ("recbole", "torch", "transformers", "numpy", "pandas")


def run_recbole_dpr(
    model: str | type | None = None,
    dataset: str | None = None,
    config_file_list: Sequence[str] | None = None,
    config_dict: dict[str, Any] | None = None,
    saved: bool = True,
    command_line: Sequence[str] = (),
    resume: str | Path | None = None,
) -> dict[str, Any]:
    """Train, steer, evaluate and report; the counterpart of `recbole.quick_start.run_recbole`.

    Parameters
    ----------
    model : str or type, optional
        "DPR-<Backbone>", a plain RecBole sequential model, or a class of your own to run DPR over; see
        `DPRConfig`.
    dataset : str, optional
    config_file_list, config_dict, command_line : optional
        Options, weakest first.
    saved : bool
        Whether weights and checkpoints are written. The rest of the run folder always is.
    resume : path, optional
        Folder of a run that was cut off: goes on where it stood, with its own options.

    Returns
    -------
    dict
        RecBole's ``best_valid_score``, ``valid_score_bigger``, ``best_valid_result`` (of the last
        stage that ran) and ``test_result`` (standard task); ``tasks`` (as in metrics.json) and
        ``run_dir``.

    Raises
    ------
    DPRError
        For whatever the user can put right; the message names it.
    """
    started = perf_counter()
    own_class = model if isinstance(model, type) else None
    if resume:
        config = DPRConfig.from_run(resume, own_class, config_dict, command_line)
        run_dir = Path(resume)
    else:
        config = DPRConfig(model, dataset, config_file_list, config_dict, command_line)
        if config["resume"]:
            raise DPRError("resume is no option of a new run: use run_recbole_dpr(resume=...)")
        run_dir = None
    compat.undo_anomaly_detection()
    if config["torch_threads"]:
        torch.set_num_threads(config["torch_threads"])
    init_seed(config["seed"], config["reproducibility"])
    data = load_data(config)
    phrasebook = Phrasebook.load(config["phrasebook"], data.whole.attributes.values)
    built = build_model(config, data, phrasebook)
    rerank_scorer(config, data.whole, [])  # a wrong name should not come out after the training

    run_dir = run_dir or new_run_dir(config)
    logger = log_to(run_dir, config["state"])
    logger.info(set_color(f"{config['model']} on {config['dataset']}", "pink") + f": {run_dir}")
    logger.info(data.whole)
    if config["promptable"]:
        say_of_repeats(data.train, config["exclude_history"])
    logger.debug(config)
    begun = read_run_options(run_dir) if resume else {}

    init_seed(config["seed"], config["reproducibility"])
    trainer = DPRTrainer(config, built, run_dir, prompted_training(config, data, phrasebook))
    if resume:  # what does not fit the folder is refused before anything in it changes
        check_catalogue(run_dir, data.whole)
        if (run_dir / checkpoint.RESUME_FILE).is_file():
            trainer.resume(run_dir / checkpoint.RESUME_FILE)
    config.to_yaml(run_dir / CONFIG_FILE)
    if begun:
        say_of_changes(begun, read_run_options(run_dir))
    Catalogue.from_dataset(data.whole, phrasebook.called).save(run_dir / CATALOGUE_FILE)
    reads_features = way_of(config.model_class).features
    Facts.from_dataset(data.whole, reads_features).save(run_dir / FACTS_FILE)
    save_users(run_dir / USERS_FILE, data.test.dataset)

    score, result = trainer.fit(
        training_loader(config, data, built),
        data.valid,
        saved=saved,
        show_progress=config["show_progress"],
    )
    metrics = report(config, data, built, phrasebook, trainer, started)
    logger.info("\n" + summary_table(metrics))
    return {
        "best_valid_score": score,
        "valid_score_bigger": trainer.valid_metric_bigger,
        "best_valid_result": result,
        "test_result": metrics["tasks"]["standard"]["backbone"],
        "tasks": metrics["tasks"],
        "run_dir": str(run_dir),
    }


def say_of_changes(begun: dict[str, Any], now: dict[str, Any]) -> None:
    """Say where a run goes on with other options than it began with: its best figure so far is by the old ones."""
    changed = [
        f"{name} from {begun.get(name)} to {now[name]}"
        for name in now
        if now[name] != begun.get(name)
    ]
    if changed:
        getLogger().warning(
            "Options have changed since the run began; what was trained and validated before stands as it is: "
            + ", ".join(changed)
        )


def load_data_and_model(
    run_dir: str | Path, model: type | None = None, config_dict: dict[str, Any] | None = None
) -> tuple[DPRConfig, Any, PromptDataset, Any, Any, Any]:
    """A finished run with its data; the counterpart of `recbole.quick_start.load_data_and_model`.

    What comes back is what RecBole's own helpers take (`recbole.utils.case_study`, say). No prompt
    comes with the interactions until ``model.set_prompts`` and ``dataset.with_prompts`` say so.

    Parameters
    ----------
    run_dir : path
        A run folder; RecBole's function takes a `.pth` here.
    model : type, optional
        The class, if the run's model was one of your own.
    config_dict : dict, optional
        Options to change, such as where the data lies (``data_path``).

    Returns
    -------
    tuple
        ``config``, ``model``, ``dataset``, ``train_data``, ``valid_data``, ``test_data``.

    Raises
    ------
    DPRError
        If the folder is no finished run, or the data set is gone or another one.
    """
    config = DPRConfig.from_run(run_dir, model, config_dict)
    recommender = load(run_dir, model, config["device"])
    if isinstance(recommender.model, DPR):  # built by the options of the run, not by `config_dict`
        recommender.model.strength = config["strength"]
        recommender.model.exclude_history = config["exclude_history"]
        recommender.model.encoder = make_encoder(config)  # with a cache, which serving does without
    init_seed(config["seed"], config["reproducibility"])
    data = load_data(config)
    recommender.catalogue.check(data.whole, run_dir)
    loader = training_loader(config, data, recommender.model)
    return config, recommender.model, data.whole, loader, data.valid, data.test


def objective_function(
    config_dict: dict[str, Any] | None = None,
    config_file_list: Sequence[str] | None = None,
    saved: bool = True,
) -> dict[str, Any]:
    """For RecBole's `HyperTuning`: one run with these options, and its figures.

    The model and the data set stand in the options, as in RecBole's own objective function.
    """
    result = run_recbole_dpr(None, None, config_file_list, config_dict, saved)
    keys = ("best_valid_score", "valid_score_bigger", "best_valid_result", "test_result")
    return {"model": (config_dict or {}).get("model"), **{key: result[key] for key in keys}}


def new_run_dir(config: DPRConfig) -> Path:
    """Make the folder of a new run, its own also among runs that begin at once: ``<checkpoint_dir>/<model>-<dataset>-<time>``."""
    now = datetime.now().strftime("%b-%d-%Y_%H-%M-%S")
    name = f"{config['model']}-{config['dataset']}-{now}"
    folder = Path(config["checkpoint_dir"])
    runs = [folder / name, *(folder / f"{name}_{n}" for n in range(2, 1000))]
    for run in runs:
        try:
            run.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise DPRError(f"{run} cannot be made ({error}): set checkpoint_dir") from error
        return run
    raise DPRError(
        f"{folder} already has {len(runs)} runs of this second; give another checkpoint_dir"
    )


def build_model(config: DPRConfig, data: Splits, phrasebook: Phrasebook) -> Any:
    """The model of a run, with the weights that it is told to start from.

    Raises
    ------
    DPRError
        If a checkpoint does not fit.
    """
    model: Any
    if config["promptable"]:
        encoder = make_encoder(config)
        texts = data.whole.item_text
        model = build_dpr(config, data.train, phrasebook.called, texts, encoder)
    else:
        model = recbole_model(config, data.train)
    backbone = model.backbone.model if isinstance(model, DPR) else model
    if config["backbone_checkpoint"]:
        weights = checkpoint.backbone_weights(
            config["backbone_checkpoint"], config["trust_checkpoint"]
        )
        checkpoint.load_weights(backbone, weights, config["backbone_checkpoint"])
    if config["checkpoint"]:
        path = Path(config["checkpoint"]) / checkpoint.MODEL_FILE
        check_catalogue(config["checkpoint"], data.whole)
        weights = checkpoint.load_tensors(path)[0]
        if isinstance(model, DPR):  # of this run's item_text_fields and text_encoder
            weights["semantic.item_text"] = model.semantic.item_text
        checkpoint.load_weights(model, weights, path)
    return model


def training_loader(config: DPRConfig, data: Splits, model: Any) -> Any:
    """Windows for a causal model whose score is a dot product, one sample per prefix otherwise."""
    backbone = model.backbone if isinstance(model, DPR) else Backbone(model)
    getLogger().info(backbone.why)
    if backbone.causal:
        if config["loss_type"] == "BPR":
            raise DPRError(
                "loss_type=BPR is not for windows, which are trained with the cross entropy over the whole "
                "catalogue; leave loss_type out"
            )
        loss = type(backbone.model).calculate_loss
        if not loss.__module__.startswith("recbole."):
            getLogger().warning(
                f"{loss.__qualname__} is not used: a causal model trains on windows, with the cross entropy over "
                "the whole catalogue"
            )
        return WindowLoader(config, data.train, config.stage(1).batch_size)
    return PrefixLoader(config, data.train, data.train_sampler, config.stage(1).prefixes)


def prompted_training(
    config: DPRConfig, data: Splits, phrasebook: Phrasebook
) -> PromptedTraining | None:
    """The prompts that stages 2 and 3 are validated with: training phrases, on the validation split."""
    if not config["promptable"]:
        return None
    seed, n_rows = config["task_seed"], config["prompted_valid_size"]
    tasks, prompts = validation_tasks(data.valid.dataset, phrasebook, seed, n_rows)
    return PromptedTraining(phrasebook, tasks, prompts)


def report(
    config: DPRConfig,
    data: Splits,
    model: Any,
    phrasebook: Phrasebook,
    trainer: DPRTrainer,
    started: float,
) -> dict[str, Any]:
    """Evaluate on the test split and write metrics.json, ranks.json, training.json, report.md."""
    run_dir, test = trainer.run_dir, data.test._dataset
    metrics, ranks, tasks, prompts = measure(config, data.valid, data.test, model, phrasebook)
    router = router_weights(model, tasks) if isinstance(model, DPR) else None
    metrics["seconds"] = {
        **{stage: round(seconds, 2) for stage, seconds in trainer.seconds.items()},
        **metrics["seconds"],
        "total": round(perf_counter() - started, 2),
    }
    write_json(run_dir / "metrics.json", metrics)
    write_json(run_dir / "ranks.json", ranks, indent=None)
    write_json(run_dir / "training.json", trainer.history)
    write_report(
        run_dir,
        metrics,
        command=shlex.join(["python", *sys.argv]),
        training=trainer.history,
        router=router,
        examples=collect_examples(model, tasks, config, test, prompts),
        versions={
            "python": platform.python_version(),
            "recbole_dpr": __version__,
            **{name: version(name) for name in VERSIONS},
        },
    )
    return metrics


def evaluate(run_dir: str | Path, config_dict: dict[str, Any] | None = None) -> dict[str, Any]:
    """Measure a finished run again on its data set's test split, writing nothing.

    Parameters
    ----------
    config_dict : dict, optional
        Options to change: where the data lies, say, or another phrasebook.

    Returns
    -------
    dict
        As in metrics.json.

    Raises
    ------
    DPRError
        As `load_data_and_model`.
    """
    config, model, dataset, _, valid, test = load_data_and_model(run_dir, None, config_dict)
    phrasebook = Phrasebook.load(config["phrasebook"], dataset.attributes.values)
    return measure(config, valid, test, model, phrasebook)[0]


@torch.no_grad()
def router_weights(model: DPR, tasks: Sequence[Any]) -> dict[str, list[float]]:
    """Mean weight of each expert by the kind of prompt, unseen phrases."""
    model.eval()
    return {
        task.name: model.router_weights(task.prompt_ids).mean(dim=0).tolist()
        for task in tasks
        if task.name in KINDS and task.phrases == "unseen" and len(task.prompt_ids)
    }
