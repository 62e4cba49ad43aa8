"""Run an experiment, load its result: the same shape as `recbole.quick_start`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from logging import getLogger
from pathlib import Path
from time import perf_counter
from typing import Any

from recbole.utils import init_seed, set_color

from recbole_dpr.config import DPRConfig
from recbole_dpr.data.catalogue import check_catalogue
from recbole_dpr.data.dataset import PromptDataset
from recbole_dpr.data.loading import Splits, load_data, say_of_repeats
from recbole_dpr.data.phrasebook import Phrasebook
from recbole_dpr.errors import DPRError
from recbole_dpr.evaluation.compared import rerank_scorer
from recbole_dpr.evaluation.measure import measure, write_results
from recbole_dpr.evaluation.tables import summary_table
from recbole_dpr.logs import run_log
from recbole_dpr.model.dpr import DPR
from recbole_dpr.run_folder import load_model, new_run_dir, write_run_folder
from recbole_dpr.serving.recommender import load
from recbole_dpr.stage_options import refuse_trained, warn_unmeasured
from recbole_dpr.training.resume import RESUME_FILE
from recbole_dpr.training.setup import (
    knows_users,
    prepare,
    prompted_training,
    set_threads,
    training_loader,
)
from recbole_dpr.training.trainer import DPRTrainer

__all__ = ["evaluate", "load", "load_data_and_model", "objective_function", "run_recbole_dpr"]


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
        Folder of a run that was cut off: goes on where it stood, with its own options. `model` is then the
        class, if that was one of your own; the other arguments before `config_dict` are left out.

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
    with run_log() as log_to:
        config = _config_of(model, dataset, config_file_list, config_dict, command_line, resume)
        data, phrasebook, built = prepare(config)
        # What cannot be used is refused before anything is written or trained.
        rerank_scorer(config, data.whole, [])
        if resume:
            check_catalogue(resume, data.whole, knows_users(built))
        loader = training_loader(config, data, built)
        run_dir = Path(resume) if resume else new_run_dir(config)
        logger = log_to(run_dir, config["state"])
        logger.info(set_color(f"{config['model']} on {config['dataset']}", "pink") + f": {run_dir}")
        logger.info(data.whole)
        if config["promptable"]:
            say_of_repeats(data.train, config["exclude_history"])
        logger.debug(config)

        init_seed(config["seed"], config["reproducibility"])
        with _resumable(run_dir):
            trainer = DPRTrainer(
                config, built, run_dir, prompted_training(config, data, phrasebook)
            )
            if resume and (run_dir / RESUME_FILE).is_file():
                trainer.resume(run_dir / RESUME_FILE)
                started -= sum(trainer.seconds.values())  # what earlier processes have trained
            write_run_folder(run_dir, config, data, phrasebook)
            score, result = trainer.fit(
                loader,
                data.valid,
                saved=saved,
                show_progress=config["show_progress"],
            )
            metrics = write_results(trainer, data, phrasebook, started)
        logger.info("\n" + summary_table(metrics))
    return {
        "best_valid_score": score,
        "valid_score_bigger": trainer.valid_metric_bigger,
        "best_valid_result": result,
        "test_result": metrics["tasks"]["standard"]["backbone"],
        "tasks": metrics["tasks"],
        "run_dir": str(run_dir),
    }


def _config_of(
    model: str | type | None,
    dataset: str | None,
    config_file_list: Sequence[str] | None,
    config_dict: dict[str, Any] | None,
    command_line: Sequence[str],
    resume: str | Path | None,
) -> DPRConfig:
    """The config of a new run, or of one that goes on."""
    if not resume:
        config = DPRConfig(model, dataset, config_file_list, config_dict, command_line)
        if config["resume"]:
            raise DPRError("resume is no option of a new run: use run_recbole_dpr(resume=...)")
        return config
    if isinstance(model, str) or dataset or config_file_list:
        raise DPRError(
            "a run that goes on takes model, data set and options from its folder: leave out model, "
            "dataset and config files"
        )
    return DPRConfig.from_run(resume, model, config_dict, command_line)


@contextmanager
def _resumable(run_dir: Path) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        getLogger().warning(f"interrupted; go on with --resume={run_dir}")
        raise


def load_data_and_model(
    run_dir: str | Path,
    model: type | None = None,
    config_dict: dict[str, Any] | None = None,
    command_line: Sequence[str] = (),
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
    config_dict, command_line : optional
        Options to change, such as where the data lies (``data_path``).

    Returns
    -------
    tuple
        ``config``, ``model``, ``dataset``, ``train_data``, ``valid_data``, ``test_data``.

    Raises
    ------
    DPRError
        If the folder is no finished run, the data set is gone or another one, or an option is given that
        only a training can hear.
    """
    config, loaded, data = _load_run(run_dir, model, config_dict, command_line)
    loader = training_loader(config, data, loaded)
    return config, loaded, data.whole, loader, data.valid, data.test


