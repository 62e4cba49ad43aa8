"""Backbone: what DPR asks of any RecBole sequential model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import SequentialRecommender
from torch import Tensor, nn

from recbole_dpr.data.windows import TARGET_LIST
from recbole_dpr.errors import DPRError
from recbole_dpr.model.losses import catalogue_cross_entropy


class Backbone(nn.Module):
    """Wraps a RecBole sequential model, whose own code stays as it is.

    Serves models whose ``forward(item_seq, item_seq_len)`` returns a user vector whose dot product
    with ``item_embedding`` ranks the catalogue, and that are causal: the state of a position depends
    on no later item. SASRec and GRU4Rec of RecBole 1.2.1 were checked.

    Parameters
    ----------
    model : SequentialRecommender

    Raises
    ------
    DPRError
        If the model has no such item embedding.
    """

    def __init__(self, model: SequentialRecommender) -> None:
        super().__init__()
        if not isinstance(getattr(model, "item_embedding", None), nn.Embedding):
            raise DPRError(
                f"{type(model).__name__} has no item_embedding to take a dot product with, so it "
                "cannot be steered yet; choose another backbone, such as SASRec or GRU4Rec"
            )
        self.model = model

    @property
    def size(self) -> int:
        """Length of a user state and of an item vector."""
        return self.model.item_embedding.embedding_dim

    def item_vectors(self) -> Tensor:
        """What the states are multiplied with: ``[n_items, size]``."""
        return self.model.item_embedding.weight

    def states(self, item_seq: Tensor) -> Tensor:
        """The user's state after every item: ``[B, L, size]`` from right-padded ``[B, L]``.

        RecBole's models pick the last position with ``gather_indexes``; returning all positions there
        gives a causal model's state at every step without touching its code.
        """
        with _every_position(self.model):
            return self.model(item_seq, (item_seq != 0).sum(dim=1))

    def scores(self, interaction: Interaction) -> Tensor:
        """The model's own scores, ``[B, n_items]``."""
        return self.model.full_sort_predict(interaction)

    def window_loss(self, interaction: Interaction) -> Tensor:
        """Cross entropy over the catalogue at every target of a batch of windows."""
        targets = interaction[TARGET_LIST]
        where = targets > 0
        states = self.states(interaction[self.model.ITEM_SEQ])[where]
        return catalogue_cross_entropy(states, self.item_vectors(), targets[where])


@contextmanager
def _every_position(model: Any) -> Iterator[None]:
    model.gather_indexes = lambda output, index: output
    try:
        yield
    finally:
        del model.gather_indexes  # the class's own method shows again


def is_causal(backbone: Backbone, n_items: int, length: int) -> bool:
    """Change the last item of a history and see whether an earlier state moves."""
    history = torch.arange(1, length + 1).clamp(max=n_items - 1)[None]
    changed = history.clone()
    changed[0, -1] = 1 if history[0, -1] != 1 else 2
    was_training = backbone.training
    backbone.eval()
    device = backbone.item_vectors().device
    with torch.no_grad():
        both = backbone.states(torch.cat([history, changed]).to(device))
    backbone.train(was_training)
    return both.shape[:2] == (2, length) and torch.allclose(both[0, :-1], both[1, :-1], atol=1e-5)


def check_causal(backbone: Backbone, n_items: int, length: int) -> None:
    """Refuse a backbone that looks at later items.

    Raises
    ------
    DPRError
        If it does: training on all positions would then show the model its targets.
    """
    if not is_causal(backbone, n_items, length):
        raise DPRError(
            f"{type(backbone.model).__name__} is not causal: its states look at later items, so it "
            "cannot be trained on all positions yet; choose SASRec or GRU4Rec"
        )


def trains_on_windows(model: SequentialRecommender) -> bool:
    """Whether a plain model can be trained on all positions of a window at once."""
    try:
        return is_causal(Backbone(model), model.n_items, model.max_seq_length)
    except (DPRError, TypeError, RuntimeError, IndexError):
        return False  # it takes more than a history, or has no vector per position
