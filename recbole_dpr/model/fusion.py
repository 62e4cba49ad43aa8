"""Fusion: the first of DPR's three ideas."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Fusion(nn.Module):
    """Align the collaborative signal with the semantic one (DPR, arXiv 2602.18929).

    One causal cross-attention over the user's history. Each position asks with its backbone state and
    its prompt; the items before it answer with their backbone state, their semantic vector and an
    embedding of their own. What comes back is the part of the history that matters to this prompt.

    Parameters
    ----------
    state_size, semantic_size, prompt_size : int
    n_items, max_length : int
        Catalogue size (padding included) and longest history.
    heads : int
    dropout : float

    Attributes
    ----------
    size : int
        Of the attended history: `state_size`, rounded up to a multiple of `heads`.
    """

    distance: Tensor

    def __init__(
        self,
        state_size: int,
        semantic_size: int,
        prompt_size: int,
        n_items: int,
        max_length: int,
        heads: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.size = size = state_size + -state_size % heads  # a multiple of heads
        self.heads = heads
        self.own = nn.Embedding(n_items, size, padding_idx=0)
        self.query = nn.Linear(state_size + prompt_size, size)
        self.key = nn.Linear(state_size + semantic_size + size, size)
        self.value = nn.Linear(state_size + semantic_size + size, size)
        self.recency = nn.Parameter(torch.zeros(heads, max_length))  # bias by distance
        self.dropout = nn.Dropout(dropout)
        steps = torch.arange(max_length)
        self.register_buffer("distance", steps[:, None] - steps, persistent=False)
        nn.init.normal_(self.own.weight, std=0.02)

    def forward(self, states: Tensor, items: Tensor, semantic: Tensor, prompts: Tensor) -> Tensor:
        """The attended history at every position, ``[B, L, size]``.

        Parameters
        ----------
        states : Tensor ``[B, L, state_size]``
            Backbone states.
        items : LongTensor ``[B, L]``
            The history, padded on the right.
        semantic : Tensor ``[B, L, semantic_size]``
            Semantic vectors of its items.
        prompts : Tensor ``[B, L, prompt_size]``
            The prompt asked at each position.
        """
        history = torch.cat([states, semantic, self.dropout(self.own(items))], dim=-1)
        query = self._split(self.query(torch.cat([states, prompts], dim=-1)))
        key, value = self._split(self.key(history)), self._split(self.value(history))
        length = items.shape[1]
        distance = self.distance[:length, :length]
        bias = self.recency[:, distance.clamp(min=0)].masked_fill(distance < 0, -torch.inf)
        attended = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return attended.transpose(1, 2).flatten(2)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
