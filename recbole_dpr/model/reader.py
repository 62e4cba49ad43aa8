"""PromptReader: from a prompt's token states to what it asks for."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, layer_norm, normalize

from recbole_dpr.model.stamp import Kept, stamp

ABSENT, INCLUDE, EXCLUDE = 0, 1, 2
# How well a spelled name matches its own tokens at least. Names of genres, with which the shipped reader was trained, do so at 0.7;
# those that encoder and reader hardly know ("a face product") at 0.5, and were taken for not spoken of.
SPELLED = 0.65


class PromptReader(nn.Module):
    """Read, for each attribute value, whether a prompt wants it, rejects it or says nothing of it.

    The upper layers, taken from the text encoder, are free to learn what negation does to the words
    in its scope. Then each value looks, by its name, for the tokens that speak of it, and one small
    network shared by all values judges what it found there. Nothing is particular to a value, so a
    reader serves values that it was not trained with.

    Parameters
    ----------
    names : Tensor ``[V, D]``
        Encoded readable names of the values.
    size : int
        Size of queries, keys and contents.
    upper : int
        Transformer layers above the encoder's states; each is D wide, as the encoder's own.
    dropout : float
        Of the network that judges; the layers have none.

    Attributes
    ----------
    doubt : float
        Log-odds against a value whose name is not spelled in a prompt: the more values there are, the
        less likely it is that a prompt means any one of them.
    spelled : float
        How well a spelled name matches its own tokens at least.
    comes_trained : bool
        Whether it learns nothing more.
    precision : torch.dtype
        In which its layers multiply in evaluation mode. The weights themselves are float32.
    """

    names: Tensor

    def __init__(self, names: Tensor, size: int, upper: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.doubt, self.spelled, self.comes_trained = 0.0, SPELLED, False
        self.precision = torch.float32
        self._rounded: Kept[list[nn.Module]] = Kept()
        text_size = names.shape[1]
        # Not saved: they follow from the catalogue and the encoder.
        self.register_buffer("names", names, persistent=False)
        self.upper = nn.ModuleList(upper_layer(text_size) for _ in range(upper))
        self.query = nn.Linear(text_size, size, bias=False)
        self.key = nn.Linear(text_size, size, bias=False)
        self.sharpness = nn.Parameter(torch.tensor(12.0))
        self.content = nn.Linear(text_size, size)
        self.judge = nn.Sequential(
            nn.Linear(2 * size + 1, size), nn.GELU(), nn.Dropout(dropout), nn.Linear(size, 3)
        )
        # A name matches its own tokens from the first step on.
        nn.init.orthogonal_(self.query.weight)
        with torch.no_grad():
            self.key.weight.copy_(self.query.weight)

    def forward(self, states: Tensor, mask: Tensor, owners: Tensor | None = None) -> Tensor:
        """Logits of absent, include, exclude: ``[B, V, 3]``.

        Parameters
        ----------
        states : Tensor ``[B, T, D]``
        mask : BoolTensor ``[B, T]``
            True where a token stands.
        owners : LongTensor ``[B, T]``, optional
            From `Mentions.owners`: a token in the name of one value speaks of that one, not of the others.
        """
        precision = torch.float32 if self.training else self.precision
        states = states.to(precision)
        for layer in self._layers(precision):
            states = layer(states, src_key_padding_mask=~mask)
        states = states.float()
        # The scale of token states differs from token to token; their direction is what counts.
        content = self.content(layer_norm(states, states.shape[-1:]))
        query = normalize(self.query(self.names), dim=-1)
        key = normalize(self.key(states), dim=-1)
        match = torch.einsum("vd,btd->bvt", query, key)
        hidden = ~mask[:, None]
        if owners is not None:
            values = torch.arange(len(query), device=owners.device)[None, :, None]
            own = owners[:, None] == values
            surest = match.masked_fill(~own, -1.0).amax(dim=-1, keepdim=True)
            match = match + own * (self.spelled - surest).clamp(min=0)
            hidden = hidden | ((owners[:, None] >= 0) & ~own)
            # An encoder without special tokens leaves nothing to a value beside a text that is another's name.
            hidden = hidden.where(~hidden.all(dim=-1, keepdim=True), ~mask[:, None])
        match = match.masked_fill(hidden, -1.0)
        weight = (match * self.sharpness).masked_fill(hidden, -torch.inf).softmax(dim=-1)
        found = weight @ content
        whole = (content * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
        best = match.amax(dim=-1, keepdim=True)
        # Its first layer sees ``[found ; whole ; best]``; what is the same for all values is multiplied once.
        first: Any = self.judge[0]
        size = content.shape[-1]
        of_found, of_whole, of_best = first.weight.split([size, size, 1], dim=1)
        seen = found @ of_found.T + (whole @ of_whole.T + first.bias)[:, None] + best @ of_best.T
        logits = self.judge[1:](seen)
        if self.doubt and owners is not None:
            logits[..., ABSENT] += self.doubt * ~own.any(dim=-1)
        return logits

    def _layers(self, precision: torch.dtype) -> Iterable[nn.Module]:
        """Its layers, or copies of them in another precision, made anew when the weights have changed."""
        if precision == torch.float32:
            return self.upper
        return self._rounded.get(
            (precision, stamp(self.upper.parameters())),
            lambda: [copy.deepcopy(layer).to(precision) for layer in self.upper],
        )

    def loss(self, logits: Tensor, include: Tensor, exclude: Tensor) -> Tensor:
        """Cross entropy, summed over the values and averaged over the prompts.

        Parameters
        ----------
        logits : Tensor ``[B, V, 3]``
        include, exclude : BoolTensor ``[B, V]``
        """
        said = include.long() * INCLUDE + exclude.long() * EXCLUDE
        return cross_entropy(logits.flatten(0, 1), said.flatten(), reduction="sum") / len(logits)


def upper_layer(size: int) -> nn.TransformerEncoderLayer:
    """One layer of a BERT encoder of this width (post-norm, heads of 32 as in MiniLM)."""
    return nn.TransformerEncoderLayer(
        size,
        max(1, size // 32),
        4 * size,
        dropout=0.0,
        activation="gelu",
        layer_norm_eps=1e-12,
        batch_first=True,
    )


def read_intents(*logits: Tensor) -> tuple[Tensor, Tensor]:
    """Decide which values are wanted and unwanted, two bool ``[B, V]``.

    Several readers, each with its logits ``[B, V, 3]``, decide by the mean of their log-probabilities.

    Decisions rather than probabilities: the steering learns from known intents, and a prompt that
    asks for nothing must move nothing.
    """
    together = logits[0]
    if len(logits) > 1:
        together = torch.stack(logits).log_softmax(dim=-1).mean(dim=0)
    said = together.argmax(dim=-1)
    return said == INCLUDE, said == EXCLUDE
