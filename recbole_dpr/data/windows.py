"""Training windows over the users' histories, cut when a batch is made."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_dpr.data.dataset import LOGGED_FIELD, ROW_FIELD, PromptDataset, cut

FEWEST = 32  # batches of an epoch: with less, the default number of epochs would teach little
TARGET_LIST = "target_list"
LOGGED_LIST = "logged_prompt_list"
WINDOW = "window"


def small_enough(batch_size: int, samples: int) -> int:
    """`batch_size`, or less where an epoch of so many samples would have less than `FEWEST` batches."""
    return min(batch_size, max(1, samples // FEWEST))


class WindowLoader:
    """Batches of windows in which a causal model is trained on many positions at once.

    A user's targets (every item of the training split but the first) are cut into runs. The first
    run of an epoch holds a random number of targets, between L - stride + 1 and L; each of the others
    holds `stride`, the last one what is left. A run becomes a window of the L items that stand before
    its last target, with a loss at the run's own positions only. So **each target counts exactly
    once per epoch**, whatever the history's length; all but those of the first run have at least
    L - stride items of context, as they have in evaluation; and the random first run moves the cuts
    and the positions from epoch to epoch.

    RecBole's trainer iterates this as it does its own ``TrainDataLoader``. The order and the cuts
    depend on (seed, epoch) alone: call `set_epoch`, and a resumed run sees what it would have seen.

    Parameters
    ----------
    config : RecBole Config
        Reads ``MAX_ITEM_LIST_LENGTH`` (L), ``window_stride``, ``seed``, ``shuffle``.
    dataset : PromptDataset
        The training split.
    batch_size : int
        Windows per batch; fewer where an epoch would have less than `FEWEST` batches.
    fixed_cuts : bool
        Cut every epoch as the first, so that what was computed for a window holds for all epochs.

    Yields
    ------
    Interaction
        ``window [B]`` (its number), ``user_id [B]``, ``item_id_list [B, L]``, ``item_length [B]`` and
        ``target_list [B, L]``: the item that follows each position, 0 where there is no loss. Where the
        data set has prompts of its own, also ``logged_prompt_list [B, L]``: the target's, 0 for none.
    """

    def __init__(
        self, config: Any, dataset: PromptDataset, batch_size: int, fixed_cuts: bool = False
    ) -> None:
        self.dataset = dataset  # RecBole's collector reads it
        self.config = config
        self.fixed_cuts = fixed_cuts
        self.shuffle = bool(config["shuffle"])
        self.length = config["MAX_ITEM_LIST_LENGTH"]
        self.stride = min(config["window_stride"], self.length)
        row = dataset.inter_feat[ROW_FIELD].numpy()
        users = dataset.inter_feat[dataset.uid_field].numpy()
        first = np.flatnonzero(np.r_[True, users[1:] != users[:-1]])
        last = np.r_[first[1:], len(users)] - 1
        context = dataset.inter_feat[dataset.item_list_length_field].numpy()
        self._user_start = row[first] - context[first]  # flat row of each user's first item
        self._first_target, self._last_target = row[first], row[last]
        self.set_epoch(0)
        self.batch_size = small_enough(batch_size, self.n_windows)

    def set_epoch(self, epoch: int) -> None:
        """Cut the windows of one epoch; see the class."""
        seed = self.config["seed"]
        first, last, start = self._cut(
            np.random.default_rng((seed, 0 if self.fixed_cuts else epoch))
        )
        self._run = torch.from_numpy(
            np.stack([first, last, np.maximum(start, last - self.length)], 1)
        )
        rng = np.random.default_rng((seed, epoch, 1))
        order = rng.permutation(len(first)) if self.shuffle else np.arange(len(first))
        self._order = torch.from_numpy(order)

    def _cut(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Flat rows of every run's first and last target, and of its user's first item."""
        n_targets = self._last_target - self._first_target + 1
        head = self.length - rng.integers(0, self.stride, len(n_targets))
        runs = 1 + np.maximum(0, -(-(n_targets - head) // self.stride))
        user = np.repeat(np.arange(len(runs)), runs)
        number = np.arange(len(user)) - np.repeat(np.cumsum(runs) - runs, runs)
        begin = np.where(number == 0, 0, head[user] + (number - 1) * self.stride)
        end = np.minimum(head[user] + number * self.stride, n_targets[user])
        first_target = self._first_target[user]
        return first_target + begin, first_target + end - 1, self._user_start[user]

    def __len__(self) -> int:
        return math.ceil(len(self._order) / self.batch_size)

    def __iter__(self) -> Iterator[Interaction]:
        for batch in self._order.split(self.batch_size):
            yield self.windows(batch)

    @property
    def n_windows(self) -> int:
        """Number of windows of the epoch."""
        return len(self._run)

    def windows(self, numbers: Tensor) -> Interaction:
        """Cut windows by their numbers."""
        first, last, start = self._run[numbers].unbind(dim=1)
        dataset = self.dataset
        items = dataset.history[dataset.iid_field]
        length = last - start
        targets = cut(items, start + 1, length, self.length)
        targets[start[:, None] + 1 + torch.arange(self.length) < first[:, None]] = 0
        batch = {
            WINDOW: numbers,
            dataset.uid_field: dataset.history[dataset.uid_field][last],
            dataset.iid_field + self.config["LIST_SUFFIX"]: cut(items, start, length, self.length),
            dataset.item_list_length_field: length,
            TARGET_LIST: targets,
        }
        if LOGGED_FIELD in dataset.history:
            logged = cut(dataset.history[LOGGED_FIELD], start + 1, length, self.length)
            batch[LOGGED_LIST] = logged * (targets > 0)
        return Interaction(batch)


def before(items: Tensor, where: Tensor) -> Tensor:
    """The items of a window up to each of n positions, zeros behind them: long ``[n, L]``.

    Parameters
    ----------
    items : LongTensor ``[B, L]``
    where : BoolTensor ``[B, L]``
        The n positions.
    """
    window, last = where.nonzero(as_tuple=True)
    return items[window] * (torch.arange(items.shape[1], device=items.device) <= last[:, None])


class PrefixWindows(WindowLoader):
    """One window per prefix, with a loss at its last position: for models that are not causal.

    As `WindowLoader`, with a fixed sample of the targets.

    Parameters
    ----------
    limit : int or None
        Prefixes at most, drawn with ``seed``.
    """

    def __init__(
        self, config: Any, dataset: PromptDataset, batch_size: int, limit: int | None
    ) -> None:
        self.limit = limit
        super().__init__(config, dataset, batch_size, fixed_cuts=True)

    def _cut(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        n_targets = self._last_target - self._first_target + 1
        user = np.repeat(np.arange(len(n_targets)), n_targets)
        target = self.dataset.inter_feat[ROW_FIELD].numpy()
        chosen = np.sort(rng.permutation(len(target))[: self.limit])
        return target[chosen], target[chosen], self._user_start[user[chosen]]
