"""What a backbone is, found by trying it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from recbole.data.interaction import Interaction
from torch import Tensor, nn

from recbole_dpr.errors import DPRError

if TYPE_CHECKING:
    from recbole_dpr.model.backbone import Backbone


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


def check_product(backbone: Backbone) -> None:
    """Make sure that a backbone's own scores are the dot product of its user and item vectors.

    Raises
    ------
    DPRError
        If they are not.
    """
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


def probe(backbone: Backbone) -> tuple[bool, str]:
    """Whether a backbone is causal, and in words why: change later items, and see whether earlier states move."""
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
