"""SemanticSpace: where items, by their text, and attribute values, by their names, meet."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

FREE_DECAY = 1e-3  # keeps in the text what the text can say


class SemanticSpace(nn.Module):
    """The semantic part of the item vectors, and the directions in which a wish moves the user.

    An item's semantic vector is its projected text plus a small free embedding, for what the text
    leaves out. Stage 2 aligns it with the values: a wanted value's direction has a large dot product
    with the items that have the value, an unwanted one's a small one.

    Parameters
    ----------
    item_text : Tensor ``[n_items, D]``
        Encoded item texts.
    n_values : int
    size : int

    Attributes
    ----------
    wanted, unwanted : nn.Linear
        From ``[n, V]`` weights of values to ``[n, size]`` directions.
    """

    item_text: Tensor

    def __init__(self, item_text: Tensor, n_values: int, size: int) -> None:
        super().__init__()
        self.register_buffer("item_text", item_text)
        self.project = nn.Linear(item_text.shape[1], size, bias=False)
        self.free = nn.Embedding(len(item_text), size)
        self.wanted = nn.Linear(n_values, size, bias=False)
        self.unwanted = nn.Linear(n_values, size, bias=False)
        self.base_rate = nn.Parameter(torch.zeros(n_values))
        nn.init.normal_(self.free.weight, std=0.01)
        nn.init.normal_(self.wanted.weight, std=0.1)
        with torch.no_grad():
            self.unwanted.weight.copy_(-self.wanted.weight)

    def items(self) -> Tensor:
        """Semantic item vectors, ``[n_items, size]``."""
        return self.project(self.item_text) + self.free.weight

    def forward(self, include: Tensor, exclude: Tensor) -> Tensor:
        """The direction of an intent, ``[n, size]`` from two ``[n, V]``; zero for the empty one."""
        return self.wanted(include) + self.unwanted(exclude)

    def alignment_loss(self, items: Tensor, matrix: Tensor) -> Tensor:
        """Cross entropy of telling from the dot products which item has which value.

        Summed over the values and over both directions, averaged over the items.

        Parameters
        ----------
        items : LongTensor ``[n]``
        matrix : BoolTensor ``[n, V]``
            Their values.
        """
        free = self.free(items)
        vectors = self.project(self.item_text[items]) + free
        has = matrix.to(vectors.dtype)
        logits = (
            vectors @ self.wanted.weight + self.base_rate,
            -(vectors @ self.unwanted.weight) + self.base_rate,
        )
        losses = [binary_cross_entropy_with_logits(x, has, reduction="sum") for x in logits]
        return (losses[0] + losses[1]) / len(has) + FREE_DECAY * free.square().sum(dim=1).mean()
