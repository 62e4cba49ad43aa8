"""Ranker: from known items and intents to the best items."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from threading import Lock
from typing import Protocol

import numpy as np
import torch
from recbole.model.abstract_recommender import SequentialRecommender
from torch import Tensor

from recbole_dpr.data.catalogue import Catalogue
from recbole_dpr.errors import DPRError
from recbole_dpr.model.backbone import Backbone, complete, own_scores
from recbole_dpr.model.dpr import DPR
from recbole_dpr.model.steered import Steered
from recbole_dpr.serving.histories import Histories

ROWS = 256  # users that are scored at once

Intents = tuple[Tensor, Tensor]  # include and exclude [n, V]; V is 0 for a plain model
Found = list[list[tuple[str, float]]]


@dataclass(frozen=True)
class Asked:
    """What requests ask for, checked and in numbers.

    Parameters
    ----------
    ids : sequence of sequence of int
        The known items of each history, oldest first.
    intents : (BoolTensor ``[n, V]``, BoolTensor ``[n, V]``)
        What is wanted and what is rejected.
    strength : float
    exclude_history : bool
        Whether what stands in the history is left out.
    """

    ids: Sequence[Sequence[int]]
    intents: Intents
    strength: float = 1.0
    exclude_history: bool = False

    def parts(self) -> Iterator[Asked]:
        """Cut into pieces of `ROWS`."""
        include, exclude = self.intents
        for begin in range(0, len(self.ids), ROWS):
            rows = slice(begin, begin + ROWS)
            yield replace(self, ids=self.ids[rows], intents=(include[rows], exclude[rows]))


class Index(Protocol):
    """What a `Ranker` asks of an index: the best rows of `item_vectors()` for user vectors."""

    def search(self, users: np.ndarray, k: int) -> np.ndarray:
        """Row numbers ``[B, k]``, best first; 0 where nothing was found."""

    def fits(self, vectors: np.ndarray) -> bool:
        """Whether it can have been built on these item vectors."""


class Ranker:
    """Scores histories under intents and picks the best items. Thread-safe.

    Parameters
    ----------
    catalogue : Catalogue
    model : DPR or SequentialRecommender
        In evaluation mode.
    histories : Histories
    index : Index, optional
        Finds the best items in place of the full ranking.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        model: SequentialRecommender,
        histories: Histories,
        index: Index | None = None,
    ) -> None:
        self.model, self.index = model, index
        self._tokens, self._histories = catalogue.tokens, histories
        self._lock = Lock()  # RecBole's models keep state while they run
        self._steered = Steered(model) if isinstance(model, DPR) else None

    def best(self, asked: Asked, k: int) -> Found:
        """Token and score of the k best items of each history."""
        find = self._rank if self.index is None else self._search
        return [found for part in asked.parts() for found in find(part, k)]

    def user_vectors(self, asked: Asked) -> np.ndarray:
        """User vectors ``[B, d + s]``; ``[B, d]`` of a plain model."""
        empty = np.zeros((0, self.item_vectors().shape[1]), dtype=np.float32)
        users = [self._users(part) for part in asked.parts()]
        return np.concatenate([empty, *(user.cpu().numpy() for user in users)])

    def item_vectors(self) -> Tensor:
        """Item vectors ``[n_items, d + s]``; ``[n_items, d]`` of a plain model.

        Raises
        ------
        DPRError
            If a plain model ranks by no dot product.
        """
        if self._steered is not None:
            return self._steered.vectors
        if not self._backbone.size:
            raise DPRError(
                f"{type(self.model).__name__} ranks by no dot product: it has no item vectors"
            )
        return self._backbone.item_vectors().detach()

    @cached_property
    def _backbone(self) -> Backbone:
        """A plain model, and how it makes user vectors."""
        with self._lock:
            return Backbone(self.model)

    @torch.inference_mode()
    def summands(self, asked: Asked) -> tuple[Tensor, Tensor, Tensor]:
        """What scores are made of: the backbone's, the shift's and the semantic part, each ``[B, n_items]``."""
        if self._steered is None:
            base = self._scores(asked)
            return base, torch.zeros_like(base), torch.zeros_like(base)
        interaction = self._histories.interaction(asked.ids)
        with self._lock:
            return self._steered.summands(interaction, *asked.intents, asked.strength)

    @torch.inference_mode()
    def _scores(self, asked: Asked) -> Tensor:
        """Scores ``[B, n_items]`` of the whole catalogue."""
        interaction = self._histories.interaction(asked.ids)
        with self._lock:
            if self._steered is None:
                return own_scores(self.model, complete(self.model, interaction))
            return self._steered.scores(interaction, *asked.intents, asked.strength)

    @torch.inference_mode()
    def _users(self, asked: Asked) -> Tensor:
        """User vectors ``[B, d + s]``."""
        interaction = self._histories.interaction(asked.ids)
        if self._steered is not None:
            with self._lock:
                return self._steered.user_vectors(interaction, *asked.intents, asked.strength)
        backbone, items = self._backbone, interaction[self.model.ITEM_SEQ]
        with self._lock:
            return backbone.user_vectors(items, interaction.interaction.get(self.model.USER_ID))

    @torch.inference_mode()
    def _rank(self, asked: Asked, k: int) -> Found:
        """The k best of the whole catalogue."""
        scores = self._scores(asked)
        scores[:, 0] = -torch.inf
        if asked.exclude_history:
            for row, known in enumerate(asked.ids):
                scores[row, known] = -torch.inf
        best = scores.topk(k, dim=1)
        return self._named(best.indices.tolist(), best.values.tolist())

    def _search(self, asked: Asked, k: int) -> Found:
        """The k best that the index finds, in the order of their exact scores."""
        assert self.index is not None
        hidden = [set(known) if asked.exclude_history else set() for known in asked.ids]
        users, vectors = self._users(asked), self.item_vectors()
        more = min(k + max(map(len, hidden)), len(self._tokens) - 1)
        rows = self.index.search(users.cpu().numpy(), more).tolist()
        best, scores = [], []
        for user, row, out in zip(users, rows, hidden, strict=True):
            kept = [item for item in row if item > 0 and item not in out]
            if len(kept) < min(k, len(self._tokens) - 1 - len(out)):  # a graph does not reach all
                return self._rank(asked, k)
            exact = (vectors[kept] @ user).sort(descending=True, stable=True)
            best.append([kept[place] for place in exact.indices[:k].tolist()])
            scores.append(exact.values[:k].tolist())
        return self._named(best, scores)

    def _named(self, rows: list[list[int]], scores: list[list[float]]) -> Found:
        tokens = self._tokens
        return [
            [(tokens[i], s) for i, s in zip(items, values, strict=True) if s > -math.inf]
            for items, values in zip(rows, scores, strict=True)
        ]
