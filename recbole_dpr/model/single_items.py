"""Scores of the whole catalogue by models that score one item at a time (DIN, DIEN)."""

from __future__ import annotations

from typing import Any

import torch
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_dpr.data.dataset import SEEN_LIST
from recbole_dpr.model.stamp import Kept, stamp

PAIRS = 4096  # of a history and an item, that a model which scores single items scores at once
KEPT = 2**26  # scores of single items that are kept, a quarter of a gigabyte


class KeptScores:
    """`score_singly`, kept while the weights stay as they are: a catalogue times over the model's work.

    Parameters
    ----------
    model : SequentialRecommender
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self._kept: Kept[dict[Any, Tensor]] = Kept()

    def __call__(self, interaction: Interaction) -> Tensor:
        """Scores of the whole catalogue, ``[B, n_items]``."""
        if self.model.training or torch.is_grad_enabled():
            return score_singly(self.model, interaction)
        kept = self._kept.get(stamp(self.model.parameters()), dict)
        if len(kept) * self.model.n_items > KEPT:
            kept.clear()
        users, items = interaction[self.model.USER_ID], interaction[self.model.ITEM_SEQ]
        keys = [
            (user, tuple(history))
            for user, history in zip(users.tolist(), items.tolist(), strict=True)
        ]
        new = [row for row, key in enumerate(keys) if key not in kept]
        if new:
            scores = score_singly(self.model, interaction[new])
            kept.update(zip((keys[row] for row in new), scores, strict=True))
        return torch.stack([kept[key] for key in keys])


def score_singly(model: Any, interaction: Interaction) -> Tensor:
    """Scores of the whole catalogue, ``[B, n_items]``, by a model that scores one item at a time."""
    catalogue = torch.arange(model.n_items, device=interaction[model.ITEM_SEQ].device)
    # Everything in a batch is copied for every item.
    interaction = Interaction({k: v for k, v in interaction.interaction.items() if k != SEEN_LIST})
    rows = max(1, PAIRS // len(catalogue))
    scores = []
    for begin in range(0, len(interaction), rows):
        some = interaction[slice(begin, begin + rows)]
        parts = []
        for items in catalogue.split(PAIRS):
            pairs = some.repeat_interleave(len(items))
            pairs[model.ITEM_ID] = items.repeat(len(some))
            parts.append(model.predict(pairs).view(len(some), len(items)))
        scores.append(torch.cat(parts, dim=1))
    return torch.cat(scores)
