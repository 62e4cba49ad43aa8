"""PooledReader: reads from one vector per sentence, to measure what token states are worth."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import layer_norm, normalize

from recbole_dpr.model.reader import PromptReader


class PooledReader(PromptReader):
    """A `PromptReader` that sees the mean of a sentence's token states in place of these.

    There are no tokens left to look for a value in. Its name is compared with the whole sentence,
    coordinate by coordinate, and the same small network judges. The weights are as many, and trained
    in the same way, as those of a `PromptReader`.
    """

    def forward(self, states: Tensor, mask: Tensor, owners: Tensor | None = None) -> Tensor:
        """As `PromptReader.forward`; whose name a token is in is lost in the mean."""
        shown = mask[..., None]
        sentence = (states * shown).sum(dim=1) / shown.sum(dim=1)
        content = self.content(layer_norm(sentence, sentence.shape[-1:]))
        query = normalize(self.query(self.names), dim=-1)
        key = normalize(self.key(sentence), dim=-1)
        product = key[:, None] * query
        match = product.sum(dim=-1, keepdim=True) * self.sharpness
        found = layer_norm(product, product.shape[-1:])  # else it is too small to be heard
        return self.judge(torch.cat([found, content[:, None].expand_as(found), match], dim=-1))
