"""The table of backbones: how each of RecBole's 31 sequential models is steered, and what it reads.

Two kinds. `Vector`: the model's scores are a dot product of a user vector and item vectors, so DPR can
move the user vector. `Scores`: they are not, so DPR adds the semantic dot product to them. Checked
against RecBole 1.2.1; at build time `Backbone` makes sure that a `Vector` model's own scores are
indeed that dot product.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

# What a model's `forward` may ask for, by the words that the table uses.
ITEMS, LENGTHS, USERS = "items", "lengths", "users"


def embeddings(model: Any) -> Tensor:
    """The item vectors of most models."""
    return model.item_embedding.weight


@dataclass(frozen=True, kw_only=True)
class Common:
    """What both kinds have in common.

    Parameters
    ----------
    logits : callable
        From the model's scores to a scale on which they add up with a dot product.
    single : bool
        Whether the model can only score one item at a time (``predict``).
    features : bool
        Whether the model reads more of the data set than the ids of items and users.
    """

    logits: Callable[[Tensor], Tensor] = lambda scores: scores
    single: bool = False
    features: bool = False


@dataclass(frozen=True)
class Vector(Common):
    """Steered by its user vector: scores are the dot product with its item vectors.

    Parameters
    ----------
    forward : tuple of str
        What the model's ``forward`` takes, in this order.
    items : callable
        From the model to its item vectors ``[n_items, d]``.
    user : callable, optional
        From (model, items, lengths) to the user vectors ``[B, d]``, where ``forward`` does not return
        them.
    positionwise : bool
        Whether all that ``forward`` does after it has picked the last position with
        ``gather_indexes`` is done to each position alone.
    """

    forward: tuple[str, ...] = (ITEMS, LENGTHS)
    items: Callable[[Any], Tensor] = embeddings
    user: Callable[[Any, Tensor, Tensor], Tensor] | None = None
    positionwise: bool = False


@dataclass(frozen=True)
class Scores(Common):
    """Steered by its scores: the semantic dot product is added to them.

    Parameters
    ----------
    why : str
        Why there is no user vector, for the log and the docs.
    """

    why: str


Steering = Vector | Scores


def log(probabilities: Tensor) -> Tensor:
    """The logarithm, finite for a probability of 0."""
    return probabilities.clamp(min=1e-8).log()


def logit(probabilities: Tensor) -> Tensor:
    """The inverse of the sigmoid, finite for 0 and 1."""
    return torch.logit(probabilities, eps=1e-6)


def with_mask(model: Any, items: Tensor, lengths: Tensor) -> Tensor:
    """BERT4Rec: the state of a mask token behind the history.

    The 1 behind it meets the item's bias (`with_bias`).
    """
    states = model(model.reconstruct_test_data(items, lengths))
    return F.pad(model.gather_indexes(states, lengths - 1), (0, 1), value=1.0)


def with_bias(model: Any) -> Tensor:
    """BERT4Rec: its item embeddings without the mask token's, and the item's bias behind them."""
    return torch.cat(
        [model.item_embedding.weight[: model.n_items], model.output_bias[:, None]], dim=1
    )


def one_way(model: Any, items: Tensor, lengths: Tensor) -> Tensor:
    """S3Rec: attention looks back only, as in its fine-tuning; its forward picks no position."""
    return model.gather_indexes(model(items, bidirectional=False), lengths - 1)


def normalised(model: Any) -> Tensor:
    """CORE: item embeddings of length 1 over the temperature."""
    return F.normalize(model.item_embedding.weight, dim=-1) / model.temperature


def with_entities(model: Any) -> Tensor:
    """KSR: item and entity embeddings through its dense layer."""
    both = torch.cat([model.item_embedding.weight, model.entity_embedding.weight], dim=-1)
    return model.dense_layer_i(both)


STEERING: dict[str, Steering] = {
    "BERT4Rec": Vector(user=with_mask, items=with_bias),
    "Caser": Vector((USERS, ITEMS)),
    "CORE": Vector((ITEMS,), items=normalised),
    "DIEN": Scores(
        "it reads history and target item together", logits=logit, single=True, features=True
    ),
    "DIN": Scores(
        "it reads history and target item together", logits=logit, single=True, features=True
    ),
    "FDSA": Vector(positionwise=True, features=True),
    "FEARec": Vector(),
    "FOSSIL": Vector((ITEMS, LENGTHS, USERS)),
    "FPMC": Scores("its score is a sum of two products, user by item and last item by item"),
    "GCSAN": Vector(),
    "GRU4Rec": Vector(),
    "GRU4RecCPR": Scores("its score mixes several softmaxes and copies of the history", logits=log),
    "GRU4RecF": Vector(features=True),
    "GRU4RecKG": Vector(features=True),
    "HGN": Vector((ITEMS, USERS), items=lambda model: model.item_embedding_for_prediction.weight),
    "HRM": Vector((ITEMS, USERS, LENGTHS)),
    "KSR": Vector(items=with_entities, features=True),
    "LightSANs": Vector(),
    "NARM": Vector(),
    "NextItNet": Vector((ITEMS,)),
    "NPE": Vector((ITEMS, USERS), items=lambda model: model.relu(model.item_embedding.weight)),
    "RepeatNet": Scores("its score mixes a softmax and copies of the history", logits=log),
    "S3Rec": Vector(
        user=one_way,
        items=lambda model: model.item_embedding.weight[: model.n_items - 1],  # without the mask
        features=True,
    ),
    "SASRec": Vector(),
    "SASRecCPR": Scores("its score mixes several softmaxes and copies of the history", logits=log),
    "SASRecF": Vector(features=True),
    # Trained on lists that are padded on the left, scored by RecBole 1.2.1 on the others, as here.
    "SHAN": Vector((ITEMS, USERS)),
    "SINE": Vector(),
    "SRGNN": Vector(),
    "STAMP": Vector(),
    "TransRec": Scores("its score is a distance"),
}


def steering_of(model: type) -> Steering:
    """How a backbone is steered.

    A class that is not in the table is steered as its attribute ``steering`` says (a `Vector` or a `Scores`),
    or like the first class in the table that it derives from, or as a `Vector`.
    """
    for base in model.__mro__:
        declared = vars(base).get("steering")
        if isinstance(declared, Vector | Scores):
            return declared
        if base.__name__ in STEERING:
            return STEERING[base.__name__]
    return Vector(features=True)
