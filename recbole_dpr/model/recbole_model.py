"""A RecBole sequential model with fresh weights, and what it needs of the data set for that."""

from __future__ import annotations

from typing import Any

import numpy as np
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.model.layers import FeedForward
from recbole.utils import FeatureType
from torch import nn
from torch.nn.functional import gelu

from recbole_dpr.data.attributes import item_columns
from recbole_dpr.data.catalogue import Catalogue
from recbole_dpr.data.dataset import PromptDataset
from recbole_dpr.errors import DPRError, did_you_mean

# Options of RecBole's feature models that name columns of the .item file.
FEATURE_OPTIONS = ("selected_features", "item_attribute")
# Options for the length of the vectors that knowledge models preload; the first that a model has counts.
VECTOR_SIZES = ("kg_embedding_size", "embedding_size")

# What RecBole's classes raise where options or columns are not what they need.
BUILD_ERRORS = (
    *(KeyError, TypeError, AttributeError, ValueError),
    *(ArithmeticError, AssertionError, RuntimeError),
)


def recbole_model(config: Any, dataset: PromptDataset | Catalogue) -> SequentialRecommender:
    """Build the backbone of a config, on its device, its first position vectors as long as ``position_range`` says.

    Raises
    ------
    DPRError
        If the model needs what the data set lacks, in one line with the option to set.
    """
    if isinstance(dataset, Catalogue):
        source: Any = dataset.as_dataset(config)
    else:
        check_needs(config, dataset)
        source = ListsOnDemand(dataset)
    try:
        model: SequentialRecommender = config.model_class(config, source)
    except DPRError:
        raise
    except BUILD_ERRORS as error:
        raise DPRError(
            f"{config['model']} cannot be built on {config['dataset']}: "
            f"{type(error).__name__}: {error}; see RecBole's documentation for what it needs"
        ) from error
    if config["position_range"] is not None and hasattr(model, "position_embedding"):
        nn.init.normal_(model.position_embedding.weight, std=config["position_range"])
    fuse_gelu(model)
    return model.to(config["device"])


def fuse_gelu(model: nn.Module) -> None:
    """Let torch's GELU stand in for RecBole's, which goes through memory five times, and more often backwards.

    Equal up to rounding; there and back in a sixth of the time on a CPU.
    """
    for layer in model.modules():
        if isinstance(layer, FeedForward) and layer.intermediate_act_fn == layer.gelu:
            layer.intermediate_act_fn = gelu


def check_needs(config: Any, dataset: PromptDataset) -> None:
    """Make sure that the data set has the features and vectors that the options name.

    Raises
    ------
    DPRError
        Naming the option.
    """
    model, columns = config["backbone"], item_columns(dataset)
    if config["train_stage"] == "finetune":
        raise DPRError(
            f"train_stage=finetune reads a pickle that RecBole wrote; to have {model}'s own "
            "pre-training here, leave train_stage out and set pretrain_epochs"
        )
    for option in FEATURE_OPTIONS:
        names = [config[option]] if isinstance(config[option], str) else config[option] or []
        for name in names:
            if name not in columns:
                raise DPRError(
                    f"{model} reads features of the items, and those of {config['dataset']} have no "
                    f"column {name!r}{did_you_mean(name, columns)}: set {option} to some of {columns}"
                )
            numbers = dataset.field2type[name] in (FeatureType.FLOAT, FeatureType.FLOAT_SEQ)
            if numbers and (option == "item_attribute" or name not in config["numerical_features"]):
                raise DPRError(
                    f"{model} cannot read column {name!r}, which holds numbers: set {option} to a "
                    "column of tokens, or name it in numerical_features as well"
                )
    if config["preload_weight"]:
        option = next(option for option in VECTOR_SIZES if config[option] is not None)
        for name in config["preload_weight"]:
            width = dataset.get_preload_weight(name).shape[-1]
            if width != config[option]:
                raise DPRError(
                    f"the vectors of {name} (preload_weight) have {width} numbers, and {model} takes "
                    f"{config[option]}: set {option}={width}"
                )


class ListsOnDemand:
    """A data set whose ``inter_feat`` gives the lists of histories too, row by row.

    RecBole's FEARec looks for other histories with the same target in ``inter_feat``, where RecBole 1.2.1
    has them all materialised.
    """

    def __init__(self, dataset: PromptDataset) -> None:
        self._dataset = dataset

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dataset, name)

    @property
    def inter_feat(self) -> Any:
        return _Columns(self._dataset)


class _Columns:
    def __init__(self, dataset: PromptDataset) -> None:
        self._dataset = dataset

    def __getitem__(self, field: str) -> Any:
        columns = self._dataset.inter_feat
        return columns[field] if field in columns else _Lists(self._dataset, field)


class _Lists:
    def __init__(self, dataset: PromptDataset, field: str) -> None:
        self._dataset, self._field = dataset, field

    def __getitem__(self, row: int) -> Any:
        return self._dataset[np.array([row])][self._field][0]
