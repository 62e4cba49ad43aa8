"""Backbone: what DPR asks of any RecBole sequential model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import SequentialRecommender
from torch import Tensor, nn

from recbole_dpr.data.dataset import SEEN_LIST
from recbole_dpr.data.windows import TARGET_LIST, before
from recbole_dpr.errors import DPRError
from recbole_dpr.model.losses import catalogue_cross_entropy
from recbole_dpr.model.stamp import Stamp, stamp
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

PAIRS = 4096  # of a history and an item, that a model which scores single items scores at once
KEPT = 2**26  # scores of single items that are kept, a quarter of a gigabyte


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
        self._kept: tuple[Stamp, dict[Any, Tensor]] = ([], {})
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
            _check_product(self)
            self.causal, reason = _probe(self)
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

    def _score_singly(self, interaction: Interaction) -> Tensor:
        if self.training or torch.is_grad_enabled():
            return score_singly(self.model, interaction)
        # A catalogue times over the model's work: while the weights stay as they are, it is kept.
        now = stamp(self.model.parameters())
        if self._kept[0] != now or len(self._kept[1]) * self.model.n_items > KEPT:
            self._kept = now, {}
        kept = self._kept[1]
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


@contextmanager
def _at_rest(model: nn.Module) -> Iterator[None]:
    """No dropout and no gradients inside."""
    was_training = model.training
    model.eval()
    with torch.no_grad():
        yield
    model.train(was_training)


def _histories(backbone: Backbone) -> Tensor:
    """Two histories ``[2, L]`` of full length that differ in their second half."""
    n_items, length = backbone.model.n_items, backbone.model.max_seq_length
    item = torch.arange(length, device=backbone.item_vectors().device)
    known = max(1, n_items - 2)  # RecBole's S3Rec counts its mask token as an item
    changed = torch.where(item < max(1, length // 2), item, item + 1)
    return 1 + torch.stack([item, changed]) % known


def _check_product(backbone: Backbone) -> None:
    with _at_rest(backbone.model):
        items = _histories(backbone)
        lengths = (items != 0).sum(dim=1)
        model = backbone.model
        own = backbone.scores(Interaction({model.ITEM_SEQ: items, model.ITEM_SEQ_LEN: lengths}))
        product = backbone.user_vectors(items) @ backbone.item_vectors().T
    if own.shape != product.shape or not _close(own, product):
        raise DPRError(
            f"the scores of {type(model).__name__} are not the dot product of its forward and its "
            "item_embedding: let the class say `steering = Vector(...)` or `Scores(...)` of "
            "recbole_dpr.model.steering"
        )


def _probe(backbone: Backbone) -> tuple[bool, str]:
    """Change later items and see whether earlier states move."""
    with _at_rest(backbone.model):
        states = backbone.positions(_histories(backbone))
    if states is None:
        return False, "it has a state for the last position only"
    earlier = states[:, : max(1, states.shape[1] // 2)]
    if _close(earlier[0], earlier[1]):
        return True, "no earlier state moves when later items change"
    return False, "its states look at later items"


def _close(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are equal up to the rounding of their largest numbers."""
    return bool((a - b).abs().max() <= 1e-4 * a.abs().max())
