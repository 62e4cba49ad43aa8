"""Fusion: the first of DPR's three ideas."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

# Attended histories ``[n, size]`` at the last position, from states ``[n, L, d]`` of the history and
# ``[n, d]`` of its last item, items ``[n, L]``, last positions ``[n]`` and prompts ``[n, p]``.
AtLast = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


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

    def at_last(self, semantic: Tensor) -> AtLast:
        """`forward` at the last position alone, for a catalogue that stays as it is.

        Parameters
        ----------
        semantic : Tensor ``[n_items, semantic_size]``
            Semantic vectors of all items.
        """
        return LastPosition(self, semantic)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class LastPosition:
    """What `Fusion` gives at the last position, up to float rounding, at a fraction of its work.

    What no request changes is made once: keys and values are tables by item, to which the states'
    part is added.
    """

    def __init__(self, fusion: Fusion, semantic: Tensor) -> None:
        self.fusion = fusion
        own = torch.cat([semantic, fusion.own.weight], dim=1)
        weight = torch.cat([fusion.key.weight, fusion.value.weight])
        bias = torch.cat([fusion.key.bias, fusion.value.bias])
        state_size = weight.shape[1] - own.shape[1]
        self._of_state = weight[:, :state_size].T.contiguous()
        self._of_item = own @ weight[:, state_size:].T + bias

    def __call__(
        self, states: Tensor, state: Tensor, items: Tensor, last: Tensor, prompts: Tensor
    ) -> Tensor:
        """The attended history; see `AtLast`."""
        fusion, heads = self.fusion, self.fusion.heads
        both = states @ self._of_state
        both += self._of_item[items]
        key, value = both.chunk(2, dim=-1)
        query = fusion.query(torch.cat([state, prompts], dim=1))
        distance = last[:, None] - torch.arange(items.shape[1], device=items.device)
        bias = fusion.recency[:, distance.clamp(min=0)].transpose(0, 1)  # [n, heads, L]
        bias = bias.masked_fill(distance[:, None] < 0, -torch.inf)
        query, key, value = (x.unflatten(-1, (heads, -1)) for x in (query, key, value))
        match = torch.einsum("nhd,nlhd->nhl", query, key) / query.shape[-1] ** 0.5
        return torch.einsum("nhl,nlhd->nhd", (match + bias).softmax(dim=-1), value).flatten(1)


class NoFusion(nn.Module):
    """Stands in for `Fusion` where it is switched off: an attended history of size 0.

    The experts then see the state and the prompt alone.
    """

    size = 0

    def forward(self, states: Tensor, items: Tensor, semantic: Tensor, prompts: Tensor) -> Tensor:
        """Nothing, at every position: ``[B, L, 0]``."""
        return states.new_zeros(*items.shape, 0)

    def at_last(self, semantic: Tensor) -> AtLast:
        """Nothing, at the last position: ``[n, 0]``."""
        return lambda states, state, items, last, prompts: state.new_zeros(len(state), 0)
