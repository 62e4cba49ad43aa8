"""Backbone: what DPR asks of any RecBole sequential model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import SequentialRecommender
from torch import Tensor, nn

from recbole_dpr.data.windows import TARGET_LIST, before
from recbole_dpr.errors import DPRError
from recbole_dpr.model.losses import catalogue_cross_entropy
from recbole_dpr.model.probe import check_product, probe
from recbole_dpr.model.single_items import KeptScores, score_singly
from recbole_dpr.model.steering import (
    ITEMS,
    LENGTHS,
    USERS,
    Scores,
    Steering,
    Vector,
    embeddings,
    steering_of,
)


class Backbone(nn.Module):
    """Wraps a RecBole sequential model, whose own code stays as it is.

    `recbole_dpr.model.steering` says how each model is steered. When it is built, a `Vector` model is
    probed: its own scores must be the dot product of user and item vectors, and it is called causal if
    no earlier state moves when later items change.

    Parameters
    ----------
    model : SequentialRecommender

    Attributes
    ----------
    steering : Vector or Scores
    size : int
        Length of a user state and of an item vector; 0 where the model has none.
    causal : bool
        Whether `states` holds the user's state after every item.
    why : str
        In words, how it is steered and trained.

    Raises
    ------
    DPRError
        If the scores of a `Vector` model are no such product.
    """

    def __init__(self, model: SequentialRecommender) -> None:
        super().__init__()
        self.model = model
        self._score_singly = KeptScores(model)
        self.steering: Steering = steering_of(type(model))
        name = type(model).__name__
        if isinstance(self.steering, Scores):
            self.size, self.causal = 0, False
            steered = f"adding to its scores ({self.steering.why})"
            trained = "one sample per prefix: it has no state at every position"
        else:
            own = getattr(model, "item_embedding", None)
            if self.steering.items is embeddings and not isinstance(own, nn.Embedding):
                raise DPRError(
                    f"{name} has no item_embedding to take a dot product with: let the class say "
                    "`steering = Vector(...)` or `Scores(...)` of recbole_dpr.model.steering"
                )
            self.size = self.steering.items(model).shape[1]
            check_product(self)
            self.causal, reason = probe(self)
            # Whether `forward` ends with `gather_indexes`, so that what it gathers from are the states.
            self._passes_on = self.causal and not self.steering.positionwise
            steered = "moving its user vector"
            trained = f"{'windows' if self.causal else 'one sample per prefix'}: {reason}"
        self.why = f"{name} is steered by {steered} and trained on {trained}"

    def item_vectors(self) -> Tensor:
        """What the states are multiplied with: ``[n_items, size]``."""
        if isinstance(self.steering, Scores):
            # A tensor of the model's, for its device.
            return next(self.model.parameters()).new_zeros(self.model.n_items, 0)
        return self.steering.items(self.model)

    def user_vectors(self, item_seq: Tensor, users: Tensor | None = None) -> Tensor:
        """The user's state after the last item: ``[B, size]``.

        Parameters
        ----------
        item_seq : LongTensor ``[B, L]``
            Padded on the right.
        users : LongTensor ``[B]``, optional
            None: nobody that the model knows (user 0; see `set_unknown_user`).
        """
        assert isinstance(self.steering, Vector)
        lengths = (item_seq != 0).sum(dim=1)
        if self.steering.user is not None:
            return self.steering.user(self.model, item_seq, lengths)
        if users is None:
            users = torch.zeros_like(lengths)
        given = {ITEMS: item_seq, LENGTHS: lengths, USERS: users}
        return self.model(*(given[name] for name in self.steering.forward))

    def positions(self, item_seq: Tensor, users: Tensor | None = None) -> Tensor | None:
        """The state at every position, ``[B, L, size]``, or None where the model has only the last.

        RecBole's models pick the last position with ``gather_indexes``. Where that is the last thing
        that a model does, what it picked from are the states.
        """
        assert isinstance(self.steering, Vector)
        with _gathering(self.model, pick=not self.steering.positionwise) as gathered:
            output = self.user_vectors(item_seq, users)
        if self.steering.positionwise:
            return output
        return gathered[-1][0] if gathered and gathered[-1][1] is output else None

    def states(self, item_seq: Tensor, users: Tensor | None = None) -> Tensor:
        """What the model makes of a history, ``[B, L, size]``.

        A causal model: the user's state after every item. Another: the user's state at the last item,
        behind the vectors of the items before it.
        """
        if self.causal:
            states = self.positions(item_seq, users)
            assert states is not None
            return states
        states = self.item_vectors()[item_seq]
        last = (item_seq != 0).sum(dim=1) - 1
        rows = torch.arange(len(item_seq), device=item_seq.device)
        # With enable_amp what the model gives may be of half precision.
        return states.index_put((rows, last), self.user_vectors(item_seq, users).to(states.dtype))

    def scores(self, interaction: Interaction) -> Tensor:
        """The model's own scores, ``[B, n_items]``.

        Where the interaction names no user, item or negative history, nobody and nothing is meant:
        some models read those fields although the scores do not depend on them.
        """
        interaction = complete(self.model, interaction)
        if self.steering.single:
            return self._score_singly(interaction)
        return self.model.full_sort_predict(interaction).view(len(interaction), -1)

    def scores_and_states(self, interaction: Interaction) -> tuple[Tensor, Tensor]:
        """`scores` and `states` of a model with a user vector, of one pass where it shows both."""
        with _gathering(self.model) as gathered:
            scores = self.scores(interaction)
        items = interaction[self.model.ITEM_SEQ]
        if self._passes_on and len(gathered) == 1:
            states = gathered[0][0]
            if states.shape == (*items.shape, self.size):
                return scores, states
        return scores, self.states(items, interaction.interaction.get(self.model.USER_ID))

    def training_loss(self, interaction: Interaction, exclude_history: bool = False) -> Any:
        """Stage 1: on windows the catalogue's cross entropy at every target, on prefixes the model's own loss.

        With `exclude_history` the items before a window's target do not compete with it.
        """
        if not self.causal:
            return self.model.calculate_loss(interaction)
        targets = interaction[TARGET_LIST]
        where = targets > 0
        users, items = interaction[self.model.USER_ID], interaction[self.model.ITEM_SEQ]
        states = self.states(items, users)[where]
        excluded = before(items, where) if exclude_history else None
        return catalogue_cross_entropy(states, self.item_vectors(), targets[where], excluded)


def own_scores(model: SequentialRecommender, interaction: Interaction) -> Tensor:
    """A model's scores of the whole catalogue ``[B, n_items]``, item by item where it has no other way (DIN, DIEN)."""
    if steering_of(type(model)).single:
        return score_singly(model, interaction)
    return model.full_sort_predict(interaction).view(len(interaction), -1)


