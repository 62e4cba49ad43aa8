"""From the options of a run to what its trainer takes: data, model, batches, prompts."""

from __future__ import annotations

from logging import getLogger
from pathlib import Path
from typing import Any

import torch
from recbole.utils import init_seed

from recbole_dpr import compat
from recbole_dpr.checkpoint import (
    ITEM_TEXT,
    MODEL_FILE,
    backbone_weights,
    load_tensors,
    load_weights,
    with_reader_of,
)
from recbole_dpr.config import DPRConfig
from recbole_dpr.data.catalogue import check_catalogue
from recbole_dpr.data.loading import PrefixLoader, Splits, load_data
from recbole_dpr.data.phrasebook import Phrasebook
from recbole_dpr.data.tasks import validation_tasks
from recbole_dpr.data.windows import WindowLoader
from recbole_dpr.errors import DPRError
from recbole_dpr.model.backbone import Backbone, user_embeddings
from recbole_dpr.model.build import build_dpr, make_encoder
from recbole_dpr.model.dpr import DPR
from recbole_dpr.model.recbole_model import recbole_model
from recbole_dpr.readers import learns_to_read
from recbole_dpr.stage_options import warn_unheard
from recbole_dpr.training.validation import PromptedTraining


def prepare(config: DPRConfig) -> tuple[Splits, Phrasebook, Any]:
    """The data, phrasebook and model of a run, by its seed.

    Sets torch's threads and generators.

    Raises
    ------
    DPRError
        As `load_data`, `Phrasebook.load` and `build_model`.
    """
    compat.undo_anomaly_detection()
    set_threads(config)
    init_seed(config["seed"], config["reproducibility"])
    data = load_data(config)
    n_items = data.whole.item_num - 1
    if max(config["topk"]) > n_items:
        raise DPRError(
            f"topk={config['topk']}: {config['dataset']} has {n_items} items; set topk and valid_metric to less"
        )
    phrasebook = Phrasebook.load(config["phrasebook"], data.whole.attributes.values)
    return data, phrasebook, build_model(config, data, phrasebook)


def set_threads(config: Any) -> None:
    """Give torch the threads that option `torch_threads` says."""
    if config["torch_threads"]:
        torch.set_num_threads(config["torch_threads"])


def knows_users(model: Any) -> bool:
    """Whether a model has a vector for each user, so that it can only be asked for those of its data set."""
    tables = (getattr(of, "token_embedding_table", {}) for of in model.modules())  # DIEN's
    return bool(user_embeddings(model)) or any("user" in table for table in tables)


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
        model = build_dpr(config, data.train, phrasebook.called, texts, encoder, phrasebook.read_as)
    else:
        model = recbole_model(config, data.train)
    backbone = model.backbone.model if isinstance(model, DPR) else model
    if config["backbone_checkpoint"]:
        users = knows_users(backbone)
        check_catalogue(config["backbone_checkpoint"], data.whole, users, values=False)
        weights = backbone_weights(config["backbone_checkpoint"], config["trust_checkpoint"])
        load_weights(backbone, weights, config["backbone_checkpoint"])
    if config["checkpoint"]:
        path = Path(config["checkpoint"]) / MODEL_FILE
        check_catalogue(config["checkpoint"], data.whole, knows_users(backbone))
        weights = load_tensors(path)[0]
        if isinstance(model, DPR):  # of this run's item_text_fields and text_encoder
            weights[ITEM_TEXT] = model.semantic.item_text
            weights = weights if learns_to_read(config) else with_reader_of(model, weights)
        load_weights(model, weights, path)
    return model


def training_loader(config: DPRConfig, data: Splits, model: Any) -> Any:
    """Windows for a causal model whose score is a dot product, one sample per prefix otherwise."""
    backbone = model.backbone if isinstance(model, DPR) else Backbone(model)
    getLogger().info(backbone.why)
    warn_unheard(config.given, backbone.causal, hasattr(backbone.model, "position_embedding"))
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
