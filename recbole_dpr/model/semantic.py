"""SemanticSpace: where items, by their text, and attribute values, by their names, meet."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recbole_dpr.model.stamp import Kept, stamp

FREE_DECAY = 1e-3  # keeps in the text what the text can say
NEVER = -8.0  # log-likelihood that stands for impossible, at most; see `SemanticSpace.never`

FEWEST, MOST = 64, 256  # dimensions


def enough_for(n_values: int) -> int:
    """Dimensions in which so many values can be told apart: as many, within bounds."""
    return min(MOST, max(FEWEST, n_values))


class SemanticSpace(nn.Module):
    """The semantic part of the item vectors, and the directions in which a wish moves the user.

    An item's semantic vector is its projected text plus a small free embedding, for what the text
    leaves out. Stage 2 makes the dot product of a wish and an item the log-likelihood of the wish
    under the item, which is what Bayes asks to be added to the backbone's score::

        log P(item | history, prompt) = log P(item | history) + log P(prompt | item) + constant

    Parameters
    ----------
    item_text : Tensor ``[n_items, D]``
        Encoded item texts.
    n_values : int
    size : int
    part : int
        How many of the dimensions are part of the user and item vectors: all, or 0 where a prompt acts
        through the shift of the state alone. The fusion reads all of them either way.

    Attributes
    ----------
    wanted, unwanted : nn.Linear
        From ``[n, V]`` weights of values to ``[n, size]`` directions.
    never : float
        Log-likelihood that stands for impossible in stage 2: enough to sink any item below the top, so
        the lower the further the top stands above the others.
    """

    item_text: Tensor

    def __init__(self, item_text: Tensor, n_values: int, size: int, part: int) -> None:
        super().__init__()
        self.part = part
        self.never = NEVER
        self._kept: Kept[Tensor] = Kept()
        self.register_buffer("item_text", item_text)
        self.project = nn.Linear(item_text.shape[1], size, bias=False)
        self.free = nn.Embedding(len(item_text), size)
        self.wanted = nn.Linear(n_values, size, bias=False)
        self.unwanted = nn.Linear(n_values, size, bias=False)
        nn.init.normal_(self.free.weight, std=0.01)
        nn.init.normal_(self.wanted.weight, std=0.1)
        with torch.no_grad():
            self.unwanted.weight.copy_(-self.wanted.weight)

    def items(self) -> Tensor:
        """Semantic item vectors, ``[n_items, size]``; kept while nothing is there to learn or has changed.

        The projection of a catalogue costs more than scoring a batch of users.
        """
        weights = (self.project.weight, self.free.weight, self.item_text)
        if torch.is_grad_enabled() and any(weight.requires_grad for weight in weights):
            return self._placed()
        # Of a server, too, an ordinary tensor: training may come after.
        with torch.inference_mode(False), torch.no_grad():
            return self._kept.get(stamp(weights), self._placed)

    def _placed(self) -> Tensor:
        # What is kept stands for later passes, too, that may be of full precision.
        with torch.autocast(self.item_text.device.type, enabled=False):
            return self.project(self.item_text) + self.free.weight

    def item_part(self) -> Tensor:
        """The semantic part of the item vectors, ``[n_items, part]``."""
        return self.items()[:, : self.part]

    def forward(self, include: Tensor, exclude: Tensor) -> Tensor:
        """The direction of an intent in the semantic part, ``[n, part]`` from two bool ``[n, V]``.

        Zero for the empty intent.
        """
        return (self.wanted(include.float()) + self.unwanted(exclude.float()))[:, : self.part]

    def alignment_loss(self, items: Tensor, matrix: Tensor) -> Tensor:
        """Squared distance of the dot products from the log-likelihoods of single wishes.

        Whoever has an item of n values in mind asks for each of them with chance 1/n, never for
        another, and may reject any value but these. Never is `never` or anything below.

        Summed over the values and over both directions, averaged over the items.

        Parameters
        ----------
        items : LongTensor ``[n]``
        matrix : BoolTensor ``[n, V]``
            Their values.
        """
        free = self.free(items)
        vectors = self.project(self.item_text[items]) + free
        wanted, unwanted = vectors @ self.wanted.weight, vectors @ self.unwanted.weight
        share = -matrix.sum(dim=1, keepdim=True).clamp(min=1).log()
        distance = torch.where(matrix, wanted - share, (wanted - self.never).clamp(min=0)).square()
        distance += torch.where(matrix, (unwanted - self.never).clamp(min=0), unwanted).square()
        if not len(items):  # where the batches are as many as the prompts ask for
            return distance.sum()
        return distance.sum() / len(items) + FREE_DECAY * free.square().sum(dim=1).mean()
