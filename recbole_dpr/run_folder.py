"""A run folder: begun by a training, read by whoever evaluates or serves what was trained."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from logging import getLogger
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from recbole.model.abstract_recommender import SequentialRecommender

from recbole_dpr import compat
from recbole_dpr.checkpoint import (
    BACKBONE,
    ITEM_TEXT,
    MODEL_FILE,
    load_tensors,
    load_weights,
    with_reader_of,
)
from recbole_dpr.data.catalogue import CATALOGUE_FILE, USERS_FILE, Catalogue, save_users
from recbole_dpr.data.facts import FACTS_FILE, Facts
from recbole_dpr.errors import DPRError
from recbole_dpr.files import (
    CONFIG_FILE,
    METRICS_FILE,
    no_run,
    properties_dir,
    read_run_options,
    read_yaml,
)
from recbole_dpr.model.build import build_dpr, make_encoder
from recbole_dpr.model.recbole_model import recbole_model
from recbole_dpr.model.steering import steering_of
from recbole_dpr.naming import model_of_run
from recbole_dpr.options import reported_k
from recbole_dpr.readers import learns_to_read, reader_kind

if TYPE_CHECKING:  # a server does without RecBole's config and loaders
    from recbole_dpr.config import DPRConfig
    from recbole_dpr.data.loading import Splits
    from recbole_dpr.data.phrasebook import Phrasebook


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


def write_run_folder(
    run_dir: str | Path, config: DPRConfig, data: Splits, phrasebook: Phrasebook
) -> None:
    """Write all that a run folder needs beside the weights: options, items, facts, a few users.

    Where a run goes on, says which of its options have changed.

    Raises
    ------
    DPRError
        If a file cannot be written, or the options that stand there cannot be read.
    """
    run_dir = Path(run_dir)
    begun = read_run_options(run_dir) if (run_dir / CONFIG_FILE).is_file() else {}
    config.to_yaml(run_dir / CONFIG_FILE)
    if begun:
        say_of_changes(begun, read_run_options(run_dir))
    catalogue = Catalogue.from_dataset(data.whole, phrasebook.called, phrasebook.read_as)
    catalogue.save(run_dir / CATALOGUE_FILE)
    reads_features = steering_of(config.model_class).features
    Facts.from_dataset(data.whole, reads_features).save(run_dir / FACTS_FILE)
    save_users(run_dir / USERS_FILE, data.test.dataset)


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


class RunOptions:
    """The options of a finished run, as its folder tells them; reads like a `DPRConfig`.

    They were checked when the run began. Making a `DPRConfig` of them again would import RecBole's
    evaluator and scikit-learn: a second of a server's start.

    Parameters
    ----------
    run_dir : path
    model : type, optional
        The class, if the run's model was one of your own.
    device : str or torch.device, optional
        Without it: the GPU if there is one and the run's ``use_gpu`` says so.
    reading : dict, optional
        Options of the reader in place of the run's: ``reader``, ``reader_precision``.

    Raises
    ------
    DPRError
        If the folder is no run, or the class, the device or the reader is not right.
    """

    def __init__(
        self,
        run_dir: str | Path,
        model: type | None = None,
        device: str | torch.device | None = None,
        reading: Mapping[str, Any] | None = None,
    ) -> None:
        # An option that the run did not know yet has its default: what it did.
        defaults = read_yaml(properties_dir() / "model" / "DPR.yaml")
        self._options = {**defaults, **read_run_options(run_dir)}
        resolved = model_of_run(run_dir, self["model"], model)
        self.model_class = resolved.model_class
        self._options["backbone"] = resolved.backbone
        self._options["promptable"] = resolved.promptable
        self._options["device"] = _device(device, self["use_gpu"])
        if reading:
            self._change_reading(reading)

    def _change_reading(self, reading: Mapping[str, Any]) -> None:
        if not self["promptable"]:
            raise DPRError(f"a {self['model']} reads no prompts: leave {' and '.join(reading)} out")
        own = {**self._options}
        self._options |= reading
        if learns_to_read(self) and reader_kind(self) != reader_kind(own):
            raise DPRError(
                f"a {reader_kind(self)} reader is learned in training: give reader=shipped, large or a file"
            )

    def __getitem__(self, name: str) -> Any:
        return self._options.get(name)  # RecBole's configs, too, know no KeyError

    def __contains__(self, name: str) -> bool:
        return name in self._options


def _device(asked: str | torch.device | None, use_gpu: bool | None) -> torch.device:
    try:
        if asked is None:
            asked = "cuda" if use_gpu and torch.cuda.is_available() else "cpu"
        device = torch.device(asked)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise DPRError(f"there is no device {asked!r} here: {str(error).splitlines()[0]}") from None
    return device


def load_model(
    run_dir: str | Path,
    model: type | None = None,
    device: str | torch.device | None = None,
    reading: Mapping[str, Any] | None = None,
) -> tuple[RunOptions, Catalogue, SequentialRecommender]:
    """Options, items and model (in evaluation mode) of a run.

    The parameters are those of `RunOptions`.

    Raises
    ------
    DPRError
        If the folder is no finished run, damaged, changed, or of a newer version; or there is no such reader.
    """
    run_dir = Path(run_dir)
    if not (run_dir / CONFIG_FILE).is_file():
        raise DPRError(no_run(run_dir))
    weights, _ = load_tensors(run_dir / MODEL_FILE)  # first: it knows a newer version
    options = RunOptions(run_dir, model, device, reading)
    compat.bridge_numpy()
    compat.undo_anomaly_detection()
    catalogue = Catalogue.load(run_dir / CATALOGUE_FILE)
    built: SequentialRecommender
    try:
        if options["promptable"]:
            encoder = make_encoder(options, serving=True)
            built = build_dpr(
                options, catalogue, catalogue.called, None, encoder, catalogue.read_as
            )
        else:
            built = recbole_model(options, catalogue)
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError, AssertionError) as error:
        reason = error if isinstance(error, DPRError) else f"{type(error).__name__}: {error}"
        raise DPRError(f"no model can be built from {run_dir / CONFIG_FILE}: {reason}") from error
    comes_trained = options["promptable"] and not learns_to_read(options)
    if comes_trained and ("reader" in (reading or {}) or reader_kind(options) == "file"):
        weights = with_reader_of(built, weights)
    load_weights(built, weights, run_dir / MODEL_FILE)
    return options, catalogue, built.eval()


def describe_run(run_dir: str | Path) -> dict[str, Any]:
    """What a run folder holds: model, data set, sizes and, where they were written, headline figures.

    No model is built: its reader's encoder need not be there, nor a class of one's own.

    Raises
    ------
    DPRError
        If the folder is no finished run, damaged, changed, or of a newer version.
    """
    run_dir = Path(run_dir)
    options, (weights, _) = read_run_options(run_dir), load_tensors(run_dir / MODEL_FILE)
    promptable = any(name.startswith(BACKBONE) for name in weights)
    catalogue = Catalogue.load(run_dir / CATALOGUE_FILE)
    about = {
        "model": options["model"],
        "dataset": options["dataset"],
        "seed": options["seed"],
        "items": len(catalogue) - 1,
        "history": f"the last {options['MAX_ITEM_LIST_LENGTH']} items count"
        + "; nothing that stands in it is recommended" * bool(options.get("exclude_history")),
        "prompts": "may ask for the values below" if promptable else "none: a plain model",
        "values": catalogue.attributes.values,
        "weights": sum(w.numel() for name, w in weights.items() if name != ITEM_TEXT),
    }
    metrics = run_dir / METRICS_FILE
    if metrics.is_file():
        try:
            tasks = json.loads(metrics.read_text(encoding="utf-8"))["tasks"]
            name = "DPR" if promptable else "backbone"
            for task, systems in tasks.items():
                found = systems.get(name, {})
                if (metric := f"ndcg@{reported_k(options['topk'])}") in found:
                    about[task] = f"{metric.upper()} {found[metric]:.4f}"
        except (ValueError, KeyError, TypeError, AttributeError):
            about["metrics"] = f"{METRICS_FILE} is damaged"
    return about
