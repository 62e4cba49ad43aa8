"""Facts: what a RecBole model asks its data set for when it is built, without the interactions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole.data.interaction import Interaction
from recbole.utils import FeatureType
from torch import Tensor

from recbole_dpr.errors import DPRError
from recbole_dpr.files import write_text

FACTS_FILE = "facts.json"


@dataclass(frozen=True)
class Facts:
    """Answers that stay the same wherever a model is served.

    Parameters
    ----------
    sizes : dict of str to int
        What RecBole's ``num`` says of a field: of ids, padding included.
    lengths : dict of str to int
        Longest list of a field.
    types : dict of str to str
        RecBole's type of a field.
    items, users : dict of str to Tensor
        Features by field; empty where the model reads none.
    weights : dict of str to ndarray
        Preloaded vectors by field, likewise.
    """

    sizes: Mapping[str, int] = field(default_factory=dict)
    lengths: Mapping[str, Any] = field(default_factory=dict)
    types: Mapping[str, str] = field(default_factory=dict)
    items: Mapping[str, Tensor] = field(default_factory=dict)
    users: Mapping[str, Tensor] = field(default_factory=dict)
    weights: Mapping[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def from_dataset(cls, dataset: Any, features: bool) -> Facts:
        """Ask a built data set; for features and vectors only if the model reads them."""
        items, users, weights = {}, {}, {}
        if features:
            items = dict(dataset.get_item_feature().interaction)
            users = dict(dataset.get_user_feature().interaction)
            preloaded = dataset.config["preload_weight"] or {}
            weights = {name: dataset.get_preload_weight(name) for name in preloaded}
        return cls(
            {name: dataset.num(name) for name in cls._countable(dataset)},
            dict(dataset.field2seqlen),
            {name: kind.value for name, kind in dataset.field2type.items()},
            items,
            users,
            weights,
        )

    @staticmethod
    def _countable(dataset: Any) -> list[str]:
        kinds = (FeatureType.TOKEN, FeatureType.TOKEN_SEQ)
        return [
            name
            for name, kind in dataset.field2type.items()
            if kind not in kinds or name in dataset.field2id_token
        ]

    def save(self, path: str | Path) -> None:
        """Write the facts as json, whole or not at all."""
        content = {
            "sizes": dict(self.sizes),
            "lengths": dict(self.lengths),
            "types": dict(self.types),
            "items": {name: values.tolist() for name, values in self.items.items()},
            "users": {name: values.tolist() for name, values in self.users.items()},
            "weights": {name: values.tolist() for name, values in self.weights.items()},
        }
        write_text(path, json.dumps(content) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Facts:
        """Read what `save` wrote.

        Raises
        ------
        DPRError
            If the file is missing, cut off or not what `save` writes.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            items, users = (
                {name: torch.tensor(values) for name, values in content[kind].items()}
                for kind in ("items", "users")
            )
            weights = {n: np.array(v, dtype=np.float32) for n, v in content["weights"].items()}
            return cls(
                content["sizes"], content["lengths"], content["types"], items, users, weights
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DPRError(f"{path} is missing or damaged ({error}); use another run") from error


class FactualDataset:
    """Stands in for a RecBole data set when a model is built from a run folder.

    The names are RecBole's.

    Parameters
    ----------
    facts : Facts
    item_field : str
    config : RecBole Config
    """

    def __init__(self, facts: Facts, item_field: str, config: Any) -> None:
        self.facts, self.config = facts, config
        self.item_num = self.num(item_field)
        self.user_field = config["USER_ID_FIELD"]
        self.field2seqlen = facts.lengths
        self.field2type = {name: FeatureType(kind) for name, kind in facts.types.items()}
        # FEARec looks up where each item stands in the training data; here is none.
        self.inter_feat = Interaction({item_field: torch.zeros(0, dtype=torch.long)})

    @property
    def user_num(self) -> int:
        """Number of users, padding included."""
        return self.num(self.user_field)

    def num(self, field: str) -> int:
        """What RecBole's data set says to ``num``.

        Raises
        ------
        DPRError
            For a field that the run folder does not know.
        """
        if field not in self.facts.sizes:
            raise DPRError(f"this model needs the column {field!r}, which no run folder holds")
        return self.facts.sizes[field]

    def get_item_feature(self) -> Interaction:
        """Item features by field."""
        return Interaction(dict(self.facts.items))

    def get_user_feature(self) -> Interaction:
        """User features by field."""
        return Interaction(dict(self.facts.users))

    def get_preload_weight(self, field: str) -> np.ndarray:
        """Preloaded vectors ``[n, d]`` of a field."""
        return self.facts.weights[field]
