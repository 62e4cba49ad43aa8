"""DPR over a backbone that has no user vector."""

from __future__ import annotations

from typing import Any

import torch
from recbole.data.interaction import Interaction
from torch import Tensor, nn

from recbole_dpr.model.dpr import DPR
from recbole_dpr.model.losses import score_cross_entropy


class ScoreDPR(DPR):
    """A prompt is a dot product beside the backbone's own scores::

        score = weight * own score + semantic @ semantic item

    For what `recbole_dpr.model.steering` calls `Scores`. There is no state to shift: the fusion attends
    over the items' semantic vectors, and the shift is empty. The parameters are those of `DPR`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # How much the own scores weigh against the semantic part: not all models train theirs as
        # logits of a softmax.
        self.log_weight = nn.Parameter(torch.zeros(()))

    def states(self, items: Tensor, users: Tensor | None = None) -> Tensor:
        """What the fusion knows of a history: the items' semantic vectors, ``[B, L, s]``."""
        return self.semantic.items()[items]

    def scores_and_states(self, interaction: Interaction) -> tuple[Tensor, Tensor]:
        """The backbone's own scores, ``[B, n_items]``, and `states`."""
        return self.backbone.scores(interaction), self.states(interaction[self.ITEM_SEQ])

    def own_logits(self, scores: Tensor) -> Tensor:
        """The backbone's scores, as logits and weighed."""
        return self.log_weight.exp() * self.backbone.steering.logits(scores)

    def backbone_part(self, interaction: Interaction) -> Tensor:
        """The backbone's own scores at the last item, ``[B, n_items]``."""
        return self.backbone.scores(interaction)

    def _window_states(self, part: Tensor, items: Tensor) -> Tensor:
        return self.states(items)

    def _cross_entropy(
        self,
        part: Tensor,
        where: Tensor,
        shift: Tensor,
        semantic: Tensor,
        targets: Tensor,
        excluded: Tensor | None,
    ) -> Tensor:
        own = self.own_logits(part[where.any(dim=1)])
        logits = own + semantic @ self.semantic.item_part().T
        return score_cross_entropy(logits, targets, excluded)

    def steering_parameters(self, semantic: bool = True) -> list[nn.Parameter]:
        """What stage 3 trains: also the weight of the own scores."""
        return [*super().steering_parameters(semantic), self.log_weight]
