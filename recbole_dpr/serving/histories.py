"""From histories of item tokens to what RecBole's models take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import SequentialRecommender

from recbole_dpr.data.catalogue import Catalogue
from recbole_dpr.errors import DPRError, did_you_mean

HINTED = 20_000  # items among which a like token is looked for; a million take seconds
SHOWN = 80  # characters of a wrong token that a message repeats


class Histories:
    """Looks up items by token and lays histories out as right-padded lists.

    Parameters
    ----------
    catalogue : Catalogue
    config : DPRConfig or RunOptions
    model : SequentialRecommender
    """

    def __init__(self, catalogue: Catalogue, config: Any, model: SequentialRecommender) -> None:
        self._ids = {token: i for i, token in enumerate(catalogue.tokens) if i}
        self._titles = dict(zip(catalogue.titles[1:], catalogue.tokens[1:], strict=True))
        self._dataset, self._device = config["dataset"], config["device"]
        self._length = config["MAX_ITEM_LIST_LENGTH"]
        self._fields = (model.ITEM_SEQ, model.ITEM_SEQ_LEN)

    def known(
        self, histories: Sequence[Sequence[str]], n_prompts: int, strict: bool
    ) -> tuple[list[list[int]], list[int]]:
        """Ids of the known items of each history, and how many are unknown.

        Raises
        ------
        DPRError
            If there are not as many histories as prompts, or one is no list, is empty, has no known
            item or, where `strict`, has an unknown one.
        """
        if len_of(histories, "histories") != n_prompts:
            raise DPRError(f"{len(histories)} histories came with {n_prompts} prompts")
        ids, skipped = [], []
        for row, history in enumerate(histories):
            tokens = texts_in(history, f"history {row}", "at least one item token")
            if not tokens:
                raise DPRError(f"history {row} must be a list of at least one item token")
            known = [self._ids[token] for token in tokens if token in self._ids]
            if not known or (strict and len(known) < len(tokens)):
                self.item(
                    f"history {row}", next(token for token in tokens if token not in self._ids)
                )
            ids.append(known)
            skipped.append(len(tokens) - len(known))
        return ids, skipped

    def item(self, where: str, token: str) -> int:
        """The id of an item, or a `DPRError` that names it, and where it stood."""
        item = self._ids.get(token)
        if item is None:
            shown = token[:SHOWN]
            hint = did_you_mean(shown, self._ids) if len(self._ids) <= HINTED else ""
            if token in self._titles:
                hint = (
                    f"; items go by their tokens: {token!r} is the title of {self._titles[token]!r}"
                )
            raise DPRError(f"{where} holds {shown!r}, which is no item of {self._dataset}{hint}")
        return item

    def interaction(self, ids: Sequence[Sequence[int]]) -> Interaction:
        """RecBole's batch of the last items of each history: lists ``[B, L]`` and lengths ``[B]``."""
        lists = np.zeros((len(ids), self._length), dtype=np.int64)
        lengths = np.zeros(len(ids), dtype=np.int64)
        for row, known in enumerate(ids):
            last = known[-self._length :]
            lists[row, : len(last)] = last
            lengths[row] = len(last)
        tensors = [torch.from_numpy(values) for values in (lists, lengths)]
        return Interaction(dict(zip(self._fields, tensors, strict=True))).to(self._device)


def len_of(given: Sequence[Any], name: str = "prompts") -> int:
    """The length of a list of requests, or a `DPRError` if it is no list."""
    listed = given.ndim > 0 if isinstance(given, np.ndarray) else isinstance(given, Sequence)
    if isinstance(given, (str, bytes)) or not listed:
        raise DPRError(f"{name} must be a list, not {type(given).__name__}")
    return len(given)


def texts_in(given: Any, name: str, what: str) -> list[str]:
    """The entries of a list as texts, or a `DPRError` if it is none: a text, say, is no list of letters."""
    try:
        if not isinstance(given, (str, bytes, Mapping)):
            return [str(entry) for entry in given]
    except TypeError:  # nothing to go through
        pass
    raise DPRError(f"{name} must be a list of {what}, not {given!r}")
