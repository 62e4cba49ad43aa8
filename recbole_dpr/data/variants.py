"""What RecBole's customised data sets add for single models, on lazy histories.

RecBole picks the class ``<Model>Dataset`` of `recbole.data.dataset.customized_dataset` where there is
one; for sequential models these are DIEN, GRU4RecKG and KSR.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from recbole.data.dataset import KnowledgeBasedDataset
from recbole.sampler import SeqSampler
from recbole.utils import FeatureSource, FeatureType

from recbole_dpr.data.dataset import PromptDataset
from recbole_dpr.errors import DPRError


class NegativeHistoryDataset(PromptDataset):
    """For DIEN: beside each item of a history stands one that the user did not take then.

    Source: `DIENDataset` of RecBole 1.2.1.
    """

    def data_augmentation(self) -> None:
        super().data_augmentation()
        field = self.config["NEG_PREFIX"] + self.iid_field
        self.set_field_property(field, FeatureType.TOKEN, FeatureSource.INTERACTION, 1)
        taken = self.history[self.iid_field]
        self.history[field] = SeqSampler(self).sample_neg_sequence(taken)


class KnowledgeDataset(PromptDataset, KnowledgeBasedDataset):
    """For GRU4RecKG and KSR: with a knowledge graph and vectors of its entities and relations.

    Source: `KGSeqDataset` of RecBole 1.2.1.
    """

    WEIGHTS: tuple[str, ...] = ("ent_id",)  # the names under which the model asks for vectors

    def _load_data(self, token: str, dataset_path: str) -> None:
        model, given = self.config["backbone"], self.config["preload_weight"] or {}
        for name in self.WEIGHTS:
            if name not in given:
                raise DPRError(
                    f"{model} needs a vector for each {name}: set preload_weight={{{name}: "
                    "<column of vectors>}, and additional_feat_suffix to the file that holds both"
                )
        for suffix in ("kg", "link", *(self.config["additional_feat_suffix"] or [])):
            path = os.path.join(dataset_path, f"{token}.{suffix}")
            if os.path.isdir(dataset_path) and not os.path.isfile(path):
                raise DPRError(
                    f"{model} needs a knowledge graph: there is no {path}; put it there or, for the "
                    "vectors, set additional_feat_suffix and preload_weight"
                )
        super()._load_data(token, dataset_path)

    def _preload_weight_matrix(self) -> None:
        try:
            super()._preload_weight_matrix()
        except ValueError as error:
            raise DPRError(
                f"{error}: set preload_weight and load_col to columns that fit"
            ) from error

    def get_preload_weight(self, field: str) -> np.ndarray:
        """As RecBole's, in the precision of the model: RecBole 1.2.1's KSR fails on its float64."""
        return super().get_preload_weight(field).astype(np.float32)


class RelationDataset(KnowledgeDataset):
    """KSR asks for the vectors of relations as well."""

    WEIGHTS = ("ent_id", "rel_id")


VARIANTS = {
    "DIEN": NegativeHistoryDataset,
    "GRU4RecKG": KnowledgeDataset,
    "KSR": RelationDataset,
}


def dataset_class(config: Any) -> type[PromptDataset]:
    """The data set that the backbone of a config needs."""
    names = (base.__name__ for base in config.model_class.__mro__)
    return next((VARIANTS[name] for name in names if name in VARIANTS), PromptDataset)
