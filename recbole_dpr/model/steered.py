"""Steering at the last position, for weights that stay as they are: what no request changes is made once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_dpr.errors import DPRError

if TYPE_CHECKING:
    from recbole_dpr.model.dpr import DPR


class Steered:
    """The user vectors and scores of a `DPR` in evaluation mode, at the last position of each history.

    Training asks `DPR.steer` at every position of a window, and the item vectors change with every
    step. Evaluation and serving ask at the last position, and they stay: so the fusion is asked there
    alone (`Fusion.at_last`). What comes out equals `DPR.steer` there, up to float rounding.

    Not thread-safe: the backbone is watched while it runs (`Backbone.scores_and_states`).

    Parameters
    ----------
    model : DPR

    Attributes
    ----------
    vectors : Tensor ``[n_items, d + s]``
        What user vectors are multiplied with.
    """

    @torch.no_grad()
    def __init__(self, model: DPR) -> None:
        self.model = model
        self.size = model.backbone.size
        self.vectors = model.item_vectors()
        self._attend = model.fusion.at_last(model.semantic.items())

    @torch.no_grad()
    def scores(
        self, interaction: Interaction, include: Tensor, exclude: Tensor, strength: float
    ) -> Tensor:
        """Scores ``[B, n_items]`` under intents ``[B, V]``; the backbone's own, bit for bit, where
        an intent is empty or the strength is 0."""
        scores, states = self.model.scores_and_states(interaction)
        rows, moved = self._moved(interaction, states, include, exclude, strength)
        if len(rows) == len(scores):
            scores = self.model.own_logits(scores).addmm_(moved, self.vectors.T)
        elif len(rows):
            scores[rows] = self.model.own_logits(scores[rows]).addmm(moved, self.vectors.T)
        return scores

    @torch.no_grad()
    def summands(
        self, interaction: Interaction, include: Tensor, exclude: Tensor, strength: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The summands of `scores`, each ``[B, n_items]``: the backbone's, the shift's, the semantic."""
        scores, states = self.model.scores_and_states(interaction)
        rows, moved = self._moved(interaction, states, include, exclude, strength)
        base = scores.index_copy(0, rows, self.model.own_logits(scores[rows]))
        shift, semantic = torch.zeros_like(scores), torch.zeros_like(scores)
        shift[rows] = moved[:, : self.size] @ self.vectors[:, : self.size].T
        semantic[rows] = moved[:, self.size :] @ self.vectors[:, self.size :].T
        return base, shift, semantic

    @torch.no_grad()
    def user_vectors(
        self, interaction: Interaction, include: Tensor, exclude: Tensor, strength: float
    ) -> Tensor:
        """What is multiplied with `vectors`: ``[B, d + s]``; [state ; 0] where nothing is asked.

        Raises
        ------
        DPRError
            If the backbone has no user vector.
        """
        if not self.size:
            raise DPRError(f"{type(self.model.backbone.model).__name__} has no user vectors")
        states = self.model.states(interaction[self.model.ITEM_SEQ])
        rows, moved = self._moved(interaction, states, include, exclude, strength)
        last = _at(states, interaction[self.model.ITEM_SEQ_LEN] - 1)
        users = last.new_zeros(len(last), self.vectors.shape[1])
        users[:, : self.size] = last
        return users.index_add(0, rows, moved)

    def _moved(
        self,
        interaction: Interaction,
        states: Tensor,
        include: Tensor,
        exclude: Tensor,
        strength: float,
    ) -> tuple[Tensor, Tensor]:
        """The rows that are steered, and strength times [shift ; semantic] for them."""
        asked = include.any(dim=1) | exclude.any(dim=1)
        rows = asked.nonzero()[:, 0] if strength else asked.new_zeros(0, dtype=torch.long)
        if not len(rows):
            return rows, states.new_zeros(0, self.vectors.shape[1])
        if len(rows) < len(asked):
            states, include, exclude = states[rows], include[rows], exclude[rows]
            interaction = interaction[rows]
        items = interaction[self.model.ITEM_SEQ]
        last = interaction[self.model.ITEM_SEQ_LEN] - 1
        state = _at(states, last)
        prompt = self.model.prompt(include, exclude)
        attended = self._attend(states, state, items, last, prompt)
        moved = self.model.move(state, prompt, attended, include, exclude)
        return rows, torch.cat(moved, dim=1) * strength


def _at(states: Tensor, last: Tensor) -> Tensor:
    """One state of each history: ``[B, d]`` from ``[B, L, d]`` at ``[B]``."""
    return states[torch.arange(len(last), device=last.device), last]