def complete(model: Any, interaction: Interaction) -> Interaction:
    """A batch with all fields that a RecBole model may read: where it names no user, item or negative
    history, nobody and nothing."""
    items = interaction[model.ITEM_SEQ]
    nothing = {model.USER_ID: items[:, 0], model.ITEM_ID: items[:, 0]}
    if hasattr(model, "NEG_ITEM_SEQ"):
        nothing[model.NEG_ITEM_SEQ] = items
    lacking = {k: torch.zeros_like(v) for k, v in nothing.items() if k not in interaction}
    return Interaction({**interaction.interaction, **lacking}) if lacking else interaction


def user_embeddings(model: nn.Module) -> list[nn.Embedding]:
    """The embeddings of a RecBole model that hold a vector for every user.

    They have a name that says so; FPMC's is ``UI_emb``.
    """
    found = []
    for owner in model.modules():
        n_users = getattr(owner, "n_users", None) or getattr(owner, "n_user", None)
        for name, users in owner.named_children():
            named = name.startswith("user") or name == "UI_emb"
            if named and isinstance(users, nn.Embedding) and users.num_embeddings == n_users:
                found.append(users)
    return found


@torch.no_grad()
def set_unknown_user(model: nn.Module) -> None:
    """Give user 0, whom no interaction trained, the mean vector of the known users.

    A new user is then nobody in particular in place of the numbers that the weights were drawn with.
    """
    for users in user_embeddings(model):
        users.weight[0] = users.weight[1:].mean(dim=0)


@contextmanager
def _gathering(model: Any, pick: bool = True) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Record what a model's ``gather_indexes`` picks from and what it picks: everything, if not `pick`."""
    gathered: list[tuple[Tensor, Tensor]] = []
    gather = model.gather_indexes

    def record(output: Tensor, index: Tensor) -> Tensor:
        gathered.append((output, gather(output, index) if pick else output))
        return gathered[-1][1]

    model.gather_indexes = record
    try:
        yield gathered
    finally:
        del model.gather_indexes  # the class's own method shows again