def _load_run(
    run_dir: str | Path,
    model: type | None,
    config_dict: dict[str, Any] | None,
    command_line: Sequence[str],
) -> tuple[DPRConfig, Any, Splits]:
    """Config, model and data of a finished run."""
    config = DPRConfig.from_run(run_dir, model, config_dict, command_line)
    reading: dict[str, Any] = {
        n: config[n] for n in ("reader", "reader_precision") if n in config.given
    }
    trained_with, catalogue, loaded = load_model(run_dir, model, config["device"], reading)
    refuse_trained(config.given, config.to_save(), trained_with)
    warn_unmeasured(config.given, config["compare"])
    set_threads(config)
    if isinstance(loaded, DPR):  # built by the options of the run, not by `config_dict`
        loaded.strength = config["strength"]
        loaded.exclude_history = config["exclude_history"]
        loaded.encoder.keep_in(config["text_cache_dir"])  # serving keeps nothing
    init_seed(config["seed"], config["reproducibility"])
    data = load_data(config)
    catalogue.check(data.whole, run_dir, knows_users(loaded))
    return config, loaded, data


def objective_function(
    config_dict: dict[str, Any] | None = None,
    config_file_list: Sequence[str] | None = None,
    saved: bool = True,
) -> dict[str, Any]:
    """For RecBole's `HyperTuning`: one run with these options, and its figures.

    The model and the data set stand in the options, as in RecBole's own objective function. ``test_result``
    is that of the prompted tasks, which are what is searched for, where the model takes prompts.
    """
    result = run_recbole_dpr(None, None, config_file_list, config_dict, saved)
    prompted = {
        f"{task}_{name}": figure
        for task, systems in result["tasks"].items()
        for name, figure in systems.get("DPR", {}).items()
    }
    keys = ("best_valid_score", "valid_score_bigger", "best_valid_result", "test_result", "run_dir")
    found = {key: result[key] for key in keys}
    if prompted:
        found["test_result"] = prompted
    return {"model": (config_dict or {}).get("model"), **found}


def evaluate(
    run_dir: str | Path,
    config_dict: dict[str, Any] | None = None,
    model: type | None = None,
    command_line: Sequence[str] = (),
) -> dict[str, Any]:
    """Measure a finished run again on its data set's test split; its folder stays as it is.

    Parameters
    ----------
    config_dict, command_line : optional
        Options to change: where the data lies, say, or another phrasebook.
    model : type, optional
        The class, if the run's model was one of your own.

    Returns
    -------
    dict
        As in metrics.json.

    Raises
    ------
    DPRError
        As `load_data_and_model`.
    """
    config, loaded, data = _load_run(run_dir, model, config_dict, command_line)
    phrasebook = Phrasebook.load(config["phrasebook"], data.whole.attributes.values)
    return measure(config, data.valid, data.test, loaded, phrasebook)[0]
